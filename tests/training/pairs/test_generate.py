"""All kinds together: exact spans, no two alike, the same for the same seed, and nothing that makes it fall over."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxindex.errors import ConfigError
from ctxindex.training.pairs import KINDS, OFFLINE, Drawn, Kind, PairOptions, draw
from ctxindex.training.pairs.subject import subjects_of
from ctxindex.training.pairs.text import content_words, fold
from ctxindex.types import Document
from tests.test_house import loaded_by
from tests.training.pairs.documents import HOSTILE, ISLAND, corpus, island, lease

PROSE = st.lists(
    st.one_of(
        st.text(max_size=80),
        st.sampled_from(
            [
                "The engine of the ship was built in 1912 by Harland and Wolff in Belfast.",
                '"Vessel" means any ship that is registered under the laws of a member state.',
                "Loading Times. The goods are loaded within thirty (30) days after the notice of arrival. It is so.",
                "\n\n",
                "\n# A Heading of Words\n",
                "\r\n",
                "```\n",
                "二〇一六年，这座机场在圣赫勒拿岛的东部正式投入使用，每周有一班飞机。",  # noqa: RUF001
            ]
        ),
    ),
    max_size=25,
).map(" ".join)


def check(documents: Sequence[Document], drawn: Drawn, most: int = 20) -> None:
    """What holds for the pairs of any documents."""
    texts = {document.doc_id: document.text for document in documents}
    for pair in drawn.pairs:
        text = texts[pair.doc_id]
        assert 0 <= pair.start < pair.end <= len(text)
        assert text[pair.start : pair.end] == text[pair.start : pair.end].strip() != ""
        assert pair.query == fold(pair.query) != ""
        if pair.remove is not None:
            assert pair.start <= pair.remove[0] < pair.remove[1] <= pair.end
            assert pair.remove != (pair.start, pair.end), "something is left to be found"
    counts = Counter(pair.doc_id for pair in drawn.pairs)
    assert all(count <= most for count in counts.values())
    assert len({pair.query.casefold() for pair in drawn.pairs}) == len(drawn.pairs)
    assert len({pair.query_id for pair in drawn.pairs}) == len(drawn.pairs)


@given(texts=st.lists(PROSE, min_size=1, max_size=4), seed=st.integers(0, 5), remove=st.booleans())
@settings(max_examples=150, deadline=None)
def test_spans_are_exact_in_any_text(texts: list[str], seed: int, remove: bool) -> None:
    documents = [Document(f"{number}.txt", text) for number, text in enumerate(texts)]
    check(documents, draw(documents, PairOptions(6, seed=seed, remove_sentences=remove)), 6)


@pytest.mark.parametrize("name", HOSTILE)
def test_no_document_makes_it_fall_over_or_take_for_ever(name: str) -> None:
    documents = [Document("hostile.txt", HOSTILE[name]), lease()]
    began = time.perf_counter()
    drawn = draw(documents)
    assert time.perf_counter() - began < 10
    check(documents, drawn)
    assert any(pair.doc_id == "lease.txt" for pair in drawn.pairs)


def test_documents_of_every_language_have_pairs_that_name_their_subject() -> None:
    documents = corpus()
    drawn = draw(documents)
    check(documents, drawn)
    subjects = {document.doc_id: subject for document, subject in zip(documents, subjects_of(documents), strict=True)}
    assert {pair.doc_id for pair in drawn.pairs} == set(subjects)
    for pair in drawn.pairs:
        assert subjects[pair.doc_id].is_named_in(pair.query), pair
    assert set(drawn.by_kind()) == set(OFFLINE)
    assert not any("What is said" in pair.query for pair in drawn.pairs if pair.doc_id in ("gugong.txt", "haifa.txt"))


def test_the_seed_decides_and_nothing_else_does() -> None:
    documents = corpus()
    one = draw(documents, PairOptions(4, seed=1))
    assert draw(documents, PairOptions(4, seed=1)) == one
    assert draw(documents, PairOptions(4, seed=2)).pairs != one.pairs
    shuffled = random.Random(3).sample(documents, len(documents))
    assert set(draw(shuffled, PairOptions(4, seed=1)).pairs) == set(one.pairs)


def test_no_more_pairs_than_asked_for_and_of_the_kinds_asked_for() -> None:
    documents = corpus()
    for kind in OFFLINE:
        some = draw(documents, PairOptions(3, (kind,)))
        check(documents, some, 3)
        assert set(some.by_kind()) <= {kind}


def test_kinds_share_a_document() -> None:
    counts = draw([island(), lease()], PairOptions(8)).by_kind()
    assert set(counts) == {"headings", "definitions", "sentences", "cloze"}


def test_code_is_never_asked_about() -> None:
    drawn = draw([island(), lease()], PairOptions(100))
    start, end = ISLAND.index("```"), ISLAND.rindex("```")
    assert not [pair for pair in drawn.pairs if pair.doc_id == "island.md" and pair.start < end and start < pair.end]


def test_two_copies_of_a_document_have_no_query_in_common() -> None:
    documents = [lease("a.txt"), lease("b.txt")]
    drawn = draw(documents)
    check(documents, drawn)
    assert {pair.doc_id for pair in drawn.pairs} == {"a.txt", "b.txt"}


def test_a_document_is_not_asked_the_same_twice() -> None:
    drawn = draw([lease(), island()], PairOptions(100))
    for doc_id in ("lease.txt", "island.md"):
        asked = [frozenset(map(str.casefold, content_words(p.query))) for p in drawn.pairs if p.doc_id == doc_id]
        assert len(set(asked)) == len(asked)


def test_a_removed_sentence_answers_nothing_else() -> None:
    drawn = draw(corpus(), PairOptions(30, remove_sentences=True))
    removed = [pair for pair in drawn.pairs if pair.remove is not None]
    assert removed
    for pair in removed:
        assert pair.kind == "cloze"
        assert pair.remove is not None
        for other in drawn.pairs:
            if other is not pair and other.doc_id == pair.doc_id:
                assert not (other.start < pair.remove[1] and pair.remove[0] < other.end)


@pytest.mark.parametrize(("count", "kinds"), [(0, OFFLINE), (1, ()), (1, ("nonsense",))])
def test_what_is_no_wish_is_refused(count: int, kinds: tuple[Kind, ...]) -> None:
    with pytest.raises(ConfigError):
        PairOptions(count, kinds)


def test_generated_pairs_need_somebody_to_write_them() -> None:
    with pytest.raises(ConfigError, match="--llm"):
        draw([lease()], PairOptions(kinds=KINDS))


def test_importing_it_is_cheap() -> None:
    heavy = {"torch", "transformers", "llama_index", "lancedb", "pyarrow", "openai", "scipy", "bm25s"}
    assert not loaded_by("import ctxindex.training.pairs, ctxindex.cli.pairs") & heavy
