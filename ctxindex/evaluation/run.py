"""One configuration on one corpus: index it, rank all of its chunks for every query, measure."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from ctxindex.errors import ModelError
from ctxindex.evaluation.configuration import Configuration
from ctxindex.evaluation.corpus import Corpus
from ctxindex.evaluation.metrics import DEPTH, document_hits, item_metrics
from ctxindex.evaluation.ranking import best, by_document, rank_of, sortable
from ctxindex.evaluation.results import METRICS, Ranking, Run, SweepPoint
from ctxindex.evaluation.scoring import Scorer
from ctxindex.evaluation.significance import interval

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from ctxindex.types import FloatArray

    Numbers = npt.NDArray[np.int64]
    Values = npt.NDArray[np.float64]


def evaluate(
    corpus: Corpus,
    configuration: Configuration,
    scorer: Scorer,
    *,
    model: str = "",
    seed: int = 0,
    point: SweepPoint | None = None,
    notes: Mapping[str, object] | None = None,
) -> Run:
    """Index the corpus, answer all of its queries, and measure.

    Args:
        corpus: chunks, queries, and what is gold.
        configuration: what the scorer was made for.
        scorer: gives every chunk a score.
        model: the name of the model that read the chunks; empty for none.
        seed: of the intervals.
        point: where on a curve the run stands.
        notes: what else is to be told of the run.

    Raises:
        MissingDependencyError: the extra `eval` is not installed.
        CtxIndexError: no document could be encoded.
        ModelError: a vector is not made of numbers.
    """
    cost = scorer.index(corpus)
    places = _Places(corpus)
    began = time.perf_counter()
    for scores in scorer.score([query.text for query in corpus.queries]):
        places.search += time.perf_counter() - began
        places.take(scores)
        began = time.perf_counter()
    values = places.values()
    return Run(
        corpus=corpus,
        configuration=configuration,
        model=model,
        values=values,
        metrics={name: interval(values[name], seed) for name in METRICS},
        ranking=places.ranking(),
        seconds={"load": cost.loading, "read": cost.reading, "index": cost.seconds, "search": places.search},
        cached=cost.cached,
        failed=cost.failed,
        point=point,
        notes=dict(notes or {}),
    )


class _Places:
    """Collects the best places of every query out of blocks of scores.

    `search` adds up the seconds of scoring and of finding the best; what only measuring needs is not among them.
    """

    def __init__(self, corpus: Corpus) -> None:
        self._corpus = corpus
        self._chunks: list[tuple[Numbers, FloatArray]] = []
        self._documents: list[tuple[Numbers, FloatArray]] = []
        self._gold_ranks: list[int] = []
        self.search = 0.0

    def take(self, scores: FloatArray) -> None:
        """The scores of the next queries, (queries, chunks) float32."""
        began = time.perf_counter()
        if np.isnan(scores).any():
            raise ModelError(
                "a score is not a number: the model gave no usable vector for a query or a chunk. In half precision "
                "numbers can get too large: try --dtype float32"
            )
        ranks_documents = self._corpus.level == "document"
        if not ranks_documents:
            self._chunks.append(best(scores, self._corpus.chunk_order, DEPTH))
            self.search += time.perf_counter() - began
        of_documents = by_document(scores, self._corpus.starts)
        self._documents.append(best(of_documents, self._corpus.document_order, DEPTH))
        if ranks_documents:
            self.search += time.perf_counter() - began
        items, order = (
            (of_documents, self._corpus.document_order) if ranks_documents else (scores, self._corpus.chunk_order)
        )
        for row in items:
            gold = self._corpus.gold[len(self._gold_ranks)]
            self._gold_ranks.append(rank_of(row, order, list(gold)))

    def values(self) -> dict[str, Values]:
        """Every metric of every query."""
        corpus = self._corpus
        documents, document_scores = _joined(self._documents)
        document_names = sortable(corpus.document_order)
        gold_documents = [corpus.gold_documents(query) for query in range(len(corpus.queries))]
        hits = document_hits(gold_documents, documents, document_scores, document_names)
        if corpus.level == "document":
            return {**item_metrics(gold_documents, documents, document_scores, document_names), **hits}
        chunks, chunk_scores = _joined(self._chunks)
        return {**item_metrics(corpus.gold, chunks, chunk_scores, sortable(corpus.chunk_order)), **hits}

    def ranking(self) -> Ranking:
        """The best places, and that of the first answer."""
        numbers, scores = _joined(self._documents if self._corpus.level == "document" else self._chunks)
        return Ranking(numbers, scores, np.array(self._gold_ranks, dtype=np.int64))


def _joined(blocks: list[tuple[Numbers, FloatArray]]) -> tuple[Numbers, FloatArray]:
    return np.concatenate([numbers for numbers, _ in blocks]), np.concatenate([scores for _, scores in blocks])
