"""Measurements as JSON values and back: what a finished training says when it is asked once more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ctxindex.evaluation.configuration import Configuration
from ctxindex.evaluation.results import METRICS, Ranking, Run
from ctxindex.evaluation.significance import interval

if TYPE_CHECKING:
    from ctxindex.evaluation.corpus import Corpus


def to_json(runs: Mapping[str, Sequence[Run]]) -> dict[str, list[dict[str, Any]]]:
    """The values of every metric, query by query, of each run."""
    return {
        name: [
            {
                "corpus": run.corpus.name,
                "model": run.model,
                "method": run.configuration.method,
                "settings": dict(run.configuration.settings),
                "values": {metric: run.values[metric].tolist() for metric in METRICS},
            }
            for run in listed
        ]
        for name, listed in runs.items()
    }


def from_json(told: Mapping[str, Any], corpora: Mapping[str, Corpus]) -> dict[str, list[Run]]:
    """The runs again, without what was ranked and how long it took.

    Args:
        told: what `to_json` gave.
        corpora: that they are about, by name.
    """
    return {name: [_run(one, corpora[one["corpus"]]) for one in listed] for name, listed in told.items()}


def _run(told: Mapping[str, Any], corpus: Corpus) -> Run:
    values = {metric: np.array(own, dtype=np.float64) for metric, own in told["values"].items()}
    nothing = np.zeros((len(corpus.queries), 0), dtype=np.int64)
    return Run(
        corpus=corpus,
        configuration=Configuration(told["method"], settings=told["settings"], common={"model": told["model"]}),
        model=told["model"],
        values=values,
        metrics={metric: interval(own) for metric, own in values.items()},
        ranking=Ranking(nothing, nothing.astype(np.float32), np.zeros(len(corpus.queries), dtype=np.int64)),
        seconds={},
    )
