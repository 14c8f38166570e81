"""From a corpus to what is trained on: a question to each document that answers it."""

from __future__ import annotations

from ctxindex.evaluation.corpus import cut
from ctxindex.evaluation.dataset import Dataset, GoldSpan, Query
from ctxindex.training.sampling import Question
from ctxindex.training.sources import training_documents
from ctxindex.types import Document

DOCUMENTS = tuple(Document(name, f"{name} one. {name} two. {name} three.") for name in ("a", "b", "c"))
UNITS = {document.doc_id: ((0, 6), (7, 13), (14, 22)) for document in DOCUMENTS}


def test_a_query_with_answers_in_two_documents_is_a_question_to_each() -> None:
    queries = (
        Query("1", "first", (GoldSpan("c", 7, 9), GoldSpan("a", 0, 2), GoldSpan("c", 15, 16))),
        Query("2", "second", (GoldSpan("c", 0, 1),)),
    )
    corpus = cut(Dataset("set", DOCUMENTS, queries, UNITS), None)
    found = training_documents(corpus)
    assert [one.source.document.doc_id for one in found] == ["a", "c"]
    assert found[0].questions == (Question("first", (0,)),)
    assert found[1].questions == (Question("first", (1, 2)), Question("second", (0,)))


def test_where_documents_are_ranked_all_chunks_of_one_are_gold() -> None:
    queries = (Query("1", "first", grades={"b": 1, "a": 0}),)
    corpus = cut(Dataset("set", DOCUMENTS, queries, UNITS), None)
    (found,) = training_documents(corpus)
    assert found.source.document.doc_id == "b"
    assert found.questions == (Question("first", (0, 1, 2)),)
