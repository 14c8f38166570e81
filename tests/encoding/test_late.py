"""Anchor, ownership and blend, on a backbone whose states are token ids."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxindex.encoding import EncoderOptions, load_encoder
from ctxindex.encoding.checkpoint import open_checkpoint
from ctxindex.encoding.content import Content, join_chunks
from ctxindex.encoding.document_rows import OPENING
from ctxindex.encoding.late import Anchor, late_rows
from ctxindex.encoding.local import LocalEncoder
from ctxindex.encoding.rows import Frame
from ctxindex.errors import ConfigError
from ctxindex.metering import Meter
from ctxindex.types import Chunk, ChunkedDocument, Document, EncodedDocument
from tests.encoding.stand_in import IdBackbone, chunked

if TYPE_CHECKING:
    from ctxindex.encoding.tokenizer import Ids
    from ctxindex.types import FloatArray

CLS, SEP = 1, 2
NO_IDS = np.empty(0, dtype=np.int32)


def ids_of(lengths: list[int]) -> list[Ids]:
    """Chunks in which every token of the document has an id of its own, from 100 on."""
    edges = np.cumsum([100, *lengths])
    return [np.arange(start, stop, dtype=np.int32) for start, stop in itertools.pairwise(edges)]


def stood_as_they_are(chunks: list[Ids]) -> Content:
    """The chunks as spans of one text, with nothing in between."""
    edges = np.cumsum([0, *map(len, chunks)]).tolist()
    ids = np.concatenate(chunks)
    return Content(ids, np.zeros(len(ids), dtype=np.bool_), tuple(itertools.pairwise(edges)))


@pytest.mark.parametrize("join", ["sep", "raw"])
@settings(max_examples=200)
@given(
    st.lists(st.integers(1, 90), min_size=1, max_size=25),
    st.integers(24, 96),
    st.integers(0, 40),
    st.integers(0, 30),
    st.sampled_from(["centre", "first", "mean"]),
)
def test_windows_begin_with_the_anchor_and_pool_every_token_once(
    join: str, lengths: list[int], max_tokens: int, tokens: int, title_length: int, owner: Any
) -> None:
    frame = Frame(CLS, SEP, NO_IDS, max_tokens)
    title = np.arange(10, 10 + title_length, dtype=np.int32)
    chunks = ids_of(lengths)
    joined = join_chunks(chunks, SEP) if join == "sep" else stood_as_they_are(chunks)
    rows = late_rows(joined, frame, 10, Anchor(title, tokens), owner)
    assert all(row.length <= max_tokens for row in rows)
    cut = title[: frame.room // 4 - 1].tolist()
    pooled: dict[int, int] = {}
    for row in rows:
        assert row.ids[: 1 + len(cut)].tolist() == [CLS, *cut], "the title stands at the start of every window"
        for place in row.places:
            for token in row.ids[place.start : place.end].tolist():
                pooled[token] = pooled.get(token, 0) + 1
                assert token in chunks[place.chunk]
    assert sorted(pooled) == list(range(100, 100 + sum(lengths)))
    assert owner == "mean" or set(pooled.values()) == {1}
    wanted = min(tokens, frame.room // 4 - 1, lengths[0] if join == "sep" else sum(lengths))
    for row in rows[1:]:
        content = [token for token in row.ids.tolist() if token >= 100]
        assert content[:wanted] == list(range(100, 100 + wanted)), "and then the document's first tokens"
        assert content == sorted(set(content)), "in the order of the text, none of them twice"


def encoder_with(**options: Any) -> tuple[LocalEncoder, IdBackbone]:
    chosen = EncoderOptions(method="late", **options)
    spec = replace(load_encoder("minilm", chosen).spec, dim=2)
    backbone = IdBackbone()
    return LocalEncoder(open_checkpoint("minilm"), spec, chosen, Meter(), backbone), backbone


def vectors(encoder: LocalEncoder, document: ChunkedDocument) -> FloatArray:
    (result,) = encoder.encode_documents([document])
    assert isinstance(result, EncodedDocument)
    return result.vectors


def titled(title: str | None, texts: list[str]) -> ChunkedDocument:
    source = chunked("a", texts)
    return ChunkedDocument(replace(source.document, title=title), source.chunks)


@pytest.mark.parametrize(
    ("title", "shown"), [("Royalty Agreement", True), ("The PARTY of", False), (None, False), ("  ", False)]
)
def test_a_title_is_shown_unless_the_text_begins_with_it(title: str | None, shown: bool) -> None:
    encoder, backbone = encoder_with(anchor_title=True)
    vectors(encoder, titled(title, ["the party of the first part", "the party of the second part"]))
    expected = encoder.tokenizer.ids([title or ""])[0].tolist() if shown else []
    assert backbone.rows[0].ids.tolist()[1 : 1 + len(expected) + 1] == [
        *expected,
        encoder.tokenizer.sep_id if shown else encoder.tokenizer.ids(["the"])[0][0],
    ]


TEXTS = ["alpha beta gamma delta", "one two three", "red green blue yellow white"]


def test_the_isolated_view_pools_the_same_tokens() -> None:
    """Without context in the states both views are the same, so a blend of them changes nothing."""
    plain = vectors(encoder_with()[0], chunked("a", TEXTS))
    blended = vectors(encoder_with(blend=0.4)[0], chunked("a", TEXTS))
    np.testing.assert_allclose(blended, plain, rtol=1e-6)


def test_the_isolated_view_may_carry_the_title() -> None:
    encoder, backbone = encoder_with(blend=0.4, isolated="title")
    vectors(encoder, titled("Royalty Agreement", TEXTS))
    title = encoder.tokenizer.ids(["Royalty Agreement"])[0].tolist()
    isolated = [row.ids.tolist() for row in backbone.rows if row.isolated]
    assert len(isolated) == 3
    assert all(ids[1 : 1 + len(title)] == title for ids in isolated)


def isolated_in_order(backbone: IdBackbone) -> list[list[int]]:
    rows = [row for row in backbone.rows if row.isolated]
    return [row.ids.tolist() for row in sorted(rows, key=lambda row: row.places[0].chunk)]


def test_what_begins_the_text_is_shown_to_the_chunks_behind_it_only() -> None:
    """Alone, a later chunk has no other way to know the title than to be told, though the text says it."""
    for isolated in ("title", "opening"):
        encoder, backbone = encoder_with(blend=0.4, isolated=isolated)
        vectors(encoder, titled("Alpha beta", TEXTS))
        title = encoder.tokenizer.ids(["Alpha beta"])[0].tolist()
        first, *others = isolated_in_order(backbone)
        assert first[1:] == [*encoder.tokenizer.ids([TEXTS[0]])[0].tolist(), encoder.tokenizer.sep_id]
        assert all(ids[1 : 1 + len(title) + 1] == [*title, encoder.tokenizer.sep_id] for ids in others)


def test_the_isolated_view_may_carry_the_opening_where_there_is_no_title() -> None:
    texts = ["alpha " * 20, "beta " * 20, "gamma " * 20]
    encoder, backbone = encoder_with(blend=0.4, isolated="opening")
    vectors(encoder, titled(None, texts))
    ids = encoder.tokenizer.ids(texts)
    head = [*ids[0], encoder.tokenizer.sep_id, *ids[1]][: OPENING + 1]  # the separator is no content
    rows = isolated_in_order(backbone)
    # What begins within the opening is read without it.
    assert [row[1:-1] for row in rows[:2]] == [part.tolist() for part in ids[:2]]
    assert rows[2][1:-1] == [*head, encoder.tokenizer.sep_id, *ids[2]]


def test_the_isolated_view_of_the_raw_text_tokenises_chunks_alone() -> None:
    text = "alphabet soup"  # the second chunk begins inside a word
    chunks = (Chunk(0, 0, 5, "alpha"), Chunk(1, 5, 13, "bet soup"))
    encoder, backbone = encoder_with(blend=0.4, join="raw")
    vectors(encoder, ChunkedDocument(Document("a", text), chunks))
    whole, *alone = sorted(backbone.rows, key=lambda row: (row.isolated, row.places[0].chunk))
    assert whole.ids[1:-1].tolist() == encoder.tokenizer.ids([text])[0].tolist()
    assert [row.ids[1:-1].tolist() for row in alone] == [
        ids.tolist() for ids in encoder.tokenizer.ids(["alpha", "bet soup"])
    ]


@pytest.mark.parametrize("blend", [0.2, 0.5, 0.9])
def test_a_blend_is_the_formula(blend: float) -> None:
    document = chunked("a", TEXTS)
    contextual = vectors(load_encoder("minilm", EncoderOptions(method="late", device="cpu")), document)
    alone = load_encoder("minilm", EncoderOptions(method="late", device="cpu"))
    isolated = np.concatenate([vectors(alone, chunked("b", [text])) for text in TEXTS])
    mixed = (1 - blend) * contextual.astype(np.float64) + blend * isolated
    expected = mixed / np.linalg.norm(mixed, axis=1, keepdims=True)
    found = vectors(load_encoder("minilm", EncoderOptions(method="late", blend=blend, device="cpu")), document)
    np.testing.assert_allclose(found, expected, atol=2e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "late", "blend": 1.0}, "--blend 1.0"),
        ({"method": "late", "blend": -0.1}, "--blend -0.1"),
        ({"method": "late", "anchor": 300}, "--anchor 300"),
        ({"method": "independent", "blend": 0.5}, "--blend goes with --method late"),
        ({"method": "independent", "anchor_title": True}, "--anchor-title goes with --method late"),
    ],
)
def test_options_that_cannot_work_are_refused_by_name(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_encoder("minilm", EncoderOptions(**options))
