"""What stores check of vectors, and the exact MaxSim that multivectors are ranked by. numpy only, imported when used.

    MaxSim(Q, D) = sum over q in Q of (max over d in D of q·d)

for a query of unit vectors Q, (query vectors, dim), and a chunk's D, (vectors, dim). Chunks are ragged here, never
padded: a padded row would take part in the maximum as 0 and lift every chunk whose products are below it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, cast

from ctxindex.errors import StoreError
from ctxindex.stores.payload import to_hit
from ctxindex.types import MULTIVECTOR_NUMBERS, Hit, StoredChunk, VectorLayout

if TYPE_CHECKING:
    from ctxindex.types import FloatArray

SPARE_CANDIDATES = 16
"""Chunks that a database is asked for beyond k, where its own scores are rounded and ours rank again."""


def check_chunks(chunks: Iterable[StoredChunk], layout: VectorLayout) -> None:
    """Accept chunks whose vectors fit the layout.

    Raises:
        StoreError: a vector is missing, of another dimension, too large for a multivector, or of zero length.
    """
    for chunk in chunks:
        if layout.multivector:
            _check_multivector(chunk, layout.dim)
        elif chunk.vector is None or chunk.vector.shape != (layout.dim,):
            raise StoreError(f"a chunk of {chunk.doc_id} has no vector of {layout.dim} numbers")


def check_query(query: FloatArray, layout: VectorLayout, where: str) -> FloatArray:
    """The query in the shape that the layout asks for: (dim,), or (query vectors, dim) for multivectors.

    Raises:
        StoreError: it has another shape; `where` names the index in the message.
    """
    if layout.multivector:
        rows = query[None, :] if query.ndim == 1 else query
        if rows.ndim == 2 and len(rows) and rows.shape[1] == layout.dim:
            return rows
        expected = f"multivectors of {layout.dim} numbers a vector"
    elif query.shape == (layout.dim,):
        return query
    else:
        expected = f"vectors of {layout.dim} numbers"
    raise StoreError(f"{where} holds {expected}; the query has the shape {query.shape}")


def as_stored(multivector: FloatArray) -> FloatArray:
    """(vectors, dim) float32: the values that float16 storage keeps."""
    import numpy as np

    return multivector.astype(np.float16).astype(np.float32)


def max_sim(query: FloatArray, multivectors: Sequence[FloatArray]) -> FloatArray:
    """The MaxSim of `query`, (query vectors, dim) float32, with each of `multivectors`: (chunks,) float32."""
    import numpy as np

    scores = np.empty(len(multivectors), dtype=np.float32)
    for number, vectors in enumerate(multivectors):
        scores[number] = (query @ vectors.astype(np.float32, copy=False).T).max(axis=1).sum(dtype=np.float32)
    return scores


def max_sim_joined(query: FloatArray, vectors: FloatArray, lengths: Sequence[int]) -> FloatArray:
    """`max_sim` in one product, for chunks whose vectors lie one after the other: (sum of `lengths`, dim) float32."""
    import numpy as np

    starts = np.cumsum([0, *lengths[:-1]])
    scores: FloatArray = np.maximum.reduceat(vectors @ query.T, starts, axis=0).sum(axis=1, dtype=np.float32)
    return scores


def rank_again(query: FloatArray, chunks: Sequence[StoredChunk], k: int) -> list[Hit]:
    """The best `k` of `chunks`, which carry their multivectors, by exact MaxSim with `query`, (query vectors, dim)."""
    import numpy as np

    scores = max_sim(query, [cast("FloatArray", chunk.vector) for chunk in chunks])
    order = np.argsort(-scores, kind="stable")[:k]
    return [to_hit(chunks[position], float(scores[position]), best=float(len(query))) for position in order]


def _check_multivector(chunk: StoredChunk, dim: int) -> None:
    vectors = chunk.vector
    if vectors is None or vectors.ndim != 2 or not len(vectors) or vectors.shape[1] != dim:
        raise StoreError(f"a chunk of {chunk.doc_id} has no multivector of {dim} numbers a vector")
    if vectors.size >= MULTIVECTOR_NUMBERS:
        raise StoreError(
            f"chunk {chunk.ordinal} of {chunk.doc_id} has {len(vectors):,} vectors of {dim} numbers, and a multivector "
            f"holds fewer than {MULTIVECTOR_NUMBERS:,} numbers: make chunks smaller, or pool their tokens"
        )
    if not vectors.any(axis=1).all():
        raise StoreError(f"chunk {chunk.ordinal} of {chunk.doc_id} has a vector that is all zero")
