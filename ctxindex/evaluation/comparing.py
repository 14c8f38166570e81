"""Runs of one corpus against the first of them, query by query."""

from __future__ import annotations

from collections.abc import Sequence

from ctxindex.evaluation.results import Comparison, Run
from ctxindex.evaluation.significance import holm, interval, paired_p

COMPARED = ("ndcg@10", "recall@10", "mrr@10", "document_hit@1")


def compare(runs: Sequence[Run], seed: int = 0) -> list[Comparison]:
    """Every run but the first of each corpus against the first, in the metrics of `COMPARED`.

    Runs of one corpus stand in the order of their configurations; those on curves are left out.
    """
    found: list[Comparison] = []
    for name in dict.fromkeys(run.corpus.name for run in runs if run.point is None):
        baseline, *others = [run for run in runs if run.corpus.name == name and run.point is None]
        for metric in COMPARED:
            found += _paired(baseline, others, metric, seed)
    return found


def _paired(baseline: Run, others: Sequence[Run], metric: str, seed: int) -> list[Comparison]:
    expected = baseline.values[metric]
    p_values = [paired_p(run.values[metric], expected, seed) for run in others]
    return [
        Comparison(
            baseline.corpus.name,
            run.name,
            baseline.name,
            metric,
            interval(run.values[metric] - expected, seed),
            p,
            corrected,
        )
        for run, p, corrected in zip(others, p_values, holm(p_values), strict=True)
    ]
