"""MaxSim: the formula, and masks that exclude."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxindex.encoding.maxsim import max_sim, max_sim_torch
from ctxindex.stores.conformance.samples import unit_vectors
from ctxindex.stores.vectors import max_sim as ragged_max_sim


def test_padding_does_not_lift_negative_products() -> None:
    query = np.array([[[1.0, 0.0]]], dtype=np.float32)
    padded = np.array([[[-1.0, 0.0], [0.0, 0.0]]], dtype=np.float32)
    mask = np.array([[True, False]])
    assert max_sim(query, padded, document_mask=mask) == [[-1.0]]
    assert max_sim(query, padded[:, :1]) == [[-1.0]]
    assert max_sim_torch(torch.tensor(query), torch.tensor(padded), document_mask=torch.tensor(mask)).item() == -1.0


@settings(deadline=None, max_examples=40)
@given(
    queries=st.lists(st.integers(1, 7), min_size=1, max_size=4),
    documents=st.lists(st.integers(1, 20), min_size=1, max_size=5),
    seed=st.integers(0, 100),
)
def test_padded_masked_and_ragged_agree(queries: list[int], documents: list[int], seed: int) -> None:
    left = [unit_vectors(rows, 6, seed + rows) for rows in queries]
    right = [unit_vectors(rows, 6, seed + 50 + rows) for rows in documents]
    expected = [[float((q.astype(np.float64) @ d.T).max(axis=1).sum()) for d in right] for q in left]
    padded_left, mask_left = pad(left)
    padded_right, mask_right = pad(right)
    found = max_sim(padded_left, padded_right, mask_left, mask_right)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)
    tensors = map(torch.from_numpy, (padded_left, padded_right, mask_left, mask_right))
    np.testing.assert_allclose(max_sim_torch(*tensors), expected, atol=1e-5)
    np.testing.assert_allclose([ragged_max_sim(query, right) for query in left], expected, atol=1e-5)


def test_half_precision_is_added_up_in_float32() -> None:
    query, document = unit_vectors(64, 128)[None], unit_vectors(200, 128, 1)[None]
    exact = max_sim(query.astype(np.float16).astype(np.float32), document.astype(np.float16).astype(np.float32))
    half = max_sim_torch(torch.tensor(query).half(), torch.tensor(document).half())
    assert half.dtype == torch.float32
    wide = max_sim_torch(torch.tensor(query).double(), torch.tensor(document).double())
    assert wide.dtype == torch.float64
    np.testing.assert_allclose(half, exact, rtol=1e-5)


def pad(ragged: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    longest = max(map(len, ragged))
    mask = np.array([[position < len(each) for position in range(longest)] for each in ragged])
    padded = np.zeros((len(ragged), longest, ragged[0].shape[1]), dtype=np.float32)
    for row, each in zip(padded, ragged, strict=True):
        row[: len(each)] = each
    return padded, mask
