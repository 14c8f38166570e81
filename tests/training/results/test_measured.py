"""Which share of the tuned weights is kept, by what each finds on held-out documents."""

from __future__ import annotations

import pytest

from ctxindex.training.results import measured as measured_module
from ctxindex.training.results.measured import FEW, asked, least_share, mean_of, which_weights
from ctxindex.training.schedule import Schedule
from tests.evaluation.builders import people
from tests.training.results.builders import run_of

BEST = [0.5, 0.9, 0.4, 0.8, 0.6]


def behind(*by: float) -> list[float]:
    return [value - one for value, one in zip(BEST, by, strict=True)]


@pytest.mark.parametrize(
    ("found", "kept"),
    [
        ({0.5: BEST, 0.75: BEST, 1.0: BEST}, 0.5),
        # Behind by 0.1 with every query: little, and no chance.
        ({0.5: behind(0.1, 0.1, 0.1, 0.1, 0.1), 1.0: BEST}, 1.0),
        # Behind by 0.018 on average, and by what a single query makes of it: the error is 0.021.
        ({0.5: behind(0.1, -0.01, 0.0, 0.0, 0.0), 1.0: BEST}, 0.5),
        ({0.25: behind(0.4, 0.4, 0.3, 0.4, 0.4), 0.5: behind(0.1, -0.1, 0.1, 0.0, -0.05), 1.0: BEST}, 0.5),
        ({0.5: BEST, 1.0: behind(0.2, 0.2, 0.3, 0.2, 0.2)}, 0.5),
        ({0.4: BEST}, 0.4),
    ],
)
def test_the_smallest_share_that_is_not_told_from_the_best(
    monkeypatch: pytest.MonkeyPatch, found: dict[float, list[float]], kept: float
) -> None:
    monkeypatch.setattr(measured_module, "FEW", 1)
    assert least_share({share: [run_of(people(), values)] for share, values in found.items()}) == kept


def test_of_a_few_documents_what_finds_most_is_kept() -> None:
    """By the rule alone, the less is known the less would be kept of what was trained."""
    measured = {share: [run_of(people(), BEST)] for share in (0.5, 1.0)}
    assert len(asked(people())) < FEW
    assert least_share(measured) == 1.0
    assert least_share({0.4: [run_of(people(), BEST)], 1.0: [run_of(people(), behind(0.1, 0.0, 0.0, 0.0, 0.0))]}) == 0.4
    assert least_share({share: runs * FEW for share, runs in measured.items()}) == 0.5


@pytest.mark.parametrize(
    ("values", "patience", "said"),
    [
        ([], 1, ""),
        ([0.1, 0.4, 0.3], Schedule().patience, "The weights are those of step 20, the best of 3 that were measured."),
        ([0.1, 0.4, 0.3], 2, "The weights are those of step 20, the best of 3 that were measured."),
        (
            [0.4, 0.4, 0.3],
            2,
            "The weights are those of step 10, the best of 3 that were measured; 2 more brought nothing better, and "
            "--patience ends training then.",
        ),
    ],
)
def test_of_which_step_the_weights_are(values: list[float], patience: int, said: str) -> None:
    measured = [{"step": 10.0 * number, "eval_ndcg@10": value} for number, value in enumerate(values, 1)]
    history = [line for one in measured for line in ({"step": one["step"] - 5, "loss": 1.0}, one)]
    assert which_weights(history, patience) == said


def test_the_error_is_that_of_the_mean_over_corpora(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measured_module, "FEW", 1)
    near, far = behind(0.06, -0.001, 0.0, 0.0, 0.0), behind(0.05, 0.01, -0.01, 0.02, -0.02)
    measured = {
        1.0: [run_of(people(), BEST), run_of(people(), BEST)],
        0.5: [run_of(people(), near), run_of(people(), far)],
    }
    # Behind by 0.0118 with an error of 0.0121, and by 0.01 with one of 0.0122: by 0.0109, with an error of 0.0086.
    assert mean_of(measured[1.0]) - mean_of(measured[0.5]) == pytest.approx(0.0109)
    assert least_share({share: runs[:1] for share, runs in measured.items()}) == 0.5
    assert least_share({share: runs[1:] for share, runs in measured.items()}) == 0.5
    assert least_share(measured) == 1.0
