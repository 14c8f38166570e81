"""Clusters of pairs: planted domains are found, and always the same ones."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxindex.errors import ConfigError, MissingDependencyError
from ctxindex.training.contextual import clustering
from ctxindex.training.contextual.clustering import ClusteringOptions, Clusters, cluster_pairs


def planted(domains: int = 6, each: int = 20, width: int = 32, seed: int = 0) -> tuple[Any, Any, Any]:
    """Vectors of queries and documents about some domains, and the domain of each pair, shuffled."""
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(domains, width))
    of_pair = rng.permutation(np.repeat(np.arange(domains), each))
    queries, documents = (centers[of_pair] + 0.2 * rng.normal(size=(len(of_pair), width)) for _ in range(2))
    return queries, documents, of_pair


def partition(labels: Any) -> set[frozenset[int]]:
    return {frozenset(np.flatnonzero(labels == one).tolist()) for one in np.unique(labels)}


@pytest.mark.parametrize("dims", [None, 16, 999])
def test_planted_domains_are_found(dims: int | None) -> None:
    queries, documents, of_pair = planted()
    found = cluster_pairs(queries, documents, ClusteringOptions(size=20, dims=dims))
    assert partition(found.labels) == partition(of_pair)
    assert len(found) == 6
    assert [len(one) for one in found.members()] == [20] * 6


def test_a_centroid_is_the_mean_of_the_documents() -> None:
    queries, documents, _ = planted()
    found = cluster_pairs(queries, documents, ClusteringOptions(size=20))
    units = documents / np.linalg.norm(documents, axis=1, keepdims=True)
    for cluster, members in enumerate(found.members()):
        mean = units[members].mean(axis=0)
        np.testing.assert_allclose(found.centroids[cluster], mean / np.linalg.norm(mean), atol=1e-5)
    assert found.centroids.dtype == np.float32


def test_the_sides_change_no_cluster_of_points_but_which_of_its_points_a_pair_goes_by(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[tuple[Any, Any]] = []
    k_means = clustering._k_means

    def watched(points: Any, count: int, options: ClusteringOptions) -> Any:
        seen.append((points, k_means(points, count, options)))
        return seen[-1][1]

    monkeypatch.setattr(clustering, "_k_means", watched)
    queries, documents = np.random.default_rng(0).normal(size=(2, 200, 8))  # no domains: k-means has to choose
    options = ClusteringOptions(size=20, dims=4, restarts=1)
    there, back = cluster_pairs(queries, documents, options), cluster_pairs(documents, queries, options)
    (points, found), (other, again) = seen
    assert np.array_equal(points, other)
    assert np.array_equal(found, again)
    assert points.shape == (400, 8)
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), 1, atol=1e-6)
    _, turned = clustering._mirrored(*clustering._reduced(_units(queries), _units(documents), 4))
    straight, mirrored = np.where(turned, found[200:], found[:200]), np.where(turned, found[:200], found[200:])
    assert partition(there.labels) == partition(straight)
    assert partition(back.labels) == partition(mirrored)
    assert partition(straight) != partition(mirrored)


def test_planted_domains_are_the_same_from_either_side() -> None:
    queries, documents, of_pair = planted()
    options = ClusteringOptions(size=20)
    there, back = cluster_pairs(queries, documents, options), cluster_pairs(documents, queries, options)
    assert partition(there.labels) == partition(back.labels) == partition(of_pair)


def _units(vectors: Any) -> Any:
    return clustering._usable("vectors", vectors)


def test_what_counts_is_crosswise_nearness() -> None:
    """The query of each pair is the document of another: these are neighbours, though neither side is like its own."""
    axes = np.repeat(np.eye(4, dtype=np.float32), 5, axis=0)
    queries, documents = axes, axes.reshape(4, 5, 4)[[1, 0, 3, 2]].reshape(20, 4)
    points, turned = clustering._mirrored(queries, documents)
    straight = np.where(turned[:, None], points[20:], points[:20])
    mirrored = np.where(turned[:, None], points[:20], points[20:])
    near = straight @ mirrored.T > 0.99
    assert near[0].tolist() == [False] * 5 + [True] * 5 + [False] * 10
    np.testing.assert_allclose(straight @ mirrored.T, (queries @ documents.T + documents @ queries.T) / 2, atol=1e-6)


@settings(deadline=None, max_examples=15)
@given(pairs=st.integers(1, 40), size=st.integers(1, 12), seed=st.integers(0, 5))
def test_there_are_as_many_clusters_as_asked_for_at_most_and_none_is_empty(pairs: int, size: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    options = ClusteringOptions(size=size, restarts=1)
    found = cluster_pairs(rng.normal(size=(pairs, 5)), rng.normal(size=(pairs, 5)), options)
    assert 1 <= len(found) <= -(-pairs // size)
    assert sorted(np.concatenate(found.members()).tolist()) == list(range(pairs))
    assert min(map(len, found.members())) >= 1
    assert all((found.labels[members] == cluster).all() for cluster, members in enumerate(found.members()))


def test_k_is_the_pairs_by_the_size_rounded_up(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    k_means = clustering._k_means

    def counting(points: Any, count: int, options: ClusteringOptions) -> Any:
        asked.append(count)
        return k_means(points, count, options)

    monkeypatch.setattr(clustering, "_k_means", counting)
    queries, documents, _ = planted()
    for size in (20, 21, 119, 120):
        cluster_pairs(queries, documents, ClusteringOptions(size=size, restarts=1))
    assert asked == [6, 6, 2], "and one cluster needs no search"


def test_the_seed_decides() -> None:
    rng = np.random.default_rng(0)
    queries, documents = rng.normal(size=(2, 300, 8))
    one, same, other = (
        cluster_pairs(queries, documents, ClusteringOptions(size=20, restarts=1, seed=seed)) for seed in (1, 1, 2)
    )
    assert np.array_equal(one.labels, same.labels)
    assert np.array_equal(one.centroids, same.centroids)
    assert partition(one.labels) != partition(other.labels)


def test_no_source_decides_over_another() -> None:
    queries, documents, _ = planted()
    named = ["contracts" if number % 3 else "leaflets" for number in range(len(queries))]
    options = ClusteringOptions(size=10)
    found = cluster_pairs(queries, documents, options, named)
    assert all(found.sources[label] == source for label, source in zip(found.labels, named, strict=True))
    inside = np.flatnonzero(np.asarray(named) == "leaflets")
    alone = cluster_pairs(queries[inside], documents[inside], options)
    assert partition(found.labels[inside]) == partition(alone.labels)
    assert found.sources.count("leaflets") == len(alone)


def test_many_pairs_go_by_mini_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clustering, "EXACT", 10)
    queries, documents, of_pair = planted()
    found, again = (cluster_pairs(queries, documents, ClusteringOptions(size=20)) for _ in range(2))
    assert partition(found.labels) == partition(of_pair)
    assert np.array_equal(found.labels, again.labels)


def test_points_that_coincide_are_one_cluster() -> None:
    ones = np.ones((12, 4))
    found = cluster_pairs(ones, np.zeros((12, 4)), ClusteringOptions(size=3))
    assert isinstance(found, Clusters)
    assert found.labels.tolist() == [0] * 12


@pytest.mark.parametrize(
    ("queries", "documents", "sources", "message"),
    [
        (np.ones((2, 3)), np.ones((3, 3)), None, r"\(2, 3\) and documents \(3, 3\)"),
        (np.ones((0, 3)), np.ones((0, 3)), None, "one at least"),
        (np.ones(3), np.ones(3), None, "queries are"),
        (np.ones((1, 3)), np.full((1, 3), np.nan), None, "documents have values that are not numbers"),
        (np.ones((1, 3)), np.ones((1, 3)), ["a", "b"], "2 sources are named, and there are 1 pairs"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(queries: Any, documents: Any, sources: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cluster_pairs(queries, documents, None, sources)


@pytest.mark.parametrize("values", [{"size": 0}, {"dims": 0}, {"iterations": 0}, {"restarts": 0}, {"seed": -1}])
def test_options_out_of_range_are_refused(values: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="of clusters"):
        ClusteringOptions(**values)


def test_without_the_extra_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(MissingDependencyError, match=r"scikit-learn: pip install 'ctxindex\[cde\]'"):
        cluster_pairs(np.ones((2, 3)), np.ones((2, 3)))
