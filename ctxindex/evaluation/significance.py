"""How sure a mean is, and a difference of two means: intervals and tests over queries.

Queries are what is resampled: an interval says how the mean would vary over other questions like these on the same
documents. Where many questions stand on few documents it says nothing about other documents.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ctxindex.errors import MissingDependencyError
from ctxindex.evaluation.results import Estimate

if TYPE_CHECKING:
    import numpy.typing as npt

    Values = npt.NDArray[np.float64]

RESAMPLES = 2_000
"""Of a bootstrap, and of a randomisation test: the least p is 2 / (RESAMPLES + 1)."""

CONFIDENCE = 0.95
_BATCH_NUMBERS = 4_000_000
"""Numbers drawn at once, to keep memory small with many queries."""


def interval(values: Values, seed: int = 0) -> Estimate:
    """The mean of (queries,) values and its 95 % percentile bootstrap interval; a single value has no width."""
    mean = float(values.mean())
    if len(values) < 2 or np.ptp(values) == 0:
        return Estimate(mean, mean, mean)
    stats = require_statistics()
    found = stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=RESAMPLES,
        batch=_batch(values),
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    return Estimate(mean, float(found.confidence_interval.low), float(found.confidence_interval.high))


def paired_p(values: Values, baseline: Values, seed: int = 0) -> float:
    """Two-sided p of a paired randomisation test of the difference of the means.

    Both are (queries,), of the same queries. Where all pairs are equal, or there is a single one, it is 1.
    Source: Smucker, Allan and Carterette, "A comparison of statistical significance tests for information retrieval
    evaluation", CIKM 2007.
    """
    differences = values - baseline
    if len(differences) < 2 or not differences.any():
        return 1.0
    stats = require_statistics()
    found = stats.permutation_test(
        (differences,),
        np.mean,
        permutation_type="samples",
        n_resamples=RESAMPLES,
        batch=_batch(values),
        vectorized=True,
        rng=np.random.default_rng(seed),
    )
    return float(found.pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """The p values corrected for their number, in their order (Holm 1979: step down, kept monotonic, at most 1)."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    corrected = [0.0] * len(p_values)
    highest = 0.0
    for step, number in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - step) * p_values[number]))
        corrected[number] = highest
    return corrected


def _batch(values: Values) -> int:
    return max(1, _BATCH_NUMBERS // len(values))


def require_statistics() -> Any:
    """The library; raises MissingDependencyError where it is not installed."""
    try:
        from scipy import stats
    except ImportError:
        raise MissingDependencyError("scipy", extra="eval", purpose="an evaluation") from None
    return stats
