"""Every document of a corpus against many queries at once, exactly, in memory that does not grow with the corpus.

A store answers one question over what it holds; this ranks a stream of vectors that nobody keeps, as evaluation needs
it. Chunks come in one by one and are scored in blocks, and of the scores only the best of each query stay.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from ctxindex.types import FloatArray

    Places = npt.NDArray[np.int64]

_BLOCK = 4096
"""Vectors that are scored at once, or those of one document if it has more."""

_PRODUCTS = 1 << 22
"""Dot products that are held at once, or those of one query with a block if they are more; 16 MB."""


class ExactRanking:
    """The `k` best documents of each query, by the score of their best chunk.

    Scores are cosines, or MaxSim where queries and chunks have several vectors. A document is named by its place, a
    number from 0 that the caller gives; of equal scores the greater place comes first. The ranking does not depend on
    the order in which documents come.

    Args:
        queries: (queries, dim) float32, or for each query (query vectors, dim); unit rows.
        k: how many documents to keep of each query.
        candidates: for each query the places to rank, (places,) int64; without it, all are ranked.
    """

    def __init__(
        self, queries: FloatArray | list[FloatArray], k: int, candidates: Sequence[Places] | None = None
    ) -> None:
        lengths = [len(each) for each in queries] if isinstance(queries, list) else [1] * len(queries)
        self._queries: FloatArray = np.concatenate(queries) if isinstance(queries, list) else queries
        self._edges = np.cumsum([0, *lengths])
        self._candidates = candidates
        self._best = _Best(len(queries), k)
        self._clear()

    def add(self, place: int, vectors: FloatArray) -> None:
        """Take in a chunk of the document at `place`: (dim,) float32, or (vectors, dim). Its chunks come in a row."""
        if self._held >= _BLOCK and place != self._places[-1]:
            self._score()
        rows = np.atleast_2d(vectors)
        self._rows.append(rows)
        self._places.append(place)
        self._held += len(rows)

    def best(self) -> list[list[tuple[int, float]]]:
        """For each query the places with their scores, best first."""
        if self._held:
            self._score()
        return self._best.sorted()

    def _clear(self) -> None:
        self._rows: list[FloatArray] = []
        self._places: list[int] = []
        self._held = 0

    def _score(self) -> None:
        rows = np.concatenate(self._rows)
        starts = np.cumsum([0, *map(len, self._rows[:-1])])
        chunk_places = np.array(self._places, dtype=np.int64)
        firsts = np.flatnonzero(np.diff(chunk_places, prepend=-1))  # where another document begins
        places = chunk_places[firsts]
        for first, last in self._parts(_PRODUCTS // len(rows)):
            edges = self._edges[first : last + 1]
            products = self._queries[edges[0] : edges[-1]] @ rows.T
            nearest = np.maximum.reduceat(products, starts, axis=1)  # (query vectors, chunks)
            chunks = np.add.reduceat(nearest, edges[:-1] - edges[0], axis=0)
            scores = np.maximum.reduceat(chunks, firsts, axis=1)
            if self._candidates is not None:
                inside = [np.isin(places, each) for each in self._candidates[first:last]]
                scores = np.where(inside, scores, np.float32(-np.inf))
            self._best.add(first, places, scores)
        self._clear()

    def _parts(self, limit: int) -> Iterator[tuple[int, int]]:
        """`[first, last)` of the queries, in parts of at most `limit` vectors, or of one query."""
        first, count = 0, len(self._edges) - 1
        while first < count:
            fitting = int(np.searchsorted(self._edges, self._edges[first] + limit, side="right")) - 1
            last = max(first + 1, fitting)
            yield first, last
            first = last


class _Best:
    """The `k` best places of each query among those seen so far.

    A place and its score are one integer: above 32 bits that sort as the score does, below the place. No two are
    equal, so there is no doubt which of several equal scores stay, and a partition finds them.
    """

    def __init__(self, queries: int, k: int) -> None:
        self._k = k
        self._keys = np.full((queries, k), np.iinfo(np.int64).min)

    def add(self, first: int, places: Places, scores: FloatArray) -> None:
        """Take in `scores`, (queries, places) float32, of the queries from `first` on; minus infinity never ranks."""
        bits = _flip((scores + np.float32(0)).view(np.int32))  # with 0 added, there is no -0
        keys = (bits.astype(np.int64) << 32) | places
        kept = self._keys[first : first + len(keys)]
        kept[:] = np.partition(np.concatenate([kept, keys], axis=1), keys.shape[1], axis=1)[:, -self._k :]

    def sorted(self) -> list[list[tuple[int, float]]]:
        """See `ExactRanking.best`."""
        keys = np.sort(self._keys, axis=1)[:, ::-1]
        places = keys & 0xFFFFFFFF
        scores = _flip((keys >> 32).astype(np.int32)).view(np.float32)
        return [
            [(int(place), float(score)) for place, score in zip(*row, strict=True) if score > -np.inf]  # empty: NaN
            for row in zip(places, scores, strict=True)
        ]


def _flip(bits: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """Bits of floats as integers of the same order, and back: the bits of a negative one count downwards."""
    flipped: npt.NDArray[np.int32] = np.where(bits < 0, bits ^ np.int32(0x7FFFFFFF), bits)
    return flipped
