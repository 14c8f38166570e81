"""Token states -> chunk vectors.

A chunk may lie in several pieces, in several windows, in several batches. So pooling keeps, for each chunk of a
document, the sum of the states that belong to it and their number; both add up, and the division comes once, at the
end. That makes the vector of a chunk the mean over all of its tokens, however it was cut. Sums are float32 whatever the
states are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ctxindex.errors import DocumentError

if TYPE_CHECKING:
    import numpy.typing as npt

    from ctxindex.types import FloatArray


class MeanPool:
    """The running sums of one document: (chunks, width) float32, and a count for each chunk.

    The width is that of the first sum: states may be wider than the vectors that a model makes of their mean.
    """

    def __init__(self, chunks: int) -> None:
        self._sums = np.zeros((chunks, 0), dtype=np.float32)
        self._counts = np.zeros(chunks, dtype=np.int64)

    def add(self, chunk: int, total: FloatArray, count: int) -> None:
        """Add `total`, (width,) float32, the sum of `count` token states of chunk number `chunk`."""
        if not self._sums.size:
            self._sums = np.zeros((len(self._counts), len(total)), dtype=np.float32)
        self._sums[chunk] += total
        self._counts[chunk] += count

    def means(self) -> FloatArray:
        """(chunks, width) float32: the mean of each chunk's states, not normalised.

        Raises:
            DocumentError: a chunk without tokens.
        """
        if not self._counts.all():
            missing = int(np.flatnonzero(self._counts == 0)[0])
            raise DocumentError(f"chunk {missing} has no tokens that the model can read")
        means: FloatArray = (self._sums / self._counts[:, None]).astype(np.float32)
        return means


def unit_rows(vectors: npt.NDArray[np.floating]) -> FloatArray:
    """Each row divided by its L2 norm, as float32.

    Raises:
        DocumentError: a norm that is zero or not finite.
    """
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not (np.isfinite(norms).all() and norms.all()):
        raise DocumentError("the model's output is not a usable vector (its norm is zero or not finite)")
    unit: FloatArray = (vectors / norms).astype(np.float32)
    return unit
