"""One run: everything is ranked, in blocks of any size, and measured at the level of the set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pytest

from ctxindex.errors import ModelError
from ctxindex.evaluation import METRICS, Configuration, Corpus, Run
from ctxindex.evaluation.results import SweepPoint
from ctxindex.evaluation.run import evaluate
from ctxindex.evaluation.scoring import Indexing
from ctxindex.evaluation.significance import interval
from tests.evaluation.builders import PEOPLE, QUESTIONS, Question, corpus_of, people

if TYPE_CHECKING:
    from ctxindex.types import FloatArray

NONE = -np.inf
SCORES: list[list[float]] = [
    [3, 2, 1, 0, 0, 0, 0, 0, 0],  # napoleon_0 is gold, and first
    [9, 5, 5, 5, 5, 5, 5, 5, 5],  # napoleon_1 is gold: of the eight equal ones, napoleon_2 alone sorts behind it
    [4, 4, 4, 4, NONE, 5, 4, 4, 4],  # curie_1 is gold, and not found
    [0, 0, 0, 0, 0, 0, 7, 8, 9],  # edo_0 and edo_1 are gold: third and second
    [NONE] * 9,
]


class Given:
    """Implements `Scorer` with scores that are given, in blocks of some rows."""

    def __init__(self, scores: Sequence[Sequence[float]], rows: int = 2) -> None:
        self.scores = np.array(scores, dtype=np.float32)
        self.rows = rows
        self.asked: list[str] = []

    def index(self, corpus: Corpus) -> Indexing:
        return Indexing(seconds=1.5, loading=2.5, cached=4, failed={"curie": "no luck"})

    def score(self, queries: Sequence[str]) -> Iterator[FloatArray]:
        self.asked += queries
        for begin in range(0, len(self.scores), self.rows):
            yield self.scores[begin : begin + self.rows]


def run_on(corpus: Corpus, scores: Sequence[Sequence[float]], rows: int = 2) -> Run:
    return evaluate(corpus, Configuration("late"), Given(scores, rows))


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_chunks_are_ranked_and_measured(rows: int) -> None:
    run = run_on(people(), SCORES, rows)
    assert run.ranking.gold_rank.tolist() == [1, 3, 0, 2, 0]
    # Of equal scores the name that sorts last: napoleon_2, napoleon_1, fee_0, edo_1, edo_0, curie_2, ...
    assert run.ranking.chunks[1].tolist() == [0, 2, 1, 8, 7, 6, 5, 4, 3, -1]
    assert run.ranking.chunks[2].tolist() == [5, 2, 1, 0, 8, 7, 6, 3, -1, -1]
    assert run.ranking.scores[2].tolist() == [5, 4, 4, 4, 4, 4, 4, 4, NONE, NONE]
    assert run.ranking.chunks[4].tolist() == [-1] * 10
    assert run.values["recall@1"].tolist() == [1, 0, 0, 0, 0]
    assert run.values["recall@5"].tolist() == [1, 1, 0, 1, 0]
    np.testing.assert_allclose(run.values["mrr@10"], [1, 1 / 3, 0, 1 / 2, 0])
    discounts = 1 / np.log2([2, 3, 4])
    both = (discounts[1] + discounts[2]) / (discounts[0] + discounts[1])
    np.testing.assert_allclose(run.values["ndcg@10"], [1, discounts[2], 0, both, 0])


def test_a_document_hit_asks_for_documents_by_their_best_chunks() -> None:
    run = run_on(people(), SCORES)
    assert run.values["document_hit@1"].tolist() == [1, 1, 1, 0, 0]
    assert run.values["document_hit@5"].tolist() == [1, 1, 1, 1, 0]


def test_documents_are_ranked_where_the_set_ranks_documents() -> None:
    run = run_on(people(level="document"), SCORES)
    # Each document counts as its best chunk: napoleon, curie, edo and fee.
    assert run.ranking.chunks[0, :5].tolist() == [0, 3, 2, 1, -1]
    assert run.ranking.scores[0, :4].tolist() == [3, 0, 0, 0]
    assert run.ranking.chunks[3, :5].tolist() == [3, 2, 0, 1, -1]
    assert run.ranking.gold_rank.tolist() == [1, 1, 1, 2, 0]
    assert run.values["recall@1"].tolist() == run.values["document_hit@1"].tolist() == [1, 1, 1, 0, 0]
    np.testing.assert_allclose(run.values["ndcg@10"], [1, 1, 1, 1 / np.log2(3), 0])
    assert run.positions() == []


def test_what_a_run_tells() -> None:
    point = SweepPoint("chunk-size", 64)
    scorer, corpus = Given(SCORES), people()
    run = evaluate(corpus, Configuration("late"), scorer, model="m", seed=3, point=point, notes={"method": "late"})
    assert (run.corpus, run.name, run.model, run.point, run.notes) == (corpus, "late", "m", point, {"method": "late"})
    assert (run.cached, run.failed) == (4, {"curie": "no luck"})
    assert (run.seconds["load"], run.seconds["index"]) == (2.5, 1.5)
    assert scorer.asked == [text for text, _ in QUESTIONS]
    assert list(run.metrics) == list(METRICS)
    assert run.values.keys() == run.metrics.keys()
    for name in METRICS:
        assert run.metrics[name] == interval(run.values[name], 3)
    assert 0 < run.seconds["search"] < 1
    assert run.queries_per_second == pytest.approx(5 / run.seconds["search"])


def test_a_score_that_is_no_number_is_refused() -> None:
    scores = [list(row) for row in SCORES]
    scores[3][2] = np.nan
    with pytest.raises(ModelError, match="a score is not a number"):
        run_on(people(), scores)


def test_quality_by_position_is_that_of_the_queries_whose_answer_stands_there() -> None:
    texts = {"long": [f"chunk {number}" for number in range(21)], **PEOPLE}
    asked: list[Question] = [(f"about {number}", [("long", number)]) for number in range(21)]
    corpus = corpus_of(texts, [*asked, ("alone", [("fee", 0)])])
    scores = np.zeros((22, corpus.n_chunks))
    for number in range(0, 21, 2):
        scores[number, number] = 1  # every other one is found at once
    run = run_on(corpus, scores.tolist())
    found = run.positions("recall@1")
    assert [(begin, end) for begin, end, _, _ in found] == [(n / 10, (n + 1) / 10) for n in range(10)]
    assert [count for _, _, count, _ in found] == [2] * 9 + [3], "the last chunk belongs to the last part"
    assert [mean for _, _, _, mean in found] == [0.5] * 9 + [pytest.approx(2 / 3)]
