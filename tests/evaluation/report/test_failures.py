"""Which queries are shown as failing, and what of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ctxindex.chunking.spans import Span
from ctxindex.evaluation import Corpus, Dataset, GoldSpan, Query, cut
from ctxindex.evaluation.report.failures import Failure, failing, failure, shortened
from ctxindex.evaluation.results import METRICS, Ranking, Run
from ctxindex.types import Document
from tests.evaluation.report.samples import corpus, run, values_of


def ranked(of: Corpus, rows: list[list[int]], gold_rank: list[int]) -> Run:
    """A run whose rankings are these, with scores from 1 down."""
    chunks = np.array(rows, dtype=np.int64)
    scores = np.where(chunks >= 0, 1 - 0.1 * np.arange(chunks.shape[1]), -np.inf).astype(np.float32)
    return run(of, ranking=Ranking(chunks, scores, np.array(gold_rank, dtype=np.int64)))


def one_query(text: str, units: list[Span], *spans: Span) -> Corpus:
    """A document `d` cut into `units`, another `e` of one chunk, and a question answered by `spans` of `d`."""
    gold = tuple(GoldSpan("d", start, end) for start, end in spans)
    documents = (Document("d", text, "Title"), Document("e", "Elsewhere."))
    return cut(Dataset("s", documents, (Query("q", "What?", gold),), {"d": tuple(units), "e": ((0, 10),)}), None)


def told(failed: Failure, kind: str) -> str:
    return "".join(text for passage in failed.passages for known, text in passage.pieces if known == kind)


def test_the_worst_come_first_and_the_perfect_not_at_all() -> None:
    of = corpus()
    made = run(of)
    rank = np.array([1, 0, 30, 2, 20, 1, 5, 0, 11, 1])
    made = run(of, ranking=replace(made.ranking, gold_rank=rank))
    assert failing(made) == [1, 7, 2, 4, 8, 6, 3]
    assert failing(replace(made, values={metric: np.full(10, np.nan) for metric in METRICS}))[:2] == [1, 7]


def test_a_run_without_a_failing_query_has_none() -> None:
    of = corpus()
    made = run(of, ranking=replace(run(of).ranking, gold_rank=np.ones(10, dtype=np.int64)))
    assert failing(made) == []


def test_the_gold_chunk_is_marked_in_its_document() -> None:
    text = "a" * 400 + " B answer B " + "c" * 400
    of = one_query(text, [(0, 400), (401, 411), (412, 812)], (403, 409))
    seen = failure(ranked(of, [[0, 3, 1]], [3]), 0)
    (passage,) = seen.passages
    assert (passage.place.doc_id, passage.place.title) == ("d", "Title")
    assert (passage.place.start, passage.place.end, passage.rank) == (401, 411, "rank 3")
    assert passage.pieces == (
        ("around", "a" * 299 + " "),
        ("chunk", "B "),
        ("answer", "answer"),
        ("chunk", " B"),
        ("around", " " + "c" * 299),
    )
    assert passage.cut_before
    assert passage.cut_after
    assert (seen.query, seen.value, seen.rank, seen.more, seen.note) == ("What?", "50.0", "rank 3 of 4 chunks", 0, "")
    assert [(one.rank, one.place.doc_id, one.score, one.same) for one in seen.above] == [
        (1, "d", "1", True),
        (2, "e", "0.9", False),
    ]
    assert seen.above[0].text == "a" * 300 + " …"
    assert seen.above[1].text == "Elsewhere."


def test_a_gold_chunk_beyond_the_ranking_still_has_its_rank() -> None:
    of = one_query("One. Two. Three. Four. ", [(0, 4), (5, 9), (10, 16), (17, 22)], (0, 4))
    seen = failure(ranked(of, [[1, 2, 3]], [5]), 0)
    assert seen.rank == "rank 5 of 5 chunks"
    assert seen.passages[0].rank == "rank 5"
    assert not seen.passages[0].cut_before
    assert [one.rank for one in seen.above] == [1, 2, 3]


def test_nothing_found_is_said() -> None:
    of = one_query("One. Two.", [(0, 4), (5, 9)], (0, 4))
    seen = failure(ranked(of, [[-1, -1, -1]], [0]), 0)
    assert seen.rank == "not among 3 chunks"
    assert seen.above == ()
    assert seen.passages[0].rank == "not among the first"


def test_of_several_gold_chunks_the_missed_ones_count() -> None:
    units = [(0, 4), (5, 9), (10, 16), (17, 22), (23, 27)]
    of = one_query("One. Two. Three. Four. Five", units, (0, 22))
    seen = failure(ranked(of, [[3, 4, 0, 5, 1]], [1]), 0)
    assert [passage.place.start for passage in seen.passages] == [17, 0, 5]
    assert [passage.rank for passage in seen.passages] == ["rank 1", "rank 3", "rank 5"]
    assert seen.more == 1
    assert [one.rank for one in seen.above] == [2, 4]


def test_an_answer_that_no_chunk_holds_is_shown_where_it_stands() -> None:
    of = one_query("One. Two. Three.", [(0, 4)], (5, 9))
    seen = failure(ranked(of, [[1, 0]], [0]), 0)
    assert (seen.rank, seen.note) == ("no answer to find", "no chunk holds the answer")
    assert seen.passages[0].rank == "in no chunk"
    assert told(seen, "answer") == "Two."
    assert [one.rank for one in seen.above] == [1, 2]


def test_an_unreadable_document_is_the_reason() -> None:
    of = one_query("One.", [], (0, 4))
    seen = failure(ranked(of, [[0]], [0]), 0)
    assert seen.note == "d could not be read: has no chunks"
    assert seen.passages == ()


def test_long_chunks_and_names_are_shortened() -> None:
    of = one_query("x" * 50_000, [(0, 50_000)], (0, 50_000))
    document = replace(of.documents[0].document, doc_id="d", title="t" * 9_000)
    of = replace(of, documents=(replace(of.documents[0], document=document), of.documents[1]))
    of = replace(of, queries=(replace(of.queries[0], text="w" * 9_000),))
    seen = failure(ranked(of, [[1, 0]], [2]), 0)
    assert "[… 48,800 characters …]" in told(seen, "answer")
    assert len(seen.query) < 700
    assert len(seen.passages[0].place.title) < 300
    assert shortened("short", 5) == "short"


def test_documents_that_are_ranked_are_shown_from_their_beginning() -> None:
    of = corpus(level="document")
    made = run(of, ranking=Ranking(np.tile([2, 3, 1], (10, 1)), np.zeros((10, 3), np.float32), np.full(10, 4)))
    seen = failure(made, 0)
    (passage,) = seen.passages
    assert passage.place.doc_id == "wiki/napoleon.txt"
    assert (passage.place.start, passage.place.end) == (0, len(of.documents[0].document.text))
    assert passage.pieces[0][1].startswith("Napoleon was born")
    assert seen.rank == "rank 4 of 4 documents"
    assert [one.place.doc_id for one in seen.above] == ["towns.txt", "short.txt", "wiki/東京.md"]
    assert not any(one.same for one in seen.above)


def test_a_document_that_was_judged_not_to_answer_is_not_gold() -> None:
    of = corpus(level="document")
    of = replace(of, gold=({0: 1, 1: 0}, *of.gold[1:]))
    seen = failure(run(of, ranking=Ranking(np.tile([1, 0], (10, 1)), np.zeros((10, 2), np.float32), np.full(10, 2))), 0)
    assert [passage.place.doc_id for passage in seen.passages] == ["wiki/napoleon.txt"]
    assert [one.place.doc_id for one in seen.above] == ["wiki/東京.md"]


def test_metrics_of_the_samples_are_those_of_their_ranks() -> None:
    values = values_of(Ranking(np.zeros((2, 1), np.int64), np.zeros((2, 1), np.float32), np.array([3, 0])))
    assert values["ndcg@10"].tolist() == [0.5, 0.0]
