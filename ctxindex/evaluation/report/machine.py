"""Results for programs: one JSON object, in which no number is infinite or not a number."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import asdict
from typing import Any

import numpy as np

from ctxindex.evaluation.report.grouping import method_of
from ctxindex.evaluation.results import Comparison, Run

SCHEMA = "ctxindex.eval/1"


def as_json(runs: Sequence[Run], comparisons: Sequence[Comparison]) -> dict[str, Any]:
    """Everything but the rankings. Values lie between 0 and 1; what is not a number is null."""
    return {
        "schema": SCHEMA,
        "runs": [_run(run) for run in runs],
        "comparisons": [_comparison(one) for one in comparisons],
    }


def _run(run: Run) -> dict[str, Any]:
    values = {
        "dataset": run.corpus.name,
        "method": method_of(run),
        "name": run.name,
        "model": run.model,
        "settings": plain_json({**run.configuration.common, **run.configuration.settings}),
        "chunker": None if run.corpus.chunker is None else plain_json(asdict(run.corpus.chunker)),
        "level": run.corpus.level,
        "documents": len(run.corpus.documents),
        "chunks": run.corpus.n_chunks,
        "queries": len(run.corpus.queries),
        "metrics": {metric: _number(one.mean) for metric, one in run.metrics.items()},
        "intervals": {metric: [_number(one.low), _number(one.high)] for metric, one in run.metrics.items()},
        "seconds": {name: _number(value, 4) for name, value in run.seconds.items()},
        "queries_per_second": _number(run.queries_per_second, 2),
        "cached_chunks": run.cached,
        "failed": dict(run.failed),
        "unreadable": dict(run.corpus.unreadable),
        "unanswerable": run.corpus.unanswerable,
        "positions": [
            {"from": first, "to": last, "queries": queries, "ndcg@10": _number(mean)}
            for first, last, queries, mean in run.positions()
        ],
        "notes": plain_json(run.notes),
    }
    if run.point is not None:
        values["sweep"] = {"name": run.point.name, "value": _number(run.point.value), "seed": run.point.seed}
    return values


def _comparison(one: Comparison) -> dict[str, Any]:
    return {
        "dataset": one.dataset,
        "name": one.name,
        "baseline": one.baseline,
        "metric": one.metric,
        "difference": _number(one.difference.mean),
        "interval": [_number(one.difference.low), _number(one.difference.high)],
        "p": _number(one.p),
        "p_holm": _number(one.p_holm),
    }


def plain_json(value: Any) -> Any:
    """The same in what JSON has; what JSON has no word for is written as a string."""
    if isinstance(value, Mapping):
        return {str(key): plain_json(held) for key, held in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain_json(value.tolist())
    if isinstance(value, list | tuple):
        return [plain_json(held) for held in value]
    if isinstance(value, AbstractSet):
        return sorted((plain_json(held) for held in value), key=str)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int) else str(value)


def _number(value: float, places: int = 6) -> float | None:
    number = float(value)
    return round(number, places) if math.isfinite(number) else None
