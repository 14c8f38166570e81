"""Clusters of pairs: which queries and documents are about the same, by the vectors of a surrogate.

The surrogate is any encoder, the base model itself if need be; its vectors come in as arrays. A batch is hard where a
document of one pair lies near the query of another. With q and d of unit length the sum of both ways is

    q_i . d_j + d_i . q_j  =  [q_i ; d_i] . [d_j ; q_j]

so that pairs are clustered as points [q ; d], and each a second time, mirrored, as [d ; q]: near is then what is near
crosswise. The label of a pair is that of its [q ; d]. There are ceil(pairs / size) clusters, of any sizes: batches are
made even when clusters are packed (`packing`). Each source is clustered by itself, and nothing of another source
decides its clusters. Source: arXiv 2410.02525, the contextual training procedure; the mirrored points, the reduction to
128 dimensions, 100 iterations and 3 restarts are those of the authors' code.

What is otherwise here than there:

- *k-means of scikit-learn*, by mini-batches for more than `EXACT` pairs, where the authors' code has the spherical one
  of faiss. Points have unit length in both; the centroids keep their own length here.
- *Dimensions* are reduced by the principal axes (not centred) of queries and documents alike, where the code has those
  of queries. So the points are the same whichever side is called the query, and so are their clusters; those of pairs
  need not be, since a pair goes by its [q ; d], and k-means is free to part the mirrored points otherwise.
- *One thread*: sums in another order would give other clusters, and a training that goes on must find the same ones.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ctxindex.errors import ConfigError, MissingDependencyError

if TYPE_CHECKING:
    import numpy.typing as npt

    Numbers = npt.NDArray[np.int64]
    Floats = npt.NDArray[np.float32]

EXACT = 50_000
"""Pairs of a source up to which each round of k-means goes over all points; the cost grows with their square."""

_BATCH = 8192
"""Points of a mini-batch, beyond that."""


@dataclass(frozen=True, slots=True)
class ClusteringOptions:
    """What may be chosen about clusters.

    Attributes:
        size: pairs in a cluster, on average. The authors take that of a batch.
        dims: that vectors are reduced to, None for all; at most as many as they have.
        iterations: of a k-means run at most.
        restarts: runs from other first centroids, of which the best counts.
        seed: decides the first centroids.

    Raises:
        ConfigError: a number below 1, or a seed below 0.
    """

    size: int = 256
    dims: int | None = 128
    iterations: int = 100
    restarts: int = 3
    seed: int = 42

    def __post_init__(self) -> None:
        for name in ("size", "dims", "iterations", "restarts"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} of clusters {value} must be 1 or more")
        if self.seed < 0:
            raise ConfigError(f"seed of clusters {self.seed} must be 0 or more")


@dataclass(frozen=True, slots=True, eq=False)
class Clusters:
    """Which pairs belong together.

    Attributes:
        labels: (pairs,) int64, the cluster of each pair, 0 to clusters - 1; each has one pair at least.
        sources: of each cluster, the source that all of its pairs are of.
        centroids: (clusters, dim) float32, the mean of the documents' vectors as they were given, at unit length.
    """

    labels: Numbers
    sources: tuple[str, ...]
    centroids: Floats

    def __len__(self) -> int:
        """Clusters."""
        return len(self.sources)

    def members(self) -> list[Numbers]:
        """The pairs of each cluster, in ascending order."""
        order = np.argsort(self.labels, kind="stable").astype(np.int64)
        return np.split(order, np.cumsum(np.bincount(self.labels, minlength=len(self)))[:-1])


def cluster_pairs(
    queries: npt.ArrayLike,
    documents: npt.ArrayLike,
    options: ClusteringOptions | None = None,
    sources: Sequence[str] | None = None,
) -> Clusters:
    """Clusters of pairs, the same whenever they are asked for; see the top of this file.

    Args:
        queries: (pairs, width) of any floating dtype, the surrogate's vectors, of any length.
        documents: the same of the documents.
        options: how large clusters are, and how they are found.
        sources: of each pair, in any order; None takes all as of one.

    Raises:
        MissingDependencyError: the extra `cde` is not installed.
        ValueError: arrays of another form, or with values that are not numbers.
    """
    options = options or ClusteringOptions()
    asked, read = (_usable(name, one) for name, one in (("queries", queries), ("documents", documents)))
    if asked.shape != read.shape or not len(asked):
        raise ValueError(f"queries are {asked.shape} and documents {read.shape}: one of each for a pair, one at least")
    named = np.asarray([""] * len(asked) if sources is None else list(sources), dtype=object)
    if len(named) != len(asked):
        raise ValueError(f"{len(named)} sources are named, and there are {len(asked)} pairs")
    labels = np.empty(len(asked), dtype=np.int64)
    owners: list[str] = []
    with _one_thread():
        for source in dict.fromkeys(named.tolist()):
            inside = np.flatnonzero(named == source)
            found = _of_source(asked[inside], read[inside], options)
            labels[inside] = len(owners) + found
            owners += [source] * (int(found.max()) + 1)
        return Clusters(labels, tuple(owners), _means(read, labels, len(owners)))


def _of_source(queries: Floats, documents: Floats, options: ClusteringOptions) -> Numbers:
    """(pairs,): the clusters of one source, counted from 0 without gaps."""
    count = -(-len(queries) // options.size)
    if count == 1:
        return np.zeros(len(queries), dtype=np.int64)
    points, turned = _mirrored(*_reduced(queries, documents, options.dims))
    found = _k_means(points, count, options)
    of_pair = np.where(turned, found[len(queries) :], found[: len(queries)])
    return np.unique(of_pair, return_inverse=True)[1].astype(np.int64)


def _reduced(queries: Floats, documents: Floats, dims: int | None) -> tuple[Floats, Floats]:
    """Both on their common principal axes, at unit length."""
    if dims is not None and dims < queries.shape[1]:
        moments = (queries.T @ queries + documents.T @ documents).astype(np.float64)
        axes = np.linalg.eigh(moments)[1][:, ::-1][:, :dims].astype(np.float32)
        queries, documents = queries @ axes, documents @ axes
    return _unit(queries), _unit(documents)


def _mirrored(queries: Floats, documents: Floats) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Points (2 pairs, 2 width) of unit length, and for which pairs (pairs,) the [q ; d] lies in the second half.

    The first of a pair's two points is that which is less where they first differ. So the points are the same, in the
    same order, with queries and documents exchanged, and k-means begins with the same of them.
    """
    first = (queries != documents).argmax(axis=1)
    rows = np.arange(len(queries))
    turned = queries[rows, first] > documents[rows, first]
    straight, mirrored = np.hstack([queries, documents]), np.hstack([documents, queries])
    halves = np.where(turned[:, None], mirrored, straight), np.where(turned[:, None], straight, mirrored)
    return _unit(np.concatenate(halves)), turned


