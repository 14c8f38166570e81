"""Batches of pairs that are about the same: clusters laid one after the other, and cut into batches.

Clusters are of any size, and batches of one. So within a source its clusters are put in a line, and the line is cut:
small clusters share a batch, large ones are split. In which order they stand decides what shares a batch. The *greedy*
tour begins at a random cluster and goes to the nearest that it has not been to, by the mean of their documents'
vectors, so that what shares a batch is alike; *random* takes any order. What is left at the end of the line, less than
a batch, is the tail: it waits for another epoch, whose line begins elsewhere. Source: arXiv 2410.02525, the contextual
training procedure, and its authors' code, which cuts one line of all sources. Here no batch is of two: their queries
are told apart by what they look like. Another rule of ours is that the pairs of a cluster are shuffled in every epoch
before the line is cut, so that a large one is split otherwise each time.

All depends on the seed and the number of the epoch alone: a training that goes on leaves out what it has done.
A sampler can be handed to a DataLoader as its `batch_sampler`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

import numpy as np

from ctxindex.errors import ConfigError
from ctxindex.training.batches import Draw

if TYPE_CHECKING:
    import numpy.typing as npt

    from ctxindex.training.contextual.clustering import Clusters

    Numbers = npt.NDArray[np.int64]

Order: TypeAlias = Literal["greedy", "random"]
ORDERS: tuple[Order, ...] = get_args(Order)


@dataclass(frozen=True, slots=True)
class Epoch:
    """The batches of an epoch, each of as many pairs of one source, by number; `tail` has those that fill none.

    Every pair is in one batch, or in the tail.
    """

    batches: tuple[tuple[int, ...], ...]
    tail: tuple[int, ...]


class PairBatchSampler(ABC):
    """Batches of pairs, each of one source.

    Args:
        sources: of each pair.
        size: pairs in a batch.
        seed: what decides the order, 0 or more.

    Raises:
        ConfigError: a source with fewer pairs than a batch, or a number out of its range.
    """

    def __init__(self, sources: Sequence[str], size: int, seed: int) -> None:
        if size < 1 or seed < 0:
            raise ConfigError(f"batches of {size} pairs with the seed {seed}: at least 1, and 0 or more")
        named = np.asarray(list(sources), dtype=object)
        self._pairs = {source: np.flatnonzero(named == source) for source in dict.fromkeys(named.tolist())}
        for source, pairs in self._pairs.items():
            if len(pairs) < size:
                told = f"{source} has" if source else "there are"
                raise ConfigError(f"{told} {len(pairs)} pairs to train on, fewer than a batch of {size}")
        self._sources = named
        self._size = size
        self._seed = seed
        self._epoch = 0

    @abstractmethod
    def _line(self, source: str, pairs: Numbers, rng: np.random.Generator) -> Numbers:
        """The pairs of a source in the order in which they are cut into batches."""

    def __len__(self) -> int:
        """Batches of an epoch."""
        return sum(len(pairs) // self._size for pairs in self._pairs.values())

    def __iter__(self) -> Iterator[list[int]]:
        """The batches of the epoch that was set, the first one otherwise."""
        return iter([list(batch) for batch in self.epoch(self._epoch).batches])

    def set_epoch(self, number: int) -> None:
        """Choose the epoch that is iterated over, as the Trainer and others do at its beginning."""
        self._epoch = number

    def epoch(self, number: int) -> Epoch:
        """The batches of an epoch, counted from 0: another order each time, the same for the same number."""
        batches: list[Numbers] = []
        tails: list[int] = []
        for place, (source, pairs) in enumerate(self._pairs.items()):
            rng = np.random.default_rng([self._seed, 2, number, place])
            line = self._line(source, pairs, rng)
            full = len(line) - len(line) % self._size
            batches += list(rng.permuted(line[:full].reshape(-1, self._size), axis=1))
            tails += line[full:].tolist()
        order = np.random.default_rng([self._seed, 3, number]).permutation(len(batches))
        return Epoch(tuple(tuple(batches[one].tolist()) for one in order), tuple(tails))

    def draws(self) -> Iterator[Draw]:
        """Batches without end, epoch after epoch, as the loop of `ctxindex.training.running.trainer` takes them.

        The `documents` of a draw are the numbers of its pairs, counted over all sources.
        """
        step = epoch = 0
        while True:
            for batch in self.epoch(epoch).batches:
                yield Draw(step, self._sources[batch[0]], batch, self._seed)
                step += 1
            epoch += 1


class ClusterBatchSampler(PairBatchSampler):
    """Batches of pairs that are about the same; see the top of this file.

    Args:
        clusters: of the pairs, as `cluster_pairs` finds them.
        size: pairs in a batch.
        seed: what decides the order, 0 or more.
        order: of the clusters.

    Raises:
        ConfigError: a source with fewer pairs than a batch, or a value out of its range.
    """

    def __init__(self, clusters: Clusters, size: int, seed: int = 0, order: Order = "greedy") -> None:
        if order not in ORDERS:
            raise ConfigError(f"order {order} of clusters is none of {', '.join(ORDERS)}")
        super().__init__([clusters.sources[label] for label in clusters.labels.tolist()], size, seed)
        self._clusters = clusters
        self._members = clusters.members()
        self._order = order

    def _line(self, source: str, pairs: Numbers, rng: np.random.Generator) -> Numbers:
        own = np.unique(self._clusters.labels[pairs])
        if self._order == "greedy":
            own = own[greedy_tour(self._clusters.centroids[own], int(rng.integers(len(own))))]
        else:
            own = rng.permutation(own)
        return np.concatenate([rng.permutation(self._members[cluster]) for cluster in own.tolist()])


class RandomBatchSampler(PairBatchSampler):
    """Batches of any pairs of a source: what clusters are measured against."""

    def _line(self, source: str, pairs: Numbers, rng: np.random.Generator) -> Numbers:
        return rng.permutation(pairs)


def greedy_tour(points: npt.ArrayLike, start: int = 0) -> Numbers:
    """An order in which each point is followed by the nearest of those that are left; the first of equals.

    The time grows with the square of the points.

    Args:
        points: (points, dim), one at least.
        start: the first one.

    Returns:
        (points,) int64, the number of each point once.
    """
    found = np.asarray(points, dtype=np.float64)
    squares = np.einsum("ij,ij->i", found, found)
    left = np.ones(len(found), dtype=bool)
    tour = np.empty(len(found), dtype=np.int64)
    here = start
    for place in range(len(found)):
        tour[place] = here
        left[here] = False
        if place + 1 < len(found):
            here = int(np.where(left, squares - 2 * (found @ found[here]), np.inf).argmin())
    return tour
