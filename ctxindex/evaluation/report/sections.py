"""What a report says of one data set: tables, plots, sweeps, and what was left out. Needs matplotlib."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

from markupsafe import Markup

from ctxindex.evaluation.report import plots, words
from ctxindex.evaluation.report.grouping import (
    HEADLINE,
    by_sweep,
    curves,
    labels,
    method_of,
    plain,
    point_of,
    sweep_title,
)
from ctxindex.evaluation.report.text import Rows, comparison_rows, described, sweep_rows
from ctxindex.evaluation.results import METRICS, Comparison, Run

_LOGARITHMIC = ("chunk-size", "corpus-size")
_REASONS = 50
_BAND = {
    True: "Bands reach from the least to the greatest over the seeds that drew the sub-corpora; lines are means.",
    False: "Bands are 95 % intervals of a bootstrap over queries.",
}


@dataclass(frozen=True, slots=True)
class Cell:
    """A metric of a run."""

    mean: str
    interval: str
    best: bool


@dataclass(frozen=True, slots=True)
class Row:
    """A run in the table of its data set."""

    label: str
    detail: str
    cells: tuple[Cell, ...]
    rate: str
    index: str
    cached: str
    failed: str


@dataclass(frozen=True, slots=True)
class Plot:
    """A drawing, what it shows, and how to read it."""

    title: str
    svg: Markup
    said: str = ""


@dataclass(frozen=True, slots=True)
class Sweep:
    """A sweep, drawn where it has two values at least, and as a table."""

    title: str
    svg: Markup | None
    said: str
    rows: Rows


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Documents that gave no chunks or no vectors, and why: some of them, and how many more there are."""

    title: str
    shown: tuple[tuple[str, str], ...]
    more: int


@dataclass(frozen=True, slots=True)
class Failing:
    """The worst queries of a run, as markup; `total` counts all that were not answered perfectly."""

    label: str
    said: str
    shown: tuple[Markup, ...]
    total: int


@dataclass(frozen=True)
class Section:
    """A data set in the report."""

    name: str
    anchor: str
    level: str
    described: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    plots: tuple[Plot, ...]
    sweeps: tuple[Sweep, ...]
    comparisons: Rows
    left_out: tuple[LeftOut, ...]
    failing: list[Failing] = field(default_factory=list)

    def add_failing(self, label: str, shown: Sequence[Markup], total: int) -> None:
        """The worst queries of one more run."""
        if total == 0:
            said = "all queries are answered perfectly"
        else:
            which = f"the {len(shown):,} worst of " if len(shown) < total else ""
            said = f"{which}{total:,} queries with an nDCG@10 below 100"
        self.failing.append(Failing(label, said, tuple(shown), total))


def section(name: str, number: int, runs: Sequence[Run], comparisons: Sequence[Comparison]) -> Section:
    """The data set's part of the report; `number` tells its anchors and ids from those of the others."""
    anchor = f"set-{number}"
    whole = plain(runs)
    return Section(
        name,
        anchor,
        runs[0].corpus.level,
        described((whole or runs)[0].corpus) if whole else "Only in sweeps.",
        tuple(map(words.title, METRICS)),
        tuple(_rows(whole)),
        tuple(_plots(anchor, whole)),
        tuple(_sweeps(anchor, runs)),
        comparison_rows(comparisons),
        tuple(_left_out(runs)),
    )


def _rows(runs: Sequence[Run]) -> Iterator[Row]:
    best = {metric: max((_known(run, metric) for run in runs), default=0.0) for metric in METRICS}
    for label, run in zip(labels(runs), runs, strict=True):
        cells = [
            Cell(
                words.points(one.mean),
                words.interval(one.low, one.high),
                len(runs) > 1 and math.isclose(_known(run, metric), best[metric], abs_tol=1e-9),
            )
            for metric in METRICS
            for one in [run.metrics[metric]]
        ]
        yield Row(
            label,
            ", ".join(part for part in (method_of(run), run.model) if part),
            tuple(cells),
            words.rate(run.queries_per_second),
            words.rate(run.seconds["index"]),
            f"{run.cached:,}",
            f"{len(run.failed):,}",
        )


def _known(run: Run, metric: str) -> float:
    mean = run.metrics[metric].mean
    return mean if math.isfinite(mean) else -1.0


def _plots(anchor: str, runs: Sequence[Run]) -> Iterator[Plot]:
    if not runs:
        return
    named = labels(runs)
    dots = plots.estimates(f"{anchor}-estimates", named, [run.metrics[HEADLINE] for run in runs])
    yield Plot("nDCG@10", Markup(dots))
    level = runs[0].corpus.level
    if (drawn := plots.ranks(f"{anchor}-ranks", named, runs)) is not None:
        said = "The higher and the further left, the better. Lines end below 100 % where queries have nothing to find."
        yield Plot(f"How far down the first gold {level} is", Markup(drawn), said)
    if (drawn := plots.positions(f"{anchor}-positions", named, runs)) is not None:
        said = (
            "Of queries with several gold chunks, the first in the document counts. One-chunk documents are left out."
        )
        yield Plot("nDCG@10 by position in the document", Markup(drawn), said)


def _sweeps(anchor: str, runs: Sequence[Run]) -> Iterator[Sweep]:
    places = {label: place for place, label in enumerate(dict.fromkeys(labels(plain(runs)) + labels(runs)))}
    for number, (name, swept) in enumerate(by_sweep(runs).items(), 1):
        drawn = curves(swept)
        axis = sweep_title(name, swept)
        svg = None
        if len({value for curve in drawn for value in curve.values}) > 1:
            colours = [places.get(curve.label, place) for place, curve in enumerate(drawn)]
            logarithmic = name in _LOGARITHMIC
            svg = Markup(plots.sweep(f"{anchor}-sweep-{number}", drawn, colours, axis, logarithmic=logarithmic))
        yield Sweep(f"nDCG@10 by {axis}", svg, _BAND[drawn[0].seeds > 1], sweep_rows(swept))


def _left_out(runs: Sequence[Run]) -> Iterator[LeftOut]:
    unreadable: dict[str, str] = {}
    for run in runs:
        unreadable.update(run.corpus.unreadable)
    if unreadable:
        yield _reasons("unreadable, in all configurations", unreadable)
    for label, run in zip(labels(runs), runs, strict=True):
        if run.failed:
            yield _reasons(f"gave no vectors with {label}{point_of(run)}", run.failed)


def _reasons(what: str, reasons: Mapping[str, str]) -> LeftOut:
    shown = tuple((doc_id[:200], reason[:500]) for doc_id, reason in islice(reasons.items(), _REASONS))
    noun = "document" if len(reasons) == 1 else "documents"
    return LeftOut(f"{len(reasons):,} {noun} {what}", shown, len(reasons) - len(shown))
