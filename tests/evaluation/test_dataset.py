"""A dataset makes sense, or the first thing that does not is named."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ctxindex.evaluation.dataset import Dataset, DatasetError, GoldSpan, Query, check, without_titles
from ctxindex.types import Document

DOCUMENTS = (Document("a", "0123456789"), Document("b", "ab"))
SPANS = Dataset("set", DOCUMENTS, (Query("q", "what", (GoldSpan("a", 2, 4), GoldSpan("b", 0, 2))),))
WHOLE = Dataset("set", DOCUMENTS, (Query("q", "what", grades={"a": 2, "b": 0}),))


def test_what_makes_sense_is_given_back() -> None:
    assert check(SPANS) is SPANS
    assert check(WHOLE) is WHOLE
    edges = replace(SPANS, queries=(Query("q", "what", (GoldSpan("a", 0, 10), GoldSpan("b", 1, 2))),))
    assert check(edges) is edges


def test_spans_rank_chunks_and_grades_alone_rank_documents() -> None:
    assert SPANS.level == "chunk"
    assert WHOLE.level == "document"
    mixed = replace(SPANS, queries=(*WHOLE.queries, *SPANS.queries))
    assert mixed.level == "chunk"


def test_documents_that_hold_an_answer_are_those_of_spans_and_of_grades_above_zero() -> None:
    assert SPANS.queries[0].doc_ids == {"a", "b"}
    assert WHOLE.queries[0].doc_ids == {"a"}
    assert Query("q", "what", (GoldSpan("a", 0, 1), GoldSpan("a", 4, 5)), {"b": 1}).doc_ids == {"a", "b"}


def span(doc_id: str, start: int, end: int) -> Query:
    return Query("q", "what", (GoldSpan(doc_id, start, end),))


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (replace(SPANS, documents=()), "set: there are no documents"),
        (replace(SPANS, queries=()), "set: there are no queries"),
        (replace(SPANS, documents=(*DOCUMENTS, DOCUMENTS[0])), "set: the doc_id 'a' occurs twice"),
        (replace(SPANS, queries=SPANS.queries * 2), "set: the query_id 'q' occurs twice"),
        (replace(SPANS, queries=(Query("q", " \n", SPANS.queries[0].spans),)), "set: query 'q' asks nothing"),
        (
            replace(SPANS, queries=(*SPANS.queries, Query("other", "what", grades={"a": 1}))),
            "query 'other' has no span, others have: give all of them start and end, or none",
        ),
        (replace(WHOLE, queries=(Query("q", "what", grades={"a": 0}),)), "query 'q' has no relevant document"),
        (replace(WHOLE, queries=(Query("q", "what"),)), "query 'q' has no relevant document"),
        (replace(SPANS, queries=(span("c", 0, 1),)), "is about the document 'c', which the set does not have"),
        (
            replace(SPANS, documents=(Document("docs/napoleon.md", "text"),), queries=(span("napoleon.md", 0, 1),)),
            "which the set does not have: did you mean 'docs/napoleon.md'?",
        ),
        (replace(WHOLE, queries=(Query("q", "w", grades={"a": 1, "c": 0}),)), "is about the document 'c'"),
        (replace(SPANS, queries=(span("a", 4, 4),)), r"has the span \[4, 4\), which is empty"),
        (replace(SPANS, queries=(span("a", 5, 4),)), r"has the span \[5, 4\), which ends before it begins"),
        (replace(SPANS, queries=(span("a", -1, 4),)), r"has the span \[-1, 4\)"),
        (replace(SPANS, queries=(span("b", 0, 3),)), r"has the span \[0, 3\), outside of the 2 characters of 'b'"),
    ],
)
def test_the_first_thing_that_does_not_is_named(dataset: Dataset, message: str) -> None:
    with pytest.raises(DatasetError, match=message) as caught:
        check(dataset)
    assert caught.value.exit_code == 2


def test_titles_can_be_withheld_and_the_name_says_so() -> None:
    documents = (Document("a", "text of a", "A title"), Document("b", "text of b"))
    dataset = Dataset("set", documents, (Query("1", "what?", (GoldSpan("a", 0, 4),)),))
    bare = without_titles(dataset)
    assert bare.name == "set without titles"
    assert [document.title for document in bare.documents] == [None, None]
    assert [document.text for document in bare.documents] == [document.text for document in documents]
    assert bare.queries == dataset.queries
