"""Results as tables of text, for a terminal: rows of cells, numbers padded so that they stand below one another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeAlias

from ctxindex.evaluation.corpus import Corpus
from ctxindex.evaluation.report import words
from ctxindex.evaluation.report.grouping import (
    HEADLINE,
    Curve,
    by_dataset,
    by_sweep,
    curves,
    labels,
    plain,
    sweep_title,
)
from ctxindex.evaluation.results import Comparison, Run

Rows: TypeAlias = list[Sequence[str]]

_SHORT = ("recall@1", "recall@5", "recall@10", "mrr@10", "document_hit@1")
_HEAD = ("CONFIGURATION", words.title(HEADLINE), *map(words.title, _SHORT), "Q/S", "INDEX s")


def tables(runs: Sequence[Run], comparisons: Sequence[Comparison]) -> Iterator[tuple[str, Rows]]:
    """All that a terminal is told, table by table, each with a line that says what it is.

    For each data set: its configurations, each sweep on it, and by how much its configurations differ in nDCG@10;
    differences in other metrics are for the report and for programs.
    """
    for name, here in by_dataset(runs).items():
        if rows := summary_rows(plain(here)):
            yield f"{name}: {described(plain(here)[0].corpus)} (points of 100, [95 % interval])", rows
        for sweep, swept in by_sweep(here).items():
            yield f"{name}: {_sweep_heading(sweep, swept)}", sweep_rows(swept)
        if rows := comparison_rows([one for one in comparisons if (one.dataset, one.metric) == (name, HEADLINE)]):
            yield f"{name}: paired differences in points [95 % interval]", rows


def summary_rows(runs: Sequence[Run]) -> Rows:
    """The configurations of one data set, a row each, in points of 100; no rows where there are no runs."""
    if not runs:
        return []
    rows: Rows = [_HEAD]
    for label, run in zip(labels(runs), runs, strict=True):
        rows.append(
            (
                label,
                words.estimate(run.metrics[HEADLINE]),
                *(words.points(run.metrics[metric].mean) for metric in _SHORT),
                words.rate(run.queries_per_second),
                words.rate(run.seconds["index"]),
            )
        )
    return aligned(rows)


def comparison_rows(comparisons: Sequence[Comparison]) -> Rows:
    """Paired differences, a row each, in points of 100; no rows where nothing is compared."""
    if not comparisons:
        return []
    rows: Rows = [("CONFIGURATION", "AGAINST", "METRIC", "DIFFERENCE", "p", "p (Holm)")]
    rows += [
        (
            one.name,
            one.baseline,
            words.title(one.metric),
            words.estimate(one.difference, signed=True),
            words.probability(one.p),
            words.probability(one.p_holm),
        )
        for one in comparisons
    ]
    return aligned(rows, left=3)


def sweep_rows(runs: Sequence[Run]) -> Rows:
    """One sweep on one data set: configurations by values, nDCG@10 in points; no rows where nothing was swept.

    Brackets hold the least and the greatest over seeds, or with one seed the 95 % interval.
    """
    drawn = curves(runs)
    if not drawn:
        return []
    values = sorted({value for curve in drawn for value in curve.values})
    rows: Rows = [("CONFIGURATION", *map(words.amount, values))]
    rows += [(curve.label, *(_cell(curve, value) for value in values)) for curve in drawn]
    return aligned(rows)


def aligned(rows: Rows, left: int = 1) -> Rows:
    """The same, with all columns after the first `left` ones flush right."""
    widths = [0 if number < left else max(map(len, column)) for number, column in enumerate(zip(*rows, strict=True))]
    return [tuple(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]


def described(corpus: Corpus) -> str:
    """How much there is to find, and among how much."""
    ranked = f"{len(corpus.documents):,} documents"
    if corpus.level == "chunk":
        ranked = f"{corpus.n_chunks:,} chunks of {ranked}"
    return f"{len(corpus.queries):,} queries, {ranked}"


def _sweep_heading(sweep: str, runs: Sequence[Run]) -> str:
    seeds = curves(runs)[0].seeds
    said = f"points of 100, mean of {seeds} seeds [least, greatest]" if seeds > 1 else "points of 100, [95 % interval]"
    return f"{words.title(HEADLINE)} by {sweep_title(sweep, runs)}, {said}"


def _cell(curve: Curve, value: float) -> str:
    if value not in curve.values:
        return words.NOTHING
    at = curve.values.index(value)
    return f"{words.points(curve.means[at])} {words.interval(curve.low[at], curve.high[at])}".rstrip()
