"""nDCG, recall, reciprocal rank and hits of every query, by pytrec_eval (the code of trec_eval).

Only the first ten places count in any of them, so rankings are handed over cut to those. A query that nothing in the
corpus answers counts as 0 in all: it was asked, and not answered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ctxindex.errors import MissingDependencyError

if TYPE_CHECKING:
    import numpy.typing as npt

    from ctxindex.types import FloatArray

    Numbers = npt.NDArray[np.int64]
    Values = npt.NDArray[np.float64]

DEPTH = 10
_OF_ITEMS = {
    "ndcg@10": "ndcg_cut_10",
    "recall@1": "recall_1",
    "recall@5": "recall_5",
    "recall@10": "recall_10",
    "mrr@10": "recip_rank",
}
_OF_DOCUMENTS = {"document_hit@1": "success_1", "document_hit@5": "success_5", "document_hit@10": "success_10"}


def item_metrics(
    gold: Sequence[Mapping[int, int]], ranked: Numbers, scores: FloatArray, names: Sequence[str]
) -> dict[str, Values]:
    """nDCG@10, recall and MRR@10 of what is ranked, chunks or documents.

    Args:
        gold: for each query, grades by number.
        ranked: (queries, 10) int64, numbers, best first; -1 for nothing.
        scores: (queries, 10) float32, theirs.
        names: of everything that may be ranked; they decide ties.

    Returns:
        (queries,) float64 for each metric.
    """
    return _evaluate(_OF_ITEMS, gold, ranked, scores, names)


def document_hits(
    gold: Sequence[Mapping[int, int]], ranked: Numbers, scores: FloatArray, names: Sequence[str]
) -> dict[str, Values]:
    """Whether one of the first 1, 5 and 10 documents holds an answer; arguments as of `item_metrics`, of documents."""
    return _evaluate(_OF_DOCUMENTS, gold, ranked, scores, names)


def _evaluate(
    measures: Mapping[str, str],
    gold: Sequence[Mapping[int, int]],
    ranked: Numbers,
    scores: FloatArray,
    names: Sequence[str],
) -> dict[str, Values]:
    pytrec_eval = require_metrics()
    judged = {
        str(query): {names[number]: int(grade) for number, grade in grades.items()} for query, grades in enumerate(gold)
    }
    found = {
        str(query): {
            names[number]: float(score)
            for number, score in zip(ranked[query, :DEPTH], scores[query, :DEPTH], strict=True)
            if number >= 0
        }
        for query in range(len(gold))
    }
    evaluator = pytrec_eval.RelevanceEvaluator(judged, set(measures.values()))
    results = evaluator.evaluate(found)
    nothing = dict.fromkeys(measures.values(), 0.0)  # a query without any hit or answer is missing
    return {
        name: np.array([results.get(str(query), nothing)[measure] for query in range(len(gold))])
        for name, measure in measures.items()
    }


def require_metrics() -> Any:
    """The library; raises MissingDependencyError where it is not installed."""
    try:
        import pytrec_eval
    except ImportError:
        raise MissingDependencyError("pytrec-eval-terrier", extra="eval", purpose="an evaluation") from None
    return pytrec_eval
