"""What is drawn: nDCG@10 with its interval, curves of sweeps, nDCG@10 by position, and how far the gold chunks are.

Each function gives an `<svg>`; values are in points of 100. A configuration has one colour in all plots of a data set.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from matplotlib.figure import Figure

from ctxindex.evaluation.report import words
from ctxindex.evaluation.report.grouping import Curve
from ctxindex.evaluation.report.svg import INK, drawing, element
from ctxindex.evaluation.results import Estimate, Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTH: Final = 8.0
_COLOURS: Final = (
    "#1f77b4", "#e07b00", "#2a9d4a", "#d1373f", "#8e5fbf", "#8c6d4f", "#d65fa8", "#808080", "#a8a31a", "#17a2b8",
)  # fmt: skip
_DASHES: Final = ("-", "--", ":", "-.")
_MARKERS: Final = ("o", "s", "^", "D", "v", "P", "X")
_LABEL_CHARS: Final = 34
_LEGEND_CHARS: Final = 90
_RANKS: Final = 160
_HEADLINE: Final = "nDCG@10 (points of 100)"


def estimates(name: str, labels: Sequence[str], values: Sequence[Estimate]) -> str:
    """A dot and the 95 % interval for every configuration, the first on top."""
    written = [_wrapped(label) for label in labels]
    lines = sum(max(2, label.count("\n") + 1) for label in written)
    with drawing():
        figure, axes = _figure(0.8 + 0.16 * lines)
        for row, one in enumerate(values):
            _dot(axes, row, one)
        axes.set_yticks(range(len(values)), written)
        axes.set_ylim(len(values) - 0.4, -0.7)
        axes.grid(False, axis="y")
        axes.set_xlabel(f"{_HEADLINE}, bars: 95 % interval")
        axes.margins(x=0.08)
        return element(figure, name, "nDCG@10 of each configuration with its 95 % interval")


def _dot(axes: Axes, row: int, one: Estimate) -> None:
    if not math.isfinite(one.mean):
        return
    mean = 100 * one.mean
    reach = [[max(0.0, mean - 100 * one.low)], [max(0.0, 100 * one.high - mean)]]
    known = math.isfinite(one.low) and math.isfinite(one.high)
    axes.errorbar(mean, row, xerr=reach if known else None, fmt="o", color=_colour(row), capsize=3)
    axes.annotate(
        words.points(one.mean), (mean, row), (0, 5), textcoords="offset points", ha="center", va="bottom", fontsize=8
    )


def sweep(name: str, drawn: Sequence[Curve], numbers: Sequence[int], axis: str, *, logarithmic: bool) -> str:
    """A line for every configuration, and a band: over seeds, or with one seed the 95 % interval.

    `numbers` are the places of the curves' configurations among those of the data set, which decide the colours.
    """
    with drawing():
        figure, axes = _figure(3.4 + _legend_height([curve.label for curve in drawn]))
        for number, curve in zip(numbers, drawn, strict=True):
            axes.plot(curve.values, 100 * np.array(curve.means), label=_short(curve.label), **_line(number))
            low, high = 100 * np.array(curve.low), 100 * np.array(curve.high)
            axes.fill_between(curve.values, low, high, color=_colour(number), alpha=0.12, linewidth=0)
        values = sorted({value for curve in drawn for value in curve.values})
        if logarithmic and values[0] > 0:
            axes.set_xscale("log")
        _ticks(axes, values)
        axes.set_xlabel(words.clean(axis))
        axes.set_ylabel(_HEADLINE)
        _legend(figure, axes)
        return element(figure, name, f"nDCG@10 by {axis}")


def _ticks(axes: Axes, values: Sequence[float]) -> None:
    """Ticks where something was measured; of many values every so many."""
    kept = values[:: math.ceil(len(values) / 12)]
    axes.set_xticks(kept, [words.amount(value) for value in kept])
    axes.set_xticks([], minor=True)


def positions(name: str, labels: Sequence[str], runs: Sequence[Run]) -> str | None:
    """nDCG@10 by where in its document the gold chunk stands; None where nothing has a position."""
    parts = [run.positions() for run in runs]
    if not any(parts):
        return None
    with drawing():
        figure, axes = _figure(3.4 + _legend_height(labels))
        for number, (label, here) in enumerate(zip(labels, parts, strict=True)):
            middle = [50 * (first + last) for first, last, _, _ in here]
            means = [100 * mean for _, _, _, mean in here]
            axes.plot(middle, means, label=_short(label), **_line(number))
        counts = {(first, last): queries for first, last, queries, _ in max(parts, key=len)}
        axes.set_xticks(
            [50 * (first + last) for first, last in counts],
            [f"{100 * first:.0f} to {100 * last:.0f}\nn={queries:,}" for (first, last), queries in counts.items()],
        )
        axes.set_xlim(0, 100)
        axes.set_xlabel("position of the gold chunk in its document (% of its chunks; n: queries)")
        axes.set_ylabel(_HEADLINE)
        _legend(figure, axes)
        return element(figure, name, "nDCG@10 by position of the gold chunk in its document")


def ranks(name: str, labels: Sequence[str], runs: Sequence[Run]) -> str | None:
    """The share of queries whose first gold chunk is found by each rank; None where none is found at all."""
    furthest = max((int(run.ranking.gold_rank.max(initial=0)) for run in runs), default=0)
    if furthest == 0:
        return None
    end = max(10, furthest)
    places = np.unique(np.geomspace(1, end, _RANKS).round().astype(np.int64))
    level = runs[0].corpus.level
    with drawing():
        figure, axes = _figure(3.4 + _legend_height(labels))
        for number, (label, run) in enumerate(zip(labels, runs, strict=True)):
            rank = run.ranking.gold_rank
            share = [100 * float(np.mean((rank > 0) & (rank <= place))) for place in places]
            line = {**_line(number), "marker": None}
            axes.step(places, share, where="post", label=_short(label), **line)
        axes.set_xscale("log")
        _ticks(axes, [tick for power in range(7) for tick in (10**power, 3 * 10**power) if tick <= end])
        axes.axvline(10, color=INK, alpha=0.4, linewidth=0.8, linestyle=":")
        axes.set_ylim(0, 102)
        axes.set_xlabel(f"rank of the first gold {level} (dotted: 10)")
        axes.set_ylabel("queries found by that rank (%)")
        _legend(figure, axes)
        return element(figure, name, f"Share of queries by rank of the first gold {level}")


def _figure(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.add_subplot()
    axes.patch.set_alpha(0)
    return figure, axes


def _legend(figure: Figure, axes: Axes) -> None:
    """Below the plot, never over the data."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower left", ncols=_columns(labels))