def _k_means(points: Floats, count: int, options: ClusteringOptions) -> Numbers:
    """(points,): the cluster of each; fewer than `count` are in use where points coincide."""
    from sklearn.cluster import KMeans, MiniBatchKMeans
    from sklearn.exceptions import ConvergenceWarning

    chosen: dict[str, Any] = {
        "n_clusters": count,
        "n_init": options.restarts,
        "max_iter": options.iterations,
        "random_state": options.seed,
    }
    exact = len(points) <= 2 * EXACT
    model = KMeans(**chosen) if exact else MiniBatchKMeans(batch_size=_BATCH, **chosen)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # points that coincide: fewer clusters will do
        return np.asarray(model.fit_predict(points), dtype=np.int64)


def _means(vectors: Floats, labels: Numbers, count: int) -> Floats:
    sums = np.zeros((count, vectors.shape[1]), dtype=np.float64)
    np.add.at(sums, labels, vectors)
    return _unit(sums.astype(np.float32))


def _usable(name: str, vectors: npt.ArrayLike) -> Floats:
    """Float32 (pairs, width) at unit length.

    Raises:
        ValueError: another form, or values that are not numbers.
    """
    found = np.asarray(vectors, dtype=np.float32)
    if found.ndim != 2:
        raise ValueError(f"{name} are (pairs, width), not {found.shape}")
    if not np.isfinite(found).all():
        raise ValueError(f"{name} have values that are not numbers")
    return _unit(found)


def _unit(vectors: Floats) -> Floats:
    """At unit length; what is zero stays so."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(norms > 0, norms, 1), dtype=np.float32)


def _one_thread() -> Any:
    """Libraries of numbers work in one thread within this context.

    Raises:
        MissingDependencyError: scikit-learn, which brings the package for it, is not installed.
    """
    try:
        import sklearn  # noqa: F401
        from threadpoolctl import threadpool_limits
    except ImportError:
        raise MissingDependencyError("scikit-learn", extra="cde", purpose="contextual training") from None
    return threadpool_limits(limits=1)
