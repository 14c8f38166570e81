"""Measurements on held-out documents: which share of the tuned weights they speak for, and as JSON values and back.

A finished training says from the latter what was found when it is asked once more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ctxindex.evaluation.configuration import Configuration
from ctxindex.evaluation.results import METRICS, Ranking, Run
from ctxindex.evaluation.significance import interval

if TYPE_CHECKING:
    from ctxindex.evaluation.corpus import Corpus

METRIC = "ndcg@10"
"""What a model is chosen by."""

FEW = 5
"""Documents with questions below which what is measured on them is more chance than knowledge."""


def least_share(measured: Mapping[float, Sequence[Run]]) -> float:
    """The smallest share of the tuned weights that is not told from the best one on the held-out documents.

    Not told is a mean nDCG@10 over corpora that is behind by no more than one standard error of the difference, paired
    by query. What a model loses elsewhere by being tuned is not measured there, and grows with the share; so of shares
    that are as good the smallest is kept. Source of the rule: Breiman and others, "Classification and Regression
    Trees", 1984, section 3.4.3, where it is the smallest tree within one standard error of the best. By a few documents
    nothing is told from anything, and the rule would always give the smallest: then what finds most is kept, of equals
    the largest.

    Args:
        measured: runs on the same corpora, by share; one at least.
    """
    means = {share: mean_of(runs) for share, runs in measured.items()}
    best = max(means, key=lambda share: (means[share], share))
    if few([run.corpus for run in measured[best]]):
        return best
    return min(share for share in means if means[best] - means[share] <= _error(measured[best], measured[share]))


def which_weights(history: Sequence[Mapping[str, float]], patience: int) -> str:
    """Of which step the weights are, where they were measured in training; else nothing.

    Args:
        history: what was logged.
        patience: after how many measurements that bring nothing better training ends; 0 for none.
    """
    measured = [(line[f"eval_{METRIC}"], int(line["step"])) for line in history if f"eval_{METRIC}" in line]
    if not measured:
        return ""
    values = [value for value, _ in measured]
    place = values.index(max(values))
    said = f"The weights are those of step {measured[place][1]:,}, the best of {len(measured)} that were measured"
    later = len(measured) - 1 - place
    if not patience or later < patience:
        return f"{said}."
    return f"{said}; {later} more brought nothing better, and --patience ends training then."


def few(corpora: Sequence[Corpus]) -> bool:
    """Whether there are too few documents with questions to choose anything by what is found in them."""
    return sum(len(asked(corpus)) for corpus in corpora) < FEW


def asked(corpus: Corpus) -> set[int]:
    """The numbers of the documents that hold an answer."""
    return {owner for query in range(len(corpus.queries)) for owner in corpus.gold_documents(query)}


def mean_of(runs: Sequence[Run]) -> float:
    """The mean nDCG@10 over corpora."""
    return sum(run.metrics[METRIC].mean for run in runs) / len(runs)


def _error(runs: Sequence[Run], others: Sequence[Run]) -> float:
    """The standard error of the difference of two means over corpora, paired by query."""
    variances = 0.0
    for run, other in zip(runs, others, strict=True):
        apart = run.values[METRIC] - other.values[METRIC]
        variances += float(apart.var(ddof=1)) / len(apart) if len(apart) > 1 else 0.0
    return float(variances**0.5) / len(runs)


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
