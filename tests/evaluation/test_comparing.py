"""Comparisons: pairs of the right runs, and the corrections of the right family."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from ctxindex.evaluation import METRICS, Configuration, Corpus, Estimate, Run
from ctxindex.evaluation.comparing import COMPARED, compare
from ctxindex.evaluation.results import Ranking, SweepPoint
from ctxindex.evaluation.significance import holm, interval, paired_p
from tests.evaluation.builders import people

EMPTY = Ranking(np.zeros((0, 10), np.int64), np.zeros((0, 10), np.float32), np.zeros(0, np.int64))


def run_of(corpus: Corpus, method: str, shift: float, point: SweepPoint | None = None) -> Run:
    """A run whose values differ in every metric, and from those of another shift query by query."""
    generator = np.random.default_rng(len(method))
    values = {
        name: np.clip(generator.uniform(0, 1, 30) * (1 + number / 9) + shift * generator.uniform(0, 1, 30), 0, 1)
        for number, name in enumerate(METRICS)
    }
    metrics = {name: Estimate(float(one.mean()), 0, 1) for name, one in values.items()}
    return Run(corpus, Configuration(method), "", values, metrics, EMPTY, {"index": 0, "search": 0}, point=point)


@pytest.fixture(scope="module")
def runs() -> list[Run]:
    first, second = people(name="first"), people(name="second")
    methods = [("bm25", 0.0), ("late", 0.2), ("independent", -0.1)]
    return [run_of(corpus, method, shift) for method, shift in methods for corpus in (first, second)]


def test_each_run_is_compared_with_the_first_of_its_corpus(runs: Sequence[Run]) -> None:
    found = compare(runs)
    assert [(one.dataset, one.metric, one.name, one.baseline) for one in found] == [
        (corpus, metric, method, "bm25")
        for corpus in ("first", "second")
        for metric in COMPARED
        for method in ("late", "independent")
    ]


def test_differences_and_their_p_are_those_of_the_pairs(runs: Sequence[Run]) -> None:
    of = {(run.corpus.name, run.name): run for run in runs}
    for one in compare(runs, seed=4):
        mine = of[one.dataset, one.name].values[one.metric]
        baseline = of[one.dataset, "bm25"].values[one.metric]
        assert one.difference == interval(mine - baseline, 4)
        assert one.difference.mean == pytest.approx(float(np.mean(mine) - np.mean(baseline)))
        assert one.p == paired_p(mine, baseline, 4)


def test_p_is_corrected_for_the_comparisons_of_a_metric_on_a_corpus(runs: Sequence[Run]) -> None:
    found = compare(runs)
    for place in range(0, len(found), 2):
        family = found[place : place + 2]
        assert len({(one.dataset, one.metric) for one in family}) == 1
        assert [one.p_holm for one in family] == holm([one.p for one in family])
    assert any(one.p_holm > one.p for one in found)


def test_the_same_runs_twice_do_not_differ(runs: Sequence[Run]) -> None:
    for one in compare([runs[0], replace(runs[0], configuration=Configuration("late"))]):
        assert one.difference == Estimate(0, 0, 0)
        assert (one.p, one.p_holm) == (1, 1)


def test_curves_and_single_runs_are_not_compared(runs: Sequence[Run]) -> None:
    assert compare(runs[:2]) == []
    assert compare([]) == []
    on_curves = [replace(run, point=SweepPoint("chunk-size", 64)) for run in runs]
    assert compare(on_curves) == []
    assert compare([on_curves[0], *runs]) == compare(runs)
