"""The numbers of a verification, and the words for them."""

from __future__ import annotations

import numpy as np
import pytest

from ctxindex.indexing.verification import ContextCheck, compare_vectors, row_cosines


def unit(*numbers: float) -> np.ndarray:
    vector = np.array(numbers, dtype=np.float32)
    scaled: np.ndarray = vector / np.linalg.norm(vector)
    return scaled


def test_cosines_are_of_rows_and_never_no_number() -> None:
    left = np.array([[1, 0], [2, 0], [0, 0], [np.nan, 1], [np.inf, 1], [1, 0]], dtype=np.float32)
    right = np.array([[1, 0], [0, 3], [1, 0], [1, 1], [1, 1], [-1, 0]], dtype=np.float32)
    assert row_cosines(left, right).tolist() == [1, 0, 0, 0, 0, -1]


def test_float16_rounding_is_no_difference() -> None:
    vectors = np.random.default_rng(1).normal(size=(50, 128)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines, reason = compare_vectors(vectors.astype(np.float16).astype(np.float32), vectors)
    assert reason is None
    assert cosines.min() > 0.99999


@pytest.mark.parametrize(
    ("stored", "fresh", "reason"),
    [
        (unit(1, 1), unit(1, 0.9), "is stored with another vector than the model gives (cosine 0.9986)"),
        (unit(1, 1), unit(1, 0.99), None),
        (2 * unit(1, 1), unit(1, 1), "is stored with a vector of length 2.00, and not 1"),
        (0 * unit(1, 1), unit(1, 1), "is stored with another vector than the model gives (cosine 0.0000)"),
        (None, unit(1, 1), "has no vector in the index, and the model gives 1 vector of 2 numbers"),
        (
            np.stack([unit(1, 1)] * 3),
            np.stack([unit(1, 1)] * 2),
            "has 3 vectors of 2 numbers in the index, and the model gives 2 vectors of 2 numbers",
        ),
        (
            np.stack([unit(1, 1), unit(1, 0)]),
            np.stack([unit(1, 1), unit(0, 1)]),
            "is stored with another vector than the model gives (cosine 0.0000)",
        ),
    ],
)
def test_what_is_wrong_is_said(stored: np.ndarray | None, fresh: np.ndarray, reason: str | None) -> None:
    cosines, said = compare_vectors(stored, fresh)
    assert said == reason
    assert len(cosines) == (0 if stored is None or stored.shape != fresh.shape else len(np.atleast_2d(fresh)))


def test_context_is_lost_where_the_cosine_is_one() -> None:
    assert ContextCheck(1.0, 3).lost
    assert not ContextCheck(0.9, 3).lost
    assert not ContextCheck(note="not measured").lost
