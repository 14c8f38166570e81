"""What a training gained: the tuned model beside its base, in figures for people and for programs, and in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ctxindex.evaluation.report import words
from ctxindex.evaluation.results import METRICS, Estimate, Run
from ctxindex.evaluation.significance import interval
from ctxindex.training.plan import NULL
from ctxindex.training.results.measured import METRIC, asked, few

Runs = Mapping[str, Sequence[Run]]
"""Runs on each held-out corpus, by what was measured; the tuned model is the last."""


def gains(runs: Runs) -> dict[str, Estimate]:
    """By what nDCG@10 of the tuned model differs from its base, as the better of its runs has it; by corpus.

    The interval is of a bootstrap over queries, of the differences query by query.
    """
    *bases, tuned = (listed for name, listed in runs.items() if name != NULL)
    found = {}
    for number, run in enumerate(tuned):
        best = max((base[number] for base in bases), key=lambda one: one.metrics[METRIC].mean)
        found[run.corpus.name] = interval(run.values[METRIC] - best.values[METRIC])
    return found


def results_rows(runs: Runs) -> list[tuple[str, ...]]:
    """nDCG@10 before and after, in points of 100: a row for each measured, a column for each held-out corpus."""
    *_, tuned = runs.values()
    rows: list[tuple[str, ...]] = [
        ("", *(f"{run.corpus.name} ({_queries(len(run.corpus.queries))})" for run in tuned)),
        *((name, *(_estimate(run.metrics[METRIC], run) for run in listed)) for name, listed in runs.items()),
    ]
    differences = [_estimate(gain, run, signed=True) for gain, run in zip(gains(runs).values(), tuned, strict=True)]
    rows.append(("difference to the better base", *differences))
    if NULL in runs:
        context = [
            _estimate(interval(one.values[METRIC] - null.values[METRIC]), one, signed=True)
            for one, null in zip(tuned, runs[NULL], strict=True)
        ]
        rows.append(("difference to no corpus context", *context))
    return rows


def verdict(runs: Runs, method: str | None = None) -> str:
    """What to say where the tuned model is behind its base in a corpus, or ahead of it in none; else nothing."""
    differences, corpora = gains(runs), [run.corpus for run in list(runs.values())[-1]]
    help_ = f"more documents, more --steps{'' if method == 'cde' else ', --hold, --replay'} or --merge may help"
    count = sum(len(asked(corpus)) for corpus in corpora)
    documents = "1 document" if count == 1 else f"{count} documents"
    chance = f" These are {documents} only, so it may be chance: hold out more." if few(corpora) else ""
    if less := [name for name, one in differences.items() if one.high < 0]:
        where = "" if len(less) == len(differences) else f" in {', '.join(less)}"
        return f"The tuned model finds less than its base{where}: {help_}.{chance}"
    if any(one.low > 0 for one in differences.values()):
        return f"The tuned model finds more than its base.{chance}" if chance else ""
    return f"The tuned model is not told from its base by these documents: {help_}.{chance}"


def why_kept(runs: Runs) -> str:
    """Why so much of the tuned weights was kept, where there was a choice; see `measured.least_share`."""
    if few([run.corpus for run in list(runs.values())[-1]]):
        return "the share that finds most in what is held out, which is too little to tell shares apart"
    return "the smallest share within a standard error of the best on held-out documents"


def _estimate(value: Estimate, run: Run, *, signed: bool = False) -> str:
    """With its interval, but for one query, whose interval would have no width."""
    single = len(run.corpus.queries) == 1
    return words.points(value.mean, signed=signed) if single else words.estimate(value, signed=signed)


def _queries(count: int) -> str:
    return "1 query" if count == 1 else f"{count:,} queries"


def measurements(runs: Runs) -> list[dict[str, Any]]:
    """Every metric of every run, for programs."""
    return [
        {
            "measured": name,
            "dataset": run.corpus.name,
            "queries": len(run.corpus.queries),
            "metrics": {metric: run.metrics[metric].mean for metric in METRICS},
            "intervals": {metric: [run.metrics[metric].low, run.metrics[metric].high] for metric in METRICS},
        }
        for name, listed in runs.items()
        for run in listed
    ]


def differences(runs: Runs) -> list[dict[str, Any]]:
    """`gains` for programs."""
    found = gains(runs) if runs else {}
    return [
        {"dataset": name, "metric": METRIC, "difference": one.mean, "interval": [one.low, one.high]}
        for name, one in found.items()
    ]
