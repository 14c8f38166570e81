"""Chunks, their numbers, and which of them are gold: brute force over characters says the same."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxindex.errors import DocumentError
from ctxindex.evaluation import Corpus, Dataset, GoldSpan, Query, cut
from ctxindex.evaluation.dataset import DatasetError
from ctxindex.types import Chunk, Document, Section
from tests.evaluation.builders import PEOPLE, corpus_of, people

LENGTH = 24


def spans(most: int) -> st.SearchStrategy[list[tuple[int, int]]]:
    one = st.tuples(st.integers(0, LENGTH - 1), st.integers(1, 8)).map(lambda it: (it[0], min(LENGTH, sum(it))))
    return st.lists(one, min_size=1, max_size=most)


@st.composite
def datasets(draw: st.DrawFn) -> Dataset:
    """Documents of letters, with chunks anywhere (with gaps, overlaps, side by side), and queries of any spans."""
    names = [f"d{number}" for number in range(draw(st.integers(1, 4)))]
    documents = tuple(Document(name, "abcdefgh" * (LENGTH // 8)) for name in names)
    units = {name: tuple(sorted(draw(spans(8)))) for name in names}
    queries = tuple(
        Query(f"q{number}", "what", tuple(GoldSpan(draw(st.sampled_from(names)), *span) for span in draw(spans(3))))
        for number in range(draw(st.integers(1, 3)))
    )
    return Dataset("set", documents, queries, units)


def gold_chunks(corpus: Corpus, query: int) -> list[tuple[str, int, str, int]]:
    found = [(*corpus.chunk(number), grade) for number, grade in corpus.gold[query].items()]
    return sorted((document.doc_id, chunk.ordinal, chunk.text, grade) for document, chunk, grade in found)


@given(dataset=datasets())
def test_a_chunk_is_gold_where_it_shares_a_character_with_a_span(dataset: Dataset) -> None:
    corpus = cut(dataset, None)
    chunks = [(one.document, chunk) for one in corpus.documents for chunk in one.chunks]
    for number, query in enumerate(dataset.queries):
        answer = {(span.doc_id, place) for span in query.spans for place in range(span.start, span.end)}
        expected = {
            index: 1
            for index, (document, chunk) in enumerate(chunks)
            if answer & {(document.doc_id, place) for place in range(chunk.start, chunk.end)}
        }
        assert corpus.gold[number] == expected
        documents = {int(corpus.owners[index]) for index in expected}
        assert corpus.gold_documents(number) == dict.fromkeys(documents, 1)


@given(dataset=datasets(), data=st.data())
def test_a_part_keeps_which_chunks_are_gold(dataset: Dataset, data: st.DataObject) -> None:
    corpus = cut(dataset, None)
    asked = data.draw(st.permutations(range(len(corpus.queries)))).copy()
    del asked[data.draw(st.integers(1, len(asked))) :]
    needed = {owner for query in asked for owner in corpus.gold_documents(query)}
    others = data.draw(st.sets(st.integers(0, len(corpus.documents) - 1), min_size=1))
    kept = data.draw(st.permutations(sorted(needed | others)))
    part = corpus.part(kept, asked)
    assert part.document_names == tuple(corpus.document_names[number] for number in sorted(kept))
    assert part.n_chunks == sum(len(corpus.documents[number].chunks) for number in kept)
    for new, old in enumerate(sorted(asked)):
        assert part.queries[new] is corpus.queries[old]
        assert gold_chunks(part, new) == gold_chunks(corpus, old)
        assert part.position(new) == pytest.approx(corpus.position(old), nan_ok=True)


def test_a_part_without_a_gold_document_is_refused() -> None:
    with pytest.raises(ValueError, match="a gold document of query 2 is left out"):
        people().part([0, 2, 3], [0, 2])


def test_a_part_of_a_set_that_ranks_documents_renumbers_documents() -> None:
    part = people(level="document").part([2, 1], [2, 3])
    assert part.document_names == ("curie", "edo")
    assert part.gold == ({0: 1}, {1: 1})
    assert math.isnan(part.position(0))


def test_chunks_are_numbered_through_all_documents() -> None:
    corpus = people()
    assert corpus.starts.tolist() == [0, 3, 6, 8, 9]
    assert corpus.owners.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 3]
    assert corpus.n_chunks == 9
    assert corpus.chunk_names[2:4] == ("napoleon_2", "curie_0")
    texts = [corpus.chunk(number)[1].text for number in range(9)]
    assert texts == [text for parts in PEOPLE.values() for text in parts]
    assert [corpus.chunk(number)[0].doc_id for number in (0, 3, 7, 8)] == ["napoleon", "curie", "edo", "fee"]
    assert corpus.gold == ({0: 1}, {1: 1}, {4: 1}, {6: 1, 7: 1}, {8: 1})


def test_a_position_is_that_of_the_first_gold_chunk_in_its_document() -> None:
    corpus = people()
    positions = [corpus.position(query) for query in range(5)]
    np.testing.assert_equal(positions, [0, 0.5, 0.5, 0, np.nan])  # the last document is a single chunk


@pytest.mark.parametrize(("grades", "expected"), [({"a": 3, "b": 1}, {0: 3, 1: 1}), ({"b": 2, "a": 0}, {1: 2})])
def test_grades_of_documents_are_kept_and_a_zero_is_no_answer(grades: dict[str, int], expected: Any) -> None:
    documents = (Document("a", "one"), Document("b", "two"))
    corpus = cut(Dataset("set", documents, (Query("q", "what", grades=grades),)), Lines())
    assert corpus.level == "document"
    assert corpus.gold == (expected,)
    assert corpus.gold_documents(0) == expected


class Lines:
    """Implements `Chunker`: a line is a chunk, and a document that begins with ! cannot be cut."""

    def chunk(self, document: Document) -> tuple[Chunk, ...]:
        if document.text.startswith("!"):
            raise DocumentError("cannot be cut")
        made, start = [], 0
        for ordinal, line in enumerate(document.text.split("\n")):
            made.append(Chunk(ordinal, start, start + len(line), line))
            start += len(line) + 1
        return tuple(made)


def two_documents(first: str, second: str, units: dict[str, Sequence[tuple[int, int]]] | None = None) -> Dataset:
    queries = (Query("q", "what", (GoldSpan("a", 0, 1),)), Query("p", "what", (GoldSpan("b", 0, 1),)))
    own = None if units is None else {doc_id: tuple(spans) for doc_id, spans in units.items()}
    return Dataset("set", (Document("a", first), Document("b", second)), queries, own)


def test_what_cannot_be_cut_is_left_out_and_its_queries_stay_unanswered(caplog: pytest.LogCaptureFixture) -> None:
    corpus = cut(two_documents("!one", "two\nthree"), Lines())
    assert corpus.document_names == ("b",)
    assert corpus.unreadable == {"a": "cannot be cut"}
    assert corpus.gold == ({}, {0: 1})
    assert len(corpus.queries) == 2
    assert math.isnan(corpus.position(0))
    assert "set: 1 documents left out (a: cannot be cut)" in caplog.text


def test_a_set_of_which_nothing_can_be_cut_is_refused() -> None:
    with pytest.raises(DatasetError, match="set: no document holds text that the model can read"):
        cut(two_documents("!one", "!two"), Lines())


def test_own_chunks_are_the_units_that_hold_text() -> None:
    units: dict[str, Sequence[tuple[int, int]]] = {"a": [(0, 2), (2, 5), (5, 7)], "b": [(0, 1)]}
    corpus = cut(two_documents("ab \n cd", " x", units), None)
    assert [(chunk.ordinal, chunk.start, chunk.end, chunk.text) for chunk in corpus.documents[0].chunks] == [
        (0, 0, 2, "ab"),
        (1, 5, 7, "cd"),
    ]
    assert corpus.unreadable == {"b": "has no chunks"}
    assert cut(two_documents("ab", "cd", {"a": [(0, 2)]}), None).unreadable == {"b": "has no chunks"}


def test_a_set_without_chunks_of_its_own_has_to_be_cut() -> None:
    with pytest.raises(DatasetError, match="set has no chunks of its own: leave out --chunks given"):
        cut(two_documents("ab", "cd"), None)
    assert cut(two_documents("ab\ncd", "ef"), Lines()).n_chunks == 3


def test_a_chunker_goes_before_the_sets_own_chunks() -> None:
    corpus = cut(two_documents("ab\ncd", "ef", {"a": [(0, 1)], "b": [(0, 1)]}), Lines())
    assert corpus.chunk_names == ("a_0", "a_1", "b_0")


def test_own_chunks_know_their_headings() -> None:
    document = Document("a", "head\nbody", sections=(Section(5, ("Part", "Head")),))
    dataset = Dataset("set", (document,), (Query("q", "what", (GoldSpan("a", 0, 1),)),), {"a": ((0, 4), (5, 9))})
    first, second = cut(dataset, None).documents[0].chunks
    assert first.metadata == {}
    assert second.metadata == {"headings": ["Part", "Head"]}


def test_documents_with_names_like_those_of_chunks_stay_apart() -> None:
    corpus = corpus_of({"a": ["x"] * 12, "a_1": ["y"] * 2}, [("what", [("a_1", 0)])])
    assert len(set(corpus.chunk_names)) == corpus.n_chunks == 14
    assert corpus.chunk_names[1] == "a_1"
    assert corpus.chunk_names[12] == "a_1_0"
    assert corpus.gold == ({12: 1},)
