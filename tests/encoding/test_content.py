"""What a model reads of a document, and where its chunks lie in that: the text as it stands, and joined chunks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxindex.encoding import tokenizer as tokenizer_module
from ctxindex.encoding.content import Content, join_chunks, locate_chunks, without_gaps
from ctxindex.encoding.late import Ends, late_rows, token_rows
from ctxindex.encoding.rows import Frame
from ctxindex.encoding.tokenizer import Located, ModelTokenizer
from ctxindex.types import Chunk
from tests.encoding.tiny import byte_level, fast, unigram, wordpiece

KINDS: dict[str, Callable[[], Any]] = {"wordpiece": wordpiece, "byte-level": byte_level, "unigram": unigram}
TEXT = "  Napoleon was  born\r\n\r\nin 東京, naïve 🙂🙃x.\n [SEP] He [CLS] died\tin exile! "
CHARACTERS = st.sampled_from(
    [" ", "  ", "\n", "\r\n", "a", "Napoleon", "é", "東", "🙂", "[SEP]", ".", "died", "\u200b"]
)


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ModelTokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    fast(KINDS[request.param]()).save_pretrained(folder)
    return ModelTokenizer(folder)


def cut(text: str, *edges: tuple[int, int]) -> list[Chunk]:
    return [Chunk(number, start, end, text[start:end]) for number, (start, end) in enumerate(edges)]


def located(*tokens: tuple[int, int]) -> Located:
    """Tokens with the ids 100, 101, … at these characters."""
    spans = np.array(tokens, dtype=np.int32).reshape(-1, 2)
    return Located(np.arange(100, 100 + len(spans), dtype=np.int32), spans[:, 0], spans[:, 1])


def test_ids_are_those_of_the_text_and_places_those_of_the_words(tokenizer: ModelTokenizer) -> None:
    tokens = tokenizer.locate(TEXT)
    assert tokens.ids.dtype == tokens.begins.dtype == tokens.ends.dtype == np.int32
    np.testing.assert_array_equal(tokens.ids, tokenizer.ids([TEXT])[0])
    if "▁" not in str(tokenizer._tokenizer.get_vocab()):  # a unigram model has its special tokens among its words
        assert not {tokenizer.sep_id, tokenizer.cls_id} & set(tokens.ids.tolist()), "literals are plain text"
    for word in ("Napoleon", "born", "東京", "naïve", "🙂", "He", "exile"):
        start = TEXT.index(word)
        content = locate_chunks(tokens, cut(TEXT, (start, start + len(word))))
        (first, last) = content.spans[0]
        assert first < last
        assert tokens.begins[first] == start
        covered = "".join(TEXT[tokens.begins[token] : tokens.ends[token]] for token in range(first, last))
        assert set(word) <= set(covered)
        assert tokens.ends[last - 1] >= start + len(word)


@pytest.mark.parametrize("lead", ["", " "])
@settings(deadline=None, max_examples=60)
@given(words=st.lists(CHARACTERS, min_size=1, max_size=30), edges=st.lists(st.integers(0, 60), max_size=8))
def test_chunks_without_gaps_share_all_tokens_out_once_in_order(
    tokenizer: ModelTokenizer, lead: str, words: list[str], edges: list[int]
) -> None:
    text = "".join(words)
    inner = sorted({edge for edge in edges if 0 < edge < len(text)})
    borders = list(zip([0, *inner], [*inner, len(text)], strict=True))
    tokens = tokenizer.locate(text, lead)
    np.testing.assert_array_equal(tokens.ids, tokenizer.ids([lead + text])[0])
    content = locate_chunks(tokens, cut(text, *borders))
    owned = [token for start, end in content.spans for token in range(start, end)]
    assert sorted(set(owned)) == [token for token, place in enumerate(tokens.begins.tolist()) if place >= 0]
    for (start, end), (first, last) in zip(borders, content.spans, strict=True):
        places = list(zip(tokens.begins.tolist(), tokens.ends.tolist(), strict=True))
        begin = [token for token, (place, _) in enumerate(places) if start <= place < end]
        covers = [token for token, (place, stop) in enumerate(places) if place < start < stop]
        assert list(range(first, last)) == (begin or covers), "own tokens, or else those that cover it"
    filled = without_gaps(content)
    assert [end for _, end in filled.spans][-1:] == [len(tokens.ids)]


@settings(deadline=None, max_examples=40)
@given(words=st.lists(CHARACTERS, max_size=60), stretch=st.integers(3, 30))
def test_a_long_text_has_the_same_tokens_in_stretches(
    tokenizer: ModelTokenizer, words: list[str], stretch: int
) -> None:
    text = "".join(words)
    whole = tokenizer.locate(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenizer_module, "_STRETCH", stretch)
        parts = tokenizer.locate(text)
    for name in ("ids", "begins", "ends"):
        np.testing.assert_array_equal(getattr(parts, name), getattr(whole, name))


def test_a_long_text_is_tokenised_in_stretches(tokenizer: ModelTokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer_module, "_STRETCH", 50)
    text = "He became emperor in 1804 and died. " * 20
    assert 50 <= tokenizer._stretch_end(text, 0) < 70


def test_a_token_across_a_border_belongs_to_the_chunk_of_its_first_character() -> None:
    tokens = located((0, 4), (4, 9), (9, 12))
    assert locate_chunks(tokens, cut("abcdefghijkl", (0, 6), (6, 12))).spans == ((0, 2), (2, 3))


def test_a_chunk_inside_a_token_takes_it_and_one_of_nothing_stays_empty() -> None:
    tokens = located((0, 8), (10, 12))
    assert locate_chunks(tokens, cut("abcdefgh  kl", (0, 3), (3, 6), (8, 10), (10, 12))).spans == (
        (0, 1),
        (0, 1),
        (1, 1),
        (1, 2),
    )


def test_chunks_that_overlap_share_tokens() -> None:
    tokens = located(*((place, place + 1) for place in range(12)))
    content = locate_chunks(tokens, cut("abcdefghijkl", (0, 6), (4, 9), (8, 12)))
    assert content.spans == ((0, 6), (4, 9), (8, 12))
    assert content.owned == 15
    assert without_gaps(content) == content


def test_gaps_go_to_the_chunk_before_and_to_the_first() -> None:
    tokens = located(*((place, place + 1) for place in range(12)))
    content = locate_chunks(tokens, cut("abcdefghijkl", (1, 4), (6, 8), (8, 10)))
    assert content.spans == ((1, 4), (6, 8), (8, 10))
    assert without_gaps(content).spans == ((0, 6), (6, 8), (8, 12))
    nested = Content(content.ids, content.separators, ((0, 9), (2, 3), (10, 11)))
    assert without_gaps(nested).spans == ((0, 9), (2, 10), (10, 12)), "what a longer chunk has is no gap"


def test_joined_chunks_have_separators_in_between() -> None:
    content = join_chunks([np.array([5, 6], dtype=np.int32), np.array([7], dtype=np.int32)], sep_id=2)
    assert content.ids.tolist() == [5, 6, 2, 7]
    assert content.ids.dtype == np.int32
    assert content.spans == ((0, 2), (3, 4))
    assert (content.owned, content.total, content.count(0, 4)) == (3, 4, 3)
    assert content.trimmed(2, 3) == (3, 3)
    assert [content.head(tokens, 4) for tokens in (0, 1, 2, 3, 9)] == [0, 1, 2, 4, 4]
    assert [content.head(3, limit) for limit in (-1, 0, 1, 2, 3, 4)] == [0, 0, 1, 2, 2, 4]


SPANS = st.lists(st.tuples(st.integers(0, 12), st.integers(1, 30)), min_size=1, max_size=12)


def content_of(steps: list[tuple[int, int]], tail: int) -> Content:
    """Chunks with gaps and overlaps over tokens whose ids are 100, 101, …"""
    spans, start = [], 0
    for step, length in steps:
        start += step
        spans.append((start, start + length))
    total = max(end for _, end in spans) + tail
    ids = np.arange(100, 100 + total, dtype=np.int32)
    return Content(ids, np.zeros(total, dtype=np.bool_), tuple(spans))


@settings(max_examples=200)
@given(SPANS, st.integers(0, 20), st.integers(8, 60), st.data())
def test_windows_of_tokens_have_one_state_for_each_token(
    gaps: list[tuple[int, int]], tail: int, size: int, data: st.DataObject
) -> None:
    lengths = [0, *(length for _, length in gaps)]
    content = without_gaps(content_of([(gap + lengths[n], length) for n, (gap, length) in enumerate(gaps)], tail))
    frame = Frame(1, 2, np.array([3, 4], dtype=np.int32), size)
    rows = token_rows(content, frame, data.draw(st.integers(0, size - 1)), Ends(0, closing=True))
    pooled = [token for row in rows for place in row.places for token in row.ids[place.start : place.end].tolist()]
    assert sorted(pooled) == sorted([1, 3, 4, *content.ids.tolist(), 2])
    assert sum(row.content for row in rows) == content.total


@settings(max_examples=200)
@given(SPANS, st.integers(0, 20), st.integers(8, 60), st.sampled_from(["centre", "first"]), st.data())
def test_every_plan_pools_the_tokens_of_each_chunk_and_no_others(
    steps: list[tuple[int, int]], tail: int, size: int, owner: Any, data: st.DataObject
) -> None:
    content = content_of(steps, tail)
    frame = Frame(1, 2, np.array([3, 4], dtype=np.int32), size)
    overlap = data.draw(st.integers(0, 10))
    plans = [
        late_rows(content, frame, overlap, None, owner),
        late_rows(content, frame, overlap, None, owner, whole=True),
        token_rows(content, frame, min(overlap, size - 1)),
    ]
    assert len(plans[1]) == 1
    if content.total + 4 <= size:
        assert [row.ids.tolist() for row in plans[0]] == [plans[1][0].ids.tolist()], "one window is the full pass"
        assert plans[0][0].places == plans[1][0].places
    for rows in (plans[0], plans[2]):
        assert all(row.length <= size for row in rows)
    for rows in plans:
        assert sum(row.content for row in rows) == content.owned
        for chunk, (start, end) in enumerate(content.spans):
            pooled = [
                token
                for row in rows
                for place in row.places
                if place.chunk == chunk
                for token in row.ids[place.start : place.end].tolist()
            ]
            assert pooled == content.ids[start:end].tolist()
