"""Fewer vectors a chunk: token vectors that say nearly the same are replaced by their mean.

Ward's agglomerative clustering on the distance 1 - cosine, cut at `tokens // factor` clusters; each gives the mean of
its members at unit length. Written in numpy, since scipy would be a dependency for one function; the tests hold it
against scipy's. Source: "Reducing the Footprint of Multi-Vector Retrieval with Minimal Performance Impact via Token
Pooling", arXiv 2409.14683; the update of distances is Lance and Williams', as in scipy's `linkage(method="ward")`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ctxindex.encoding.pooling import unit_rows

if TYPE_CHECKING:
    import numpy.typing as npt

    from ctxindex.types import FloatArray

    Labels = npt.NDArray[np.int64]
    Distances = npt.NDArray[np.float64]


def pool_tokens(vectors: FloatArray, factor: int, protected: int = 0) -> FloatArray:
    """Pool (tokens, dim) float32 unit vectors to (protected + max(1, (tokens - protected) // factor), dim).

    The first `protected` rows stay as they are; a cluster stands where its first token stood. With a factor of 1 the
    vectors come back unchanged.

    Raises:
        DocumentError: the mean of a cluster has no length.
    """
    head, rest = vectors[:protected], vectors[protected:]
    count = max(1, len(rest) // factor)
    if count >= len(rest):
        return vectors
    labels = ward_labels(np.clip(1.0 - rest @ rest.T, 0.0, 2.0), count)
    sums = np.zeros((count, rest.shape[1]), dtype=np.float32)
    np.add.at(sums, labels, rest)
    return np.concatenate([head, unit_rows(sums)])


def ward_labels(distances: npt.NDArray[np.floating], count: int) -> Labels:
    """Cut the points of a (points, points) symmetric matrix of distances into `count` clusters by Ward's method.

    Returns:
        (points,) int64, from 0 to count - 1 in the order of each cluster's first point.
    """
    merging = _Merging(distances)
    for _ in range(len(distances) - count):
        merging.merge_nearest()
    _, labels = np.unique(merging.member_of, return_inverse=True)
    return np.asarray(labels, dtype=np.int64)


class _Merging:
    """Clusters, each known by its first point, and the nearest other cluster of each; a merge takes O(points)."""

    def __init__(self, distances: npt.NDArray[np.floating]) -> None:
        self._squares: Distances = np.square(distances, dtype=np.float64)
        np.fill_diagonal(self._squares, np.inf)
        self._sizes = np.ones(len(distances))
        self.member_of: Labels = np.arange(len(distances))
        self._nearest: Labels = self._squares.argmin(axis=1)
        self._least: Distances = self._squares.min(axis=1)

    def merge_nearest(self) -> None:
        """Make one cluster of the two that are nearest to each other."""
        one = int(self._least.argmin())
        kept, gone = sorted((one, int(self._nearest[one])))
        merged = self._distances_to_merged(kept, gone)
        self._sizes[kept] += self._sizes[gone]
        self.member_of[self.member_of == gone] = kept
        self._squares[gone] = self._squares[:, gone] = self._least[gone] = np.inf
        self._squares[kept] = self._squares[:, kept] = merged
        self._look_again(kept, gone)

    def _distances_to_merged(self, kept: int, gone: int) -> Distances:
        """Lance and Williams' formula for Ward, on squares."""
        first, second, between = self._squares[kept], self._squares[gone], self._squares[kept, gone]
        sizes, total = self._sizes, self._sizes[kept] + self._sizes[gone]
        with np.errstate(invalid="ignore"):
            merged = (sizes + sizes[kept]) * first + (sizes + sizes[gone]) * second - sizes * between
        merged /= sizes + total
        merged[~(np.isfinite(first) & np.isfinite(second))] = np.inf  # the two themselves, and clusters that are gone
        return np.asarray(merged, dtype=np.float64)

    def _look_again(self, kept: int, gone: int) -> None:
        nearer = self._squares[:, kept] < self._least
        self._least[nearer], self._nearest[nearer] = self._squares[nearer, kept], kept
        stale = np.flatnonzero(((self._nearest == kept) | (self._nearest == gone)) & ~nearer & np.isfinite(self._least))
        stale = np.append(stale[stale != kept], kept)
        self._nearest[stale] = self._squares[stale].argmin(axis=1)
        self._least[stale] = self._squares[stale].min(axis=1)
