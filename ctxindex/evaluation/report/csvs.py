"""Results as CSV files (RFC 4180, UTF-8), a row a number or a query: for spreadsheets and notebooks.

Numbers are written in full, what is not a number as nothing.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ctxindex.evaluation.report.grouping import method_of
from ctxindex.evaluation.results import METRICS, Comparison, Run

FILES = ("metrics.csv", "queries.csv", "positions.csv", "comparisons.csv")

_SWEEP = ("sweep", "sweep_value", "seed")
_METRICS = (
    *("dataset", "name", "method", "model", *_SWEEP),
    *("metric", "mean", "low", "high", "chunks", "queries"),
)
_QUERIES = ("dataset", "name", "model", *_SWEEP, "query_id", "query", *METRICS, "gold_rank")
_POSITIONS = ("dataset", "name", "model", *_SWEEP, "from", "to", "queries", "ndcg@10")
_COMPARISONS = ("dataset", "name", "baseline", "metric", "difference", "low", "high", "p", "p_holm")


def write_csvs(folder: Path, runs: Sequence[Run], comparisons: Sequence[Comparison]) -> list[Path]:
    """Write all of `FILES`."""
    parts = (
        (_METRICS, _metrics(runs)),
        (_QUERIES, _queries(runs)),
        (_POSITIONS, _positions(runs)),
        (_COMPARISONS, _comparisons(comparisons)),
    )
    return [_write(folder / name, head, rows) for name, (head, rows) in zip(FILES, parts, strict=True)]


def _metrics(runs: Sequence[Run]) -> Iterator[tuple[Any, ...]]:
    for run in runs:
        head = (run.corpus.name, run.name, method_of(run), run.model, *_point(run))
        counts = (run.corpus.n_chunks, len(run.corpus.queries))
        for metric, one in run.metrics.items():
            yield (*head, metric, one.mean, one.low, one.high, *counts)


def _queries(runs: Sequence[Run]) -> Iterator[tuple[Any, ...]]:
    for run in runs:
        head = (run.corpus.name, run.name, run.model, *_point(run))
        for number, query in enumerate(run.corpus.queries):
            values = (run.values[metric][number] for metric in METRICS)
            yield (*head, query.query_id, query.text, *values, int(run.ranking.gold_rank[number]))


def _positions(runs: Sequence[Run]) -> Iterator[tuple[Any, ...]]:
    for run in runs:
        for part in run.positions():
            yield (run.corpus.name, run.name, run.model, *_point(run), *part)


def _comparisons(comparisons: Sequence[Comparison]) -> Iterator[tuple[Any, ...]]:
    for one in comparisons:
        difference = one.difference
        estimate = (difference.mean, difference.low, difference.high)
        yield (one.dataset, one.name, one.baseline, one.metric, *estimate, one.p, one.p_holm)


def _point(run: Run) -> tuple[Any, ...]:
    return ("", "", "") if run.point is None else (run.point.name, run.point.value, run.point.seed)


def _write(path: Path, head: Sequence[str], rows: Iterable[Sequence[Any]]) -> Path:
    # A query read from JSON may hold half a surrogate pair, which UTF-8 has no bytes for.
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(head)
        writer.writerows([_cell(value) for value in row] for row in rows)
    return path


def _cell(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    return float(value) if math.isfinite(value) else ""
