"""Batches from clusters: one source each, every pair once or in the tail, neighbours side by side, by the seed."""

from __future__ import annotations

from itertools import islice
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from ctxindex.errors import ConfigError
from ctxindex.training.contextual.clustering import Clusters
from ctxindex.training.contextual.packing import (
    ORDERS,
    ClusterBatchSampler,
    Order,
    PairBatchSampler,
    RandomBatchSampler,
    greedy_tour,
)


def clusters_of(sizes: list[int], sources: list[str] | None = None, seed: int = 0) -> Clusters:
    """Clusters of these sizes on a line, their pairs in any order."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    places = np.arange(len(sizes), dtype=np.float32)
    return Clusters(labels, tuple(sources or ["a"] * len(sizes)), np.stack([places, np.zeros_like(places)], axis=1))


def sources_of(clusters: Clusters) -> list[str]:
    return [clusters.sources[label] for label in clusters.labels]


@settings(deadline=None, max_examples=60)
@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=12),
    size=st.integers(1, 9),
    seed=st.integers(0, 99),
    number=st.integers(0, 3),
    kind=st.sampled_from([*ORDERS, None]),
)
def test_every_pair_comes_once_or_is_in_the_tail(
    sizes: list[int], size: int, seed: int, number: int, kind: Order | None
) -> None:
    clusters = clusters_of(sizes, ["ab"[place % 2] for place in range(len(sizes))], seed)
    names = sources_of(clusters)
    if min(names.count(name) for name in set(names)) < size:
        return
    sampler: PairBatchSampler = (
        RandomBatchSampler(names, size, seed) if kind is None else ClusterBatchSampler(clusters, size, seed, kind)
    )
    epoch = sampler.epoch(number)
    given_ = [pair for batch in epoch.batches for pair in batch]
    assert sorted([*given_, *epoch.tail]) == list(range(sum(sizes)))
    assert {len(batch) for batch in epoch.batches} == {size}
    assert len(epoch.batches) == len(sampler)
    assert all(len({names[pair] for pair in batch}) == 1 for batch in epoch.batches)
    assert all(sum(names[pair] == name for pair in epoch.tail) < size for name in set(names))
    assert epoch == sampler.epoch(number)


@pytest.mark.parametrize("kind", [*ORDERS, None])
def test_epochs_and_seeds_give_other_batches(kind: Order | None) -> None:
    clusters = clusters_of([7] * 5)
    made = [
        RandomBatchSampler(sources_of(clusters), 4, seed)
        if kind is None
        else ClusterBatchSampler(clusters, 4, seed, kind)
        for seed in (0, 1)
    ]
    epochs = [made[0].epoch(0), made[0].epoch(1), made[1].epoch(0)]
    as_sets = [{frozenset(batch) for batch in epoch.batches} for epoch in epochs]
    assert as_sets[0] != as_sets[1]
    assert as_sets[0] != as_sets[2]
    assert len({epoch.tail for epoch in epochs}) > 1


def test_clusters_of_the_size_of_a_batch_are_batches() -> None:
    clusters = clusters_of([6] * 8)
    members = {frozenset(one.tolist()) for one in clusters.members()}
    for order in ORDERS:
        assert {frozenset(batch) for batch in ClusterBatchSampler(clusters, 6, 1, order).epoch(0).batches} == members
    random = RandomBatchSampler(sources_of(clusters), 6, 1).epoch(0)
    assert not {frozenset(batch) for batch in random.batches} & members


def test_small_clusters_share_a_batch_with_their_neighbours() -> None:
    clusters = clusters_of([2] * 40)

    def spread(order: Order) -> float:
        epochs = [ClusterBatchSampler(clusters, 8, 0, order).epoch(number) for number in range(5)]
        return float(np.mean([np.ptp(clusters.labels[list(batch)]) for one in epochs for batch in one.batches]))

    assert spread("greedy") < 0.4 * spread("random")


def test_batches_of_sources_and_clusters_are_mixed_over_an_epoch() -> None:
    clusters = clusters_of([5] * 20, ["a"] * 10 + ["b"] * 10)
    names = [sources_of(clusters)[batch[0]] for batch in ClusterBatchSampler(clusters, 5).epoch(0).batches]
    assert names != sorted(names)
    assert names != sorted(names, reverse=True)


@settings(deadline=None, max_examples=40)
@given(count=st.integers(1, 40), seed=st.integers(0, 99))
def test_a_tour_visits_each_once_and_is_no_longer_than_a_random_one(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    line = rng.permutation(count)[:, None] * np.ones(3)
    start = int(rng.integers(count))
    tour = greedy_tour(line, start)
    assert tour[0] == start
    assert sorted(tour.tolist()) == list(range(count))

    def length(order: Any) -> float:
        return float(np.linalg.norm(np.diff(line[order], axis=0), axis=1).sum())

    other = [start, *rng.permutation([one for one in range(count) if one != start]).tolist()]
    # From inside of a line it goes out one way by single steps and once back; any tour has to see both ends.
    assert length(tour) <= 2 * max(count - 1, 0) * np.sqrt(3) + 1e-9
    if start in (int(line[:, 0].argmin()), int(line[:, 0].argmax())):
        assert length(tour) <= length(np.asarray(other)) + 1e-9


def test_a_tour_goes_to_the_nearest() -> None:
    assert greedy_tour([[0.0], [10.0], [1.0], [4.0], [-1.5]]).tolist() == [0, 2, 4, 3, 1]


def test_draws_go_on_through_the_epochs() -> None:
    clusters = clusters_of([5, 7, 9, 4], ["a", "a", "b", "b"])
    sampler = ClusterBatchSampler(clusters, 4, 7)
    draws = list(islice(sampler.draws(), 3 * len(sampler)))
    assert [draw.step for draw in draws] == list(range(len(draws)))
    assert tuple(draw.documents for draw in draws[len(sampler) : 2 * len(sampler)]) == sampler.epoch(1).batches
    assert all(sources_of(clusters)[pair] == draw.source for draw in draws for pair in draw.documents)
    assert draws == list(islice(ClusterBatchSampler(clusters, 4, 7).draws(), len(draws)))


def test_a_data_loader_takes_it_as_it_is() -> None:
    clusters = clusters_of([5, 7, 9])
    sampler = ClusterBatchSampler(clusters, 4, 7)
    loader: DataLoader[int] = DataLoader(range(21), batch_sampler=sampler, collate_fn=tuple)  # type: ignore[arg-type]
    assert tuple(loader) == sampler.epoch(0).batches
    sampler.set_epoch(2)
    assert tuple(loader) == sampler.epoch(2).batches
    assert len(loader) == 5


def test_what_cannot_be_packed_is_refused() -> None:
    with pytest.raises(ConfigError, match="b has 3 pairs to train on, fewer than a batch of 4"):
        ClusterBatchSampler(clusters_of([5, 3], ["a", "b"]), 4)
    with pytest.raises(ConfigError, match="there are 3 pairs"):
        RandomBatchSampler([""] * 3, 4, 0)
    with pytest.raises(ConfigError, match="at least 1"):
        RandomBatchSampler(["a"], 0, 0)
    with pytest.raises(ConfigError, match="none of greedy, random"):
        ClusterBatchSampler(clusters_of([5]), 4, 0, "nearest")  # type: ignore[arg-type]
