"""Runs by data set and by sweep, what each is called there, and the curves that a sweep's runs make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ctxindex.evaluation.report import words
from ctxindex.evaluation.results import Run

HEADLINE = "ndcg@10"
"""The metric that plots, sweeps and the choice of failing queries go by."""

_UNITS = {"chunk-size": "tokens", "corpus-size": "documents"}


def by_dataset(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """The runs of each data set, in the order in which the sets come first."""
    sets: dict[str, list[Run]] = {}
    for run in runs:
        sets.setdefault(run.corpus.name, []).append(run)
    return sets


def plain(runs: Sequence[Run]) -> list[Run]:
    """The runs that are no part of a sweep."""
    return [run for run in runs if run.point is None]


def by_sweep(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """The runs of each sweep, by the name of what was varied."""
    sweeps: dict[str, list[Run]] = {}
    for run in runs:
        if run.point is not None:
            sweeps.setdefault(run.point.name, []).append(run)
    return sweeps


def labels(runs: Sequence[Run]) -> list[str]:
    """What each run is called: its configuration's name, and its model where several models share the name."""
    models: dict[str, set[str]] = {}
    for run in runs:
        models.setdefault(run.name, set()).add(run.model)
    return [f"{run.name} ({run.model})" if run.model and len(models[run.name]) > 1 else run.name for run in runs]


def point_of(run: Run) -> str:
    """Where on a curve a run stands, in words that follow its name; nothing where it is on none."""
    if run.point is None:
        return ""
    seed = "" if run.point.seed is None else f", seed {run.point.seed}"
    return f" at {run.point.name} {words.amount(run.point.value)}{seed}"


def method_of(run: Run) -> str:
    """Method and prefix that were used: those of the configuration, or the model's own."""
    named = run.configuration.method_name
    used = run.notes.get("method")
    return named if run.configuration.method is not None or not used else named.replace("default", str(used), 1)


def sweep_title(name: str, runs: Sequence[Run]) -> str:
    """The name of what was varied with its unit: that of the runs' notes, or the one it usually has."""
    unit = next((run.notes["unit"] for run in runs if "unit" in run.notes), _UNITS.get(name))
    return f"{name} ({unit})" if unit else name


@dataclass(frozen=True, slots=True)
class Curve:
    """A configuration through a sweep: at each of `values` the mean over seeds, and the least and greatest of them.

    With one seed, `low` and `high` are those of the run's 95 % interval. `seeds` is the most that a value has.
    """

    label: str
    values: tuple[float, ...]
    means: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    seeds: int


def curves(runs: Sequence[Run], metric: str = HEADLINE) -> list[Curve]:
    """The curves of one sweep's runs on one data set, one a configuration."""
    held: dict[str, dict[float, list[Run]]] = {}
    for label, run in zip(labels(runs), runs, strict=True):
        if run.point is not None:
            held.setdefault(label, {}).setdefault(run.point.value, []).append(run)
    seeds = max((len(here) for points in held.values() for here in points.values()), default=0)
    return [_curve(label, dict(sorted(points.items())), metric, seeds) for label, points in held.items()]


def _curve(label: str, points: dict[float, list[Run]], metric: str, seeds: int) -> Curve:
    estimates = [[run.metrics[metric] for run in here] for here in points.values()]
    # One kind of band a sweep: where some sizes have several seeds, a size with one has no spread.
    spread = seeds > 1
    return Curve(
        label,
        tuple(points),
        tuple(float(np.mean([one.mean for one in here])) for here in estimates),
        tuple(min(one.mean if spread else one.low for one in here) for here in estimates),
        tuple(max(one.mean if spread else one.high for one in here) for here in estimates),
        seeds,
    )
