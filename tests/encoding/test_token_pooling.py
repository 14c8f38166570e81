"""Token pooling: Ward in numpy against scipy's, counts, norms, identity."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster import hierarchy
from scipy.spatial.distance import squareform

from ctxindex.encoding.token_pooling import pool_tokens, ward_labels
from ctxindex.stores.conformance.samples import unit_vectors


def partition(labels: np.ndarray) -> set[frozenset[int]]:
    return {frozenset(np.flatnonzero(labels == label).tolist()) for label in np.unique(labels)}


@settings(deadline=None, max_examples=60)
@given(points=st.integers(2, 90), dim=st.integers(4, 24), seed=st.integers(0, 10_000), factor=st.integers(1, 12))
def test_ward_cuts_as_scipy_does(points: int, dim: int, seed: int, factor: int) -> None:
    vectors = unit_vectors(points, dim, seed).astype(np.float64)
    distances = np.clip(1 - vectors @ vectors.T, 0, 2)
    np.fill_diagonal(distances, 0)
    count = max(1, points // factor)
    linkage = hierarchy.linkage(squareform(distances, checks=False), method="ward")
    expected = hierarchy.fcluster(linkage, t=count, criterion="maxclust")
    labels = ward_labels(distances, count)
    assert partition(labels) == partition(expected)
    assert [int(label) for label in dict.fromkeys(labels.tolist())] == list(range(count))


@settings(deadline=None, max_examples=60)
@given(
    tokens=st.integers(1, 60),
    factor=st.integers(1, 9),
    protected=st.integers(0, 2),
    seed=st.integers(0, 1000),
    repeats=st.booleans(),
)
def test_pooling_gives_the_number_asked_for_at_unit_length(
    tokens: int, factor: int, protected: int, seed: int, repeats: bool
) -> None:
    vectors = unit_vectors(tokens, 16, seed)
    if repeats:  # ties everywhere: a clustering by threshold would give fewer clusters than asked for
        vectors = vectors[np.arange(tokens) % 3]
    pooled = pool_tokens(vectors, factor, protected)
    head = min(protected, tokens)
    rest = tokens - head
    assert len(pooled) == head + (max(1, rest // factor) if rest else 0)
    assert pooled.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(pooled, axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(pooled[:head], vectors[:head])
    if factor == 1:
        np.testing.assert_array_equal(pooled, vectors)


def test_clusters_stand_where_they_began() -> None:
    axes = np.eye(3, dtype=np.float32)
    vectors = axes[[2, 0, 2, 0, 1, 2]]
    np.testing.assert_allclose(pool_tokens(vectors, 2), axes[[2, 0, 1]], atol=1e-6)


@pytest.mark.parametrize("tokens", [1, 2])
def test_few_tokens_leave_one(tokens: int) -> None:
    assert len(pool_tokens(unit_vectors(tokens, 4), 100)) == 1