def _columns(labels: Sequence[str]) -> int:
    longest = max((len(_short(label)) for label in labels), default=1)
    return max(1, min(4, len(labels), 124 // (longest + 8)))


def _legend_height(labels: Sequence[str]) -> float:
    return 0.1 + 0.19 * math.ceil(len(labels) / _columns(labels))


def _colour(number: int) -> str:
    return _COLOURS[number % len(_COLOURS)]


def _line(number: int) -> dict[str, Any]:
    """Colour first; then dashes and markers, so that lines differ without colour too, and beyond ten."""
    dashes = _DASHES[number // len(_COLOURS) % len(_DASHES)]
    marker = _MARKERS[number % len(_MARKERS)]
    return {"color": _colour(number), "linestyle": dashes, "marker": marker, "markersize": 4, "linewidth": 1.5}


def _short(label: str) -> str:
    """In a line of a legend."""
    written = words.clean(label)
    return written if len(written) <= _LEGEND_CHARS else f"{written[:_LEGEND_CHARS]} …"


def _wrapped(label: str) -> str:
    """In up to three lines, broken after commas where that goes."""
    spaced = words.clean(label).replace(",", ", ")
    lines = textwrap.wrap(spaced, _LABEL_CHARS, max_lines=3, placeholder=" …", break_on_hyphens=False)
    return "\n".join(line.replace(", ", ",") for line in lines)
