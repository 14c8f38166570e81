"""Intervals and tests against numpy, exact enumeration, exact binomials and examples worked out by hand."""

from __future__ import annotations

import itertools
import math
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxindex.errors import MissingDependencyError
from ctxindex.evaluation.significance import RESAMPLES, holm, interval, paired_p


def test_the_interval_is_that_of_a_plain_bootstrap() -> None:
    values = np.random.default_rng(1).beta(0.4, 0.3, size=150)
    found = interval(values)
    generator = np.random.default_rng(2)
    means = [generator.choice(values, len(values)).mean() for _ in range(4000)]
    low, high = np.quantile(means, [0.025, 0.975])
    assert found.mean == values.mean()
    assert found.low == pytest.approx(low, abs=0.1 * (high - low))
    assert found.high == pytest.approx(high, abs=0.1 * (high - low))


def test_an_interval_holds_the_true_mean_as_often_as_it_says() -> None:
    generator = np.random.default_rng(3)
    trials = 200
    held = 0
    for trial in range(trials):
        found = interval(generator.normal(0.4, 0.2, size=60), seed=trial)
        held += found.low <= 0.4 <= found.high
    # 95 % of 200 are 190, with a standard deviation of 3; the bootstrap of 60 values is a little narrow.
    assert 180 <= held <= 198


def test_an_interval_of_four_times_the_queries_is_half_as_wide() -> None:
    values = np.random.default_rng(4).normal(size=400)
    narrow, wide = interval(np.tile(values, 4)), interval(values)
    assert (wide.high - wide.low) / (narrow.high - narrow.low) == pytest.approx(2, rel=0.1)


@pytest.mark.parametrize("values", [[0.25], [0.25] * 7])
def test_values_that_do_not_vary_have_no_width(values: list[float]) -> None:
    found = interval(np.array(values))
    assert (found.mean, found.low, found.high) == (0.25, 0.25, 0.25)


def test_the_seed_decides() -> None:
    generator = np.random.default_rng(5)
    values, others = generator.normal(size=40), generator.normal(size=40)
    assert interval(values, 1) == interval(values, 1) != interval(values, 2)
    assert paired_p(values, others, 1) == paired_p(values, others, 1) != paired_p(values, others, 2)


def test_drawing_in_parts_changes_nothing_that_matters(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(6)
    values = generator.normal(0.2, 1, size=50)
    whole, p = interval(values), paired_p(values, np.zeros(50))
    monkeypatch.setattr("ctxindex.evaluation.significance._BATCH_NUMBERS", 170)
    parts = interval(values)
    assert (parts.low, parts.high) == pytest.approx((whole.low, whole.high), abs=0.03)
    assert paired_p(values, np.zeros(50)) == pytest.approx(p, abs=0.04)


def enumerated(differences: list[int]) -> float:
    """The share of all ways to give signs that move the mean at least as far from 0, of whole numbers."""
    seen = abs(sum(differences))
    sums = [
        sum(sign * one for sign, one in zip(signs, differences, strict=True))
        for signs in itertools.product((-1, 1), repeat=len(differences))
    ]
    return sum(abs(one) >= seen for one in sums) / len(sums)


@settings(deadline=None, max_examples=60)
@given(differences=st.lists(st.integers(-6, 6), min_size=1, max_size=9))
def test_few_pairs_are_enumerated(differences: list[int]) -> None:
    baseline = np.arange(len(differences), dtype=np.float64)
    values = baseline + differences
    assert paired_p(values, baseline) == pytest.approx(enumerated(differences))
    assert paired_p(baseline, values) == pytest.approx(enumerated(differences)), "two-sided"


def test_many_pairs_come_near_the_exact_p() -> None:
    """Differences of 1 and -1 alone make it the sign test, whose p is a binomial."""
    differences = np.array([1.0] * 26 + [-1.0] * 14)
    exact = 2 * sum(math.comb(40, k) for k in range(26, 41)) / 2**40
    assert exact == pytest.approx(0.0807, abs=1e-4)
    assert paired_p(differences, np.zeros(40)) == pytest.approx(exact, abs=0.02)


def test_pairs_count_and_not_the_two_means() -> None:
    baseline = np.random.default_rng(7).normal(0, 10, size=60)
    better = baseline + np.linspace(0.01, 0.03, 60)
    assert paired_p(better, baseline) < 0.01
    assert paired_p(np.random.default_rng(8).permutation(better), baseline) > 0.1


def test_the_least_and_the_greatest_p() -> None:
    assert paired_p(np.ones(50), np.zeros(50)) == pytest.approx(2 / (RESAMPLES + 1))
    same = np.random.default_rng(9).normal(size=50)
    assert paired_p(same, same.copy()) == 1.0
    assert paired_p(np.array([1.0]), np.array([0.0])) == 1.0, "of a single query nothing can be said"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], []),
        ([0.03], [0.03]),
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),
        ([0.04, 0.011, 0.02], [0.04, 0.033, 0.04]),  # 0.02 x 2 is 0.04, and 0.04 x 1 is no less
        ([0.02, 0.021], [0.04, 0.04]),  # 0.021 x 1 would fall below what comes before it
        ([0.6, 0.9, 0.4], [1, 1, 1]),
        ([0.01, 0.01], [0.02, 0.02]),
    ],
)
def test_holm_by_hand(values: list[float], expected: list[float]) -> None:
    assert holm(values) == pytest.approx(expected)


def test_without_scipy_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy", None)
    for ask in (lambda: interval(np.array([0.0, 1.0])), lambda: paired_p(np.array([0.0, 1.0]), np.zeros(2))):
        with pytest.raises(MissingDependencyError, match=r"pip install 'ctxindex\[eval\]'"):
            ask()
