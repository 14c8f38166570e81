"""Tables in Markdown of what was measured: points of 100, differences with their intervals, a row for each run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def points(value: float) -> str:
    """A figure between 0 and 1, in points of 100."""
    return f"{100 * value:.1f}"


def _signed(value: float, digits: int = 1) -> str:
    """A difference of two such figures, in points."""
    return f"{100 * value:+.{digits}f}"


def with_interval(value: Mapping[str, float], digits: int = 1) -> str:
    """A `mean` with its interval from `low` to `high`, in points."""
    return "{} [{}, {}]".format(*(_signed(value[name], digits) for name in ("mean", "low", "high")))


def ndcg_table(sets: Sequence[str], runs: Sequence[Mapping[str, Any]]) -> str:
    """A row for each run; where passes of an encoder were timed, the seconds, too."""
    timed = any("seconds" in one for one in runs)
    heads = [*sets, *(["seconds of a pass"] if timed else [])]
    lines = [f"| | {' | '.join(heads)} |", f"| --- |{' --- |' * len(heads)}"]
    for one in runs:
        found = one["ndcg@10"]
        cells = [points(found[name]) if name in found else "" for name in sets]
        cells += [f"{one['seconds']:.2f} times" if "seconds" in one else ""] if timed else []
        lines.append(f"| {one['name']} | {' | '.join(cells)} |")
    return "\n".join(lines)
