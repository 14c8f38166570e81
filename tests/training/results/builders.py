"""Runs on held-out documents, with made-up values."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ctxindex.evaluation import METRICS, Configuration, Corpus, Run
from ctxindex.evaluation.results import Ranking
from ctxindex.evaluation.significance import interval


def run_of(corpus: Corpus, values: Sequence[float]) -> Run:
    each = {metric: np.array(values, dtype=np.float64) for metric in METRICS}
    nothing = np.zeros((len(values), 1), dtype=np.int64)
    ranking = Ranking(nothing, nothing.astype(np.float32), nothing[:, 0])
    metrics = {metric: interval(own) for metric, own in each.items()}
    return Run(corpus, Configuration("late"), "minilm", each, metrics, ranking, {"index": 1.0, "search": 1.0})


def runs_of(*corpora: Corpus) -> dict[str, list[Run]]:
    scores = {
        "base, each chunk alone": [0.2, 0.4, 0.0, 0.6, 0.3],
        "base, in context": [0.1, 0.2, 0.3, 0.0, 0.1],
        "tuned": [0.4, 0.5, 0.2, 0.8, 0.4],
    }
    return {name: [run_of(corpus, values) for corpus in corpora] for name, values in scores.items()}
