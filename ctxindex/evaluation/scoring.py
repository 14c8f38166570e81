"""Scorers: what gives every chunk of a corpus a score for a query. `Bm25` is in `bm25`, encoders are here.

A scorer is made for a configuration, takes a corpus in, and answers queries in blocks, so that memory does not grow
with queries times chunks. Scores are exact: nothing is approximated or left out.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np

from ctxindex.encoding import Encoder
from ctxindex.errors import CtxIndexError
from ctxindex.evaluation.cache import Cache, Kept, key_of
from ctxindex.evaluation.corpus import Corpus
from ctxindex.types import ChunkedDocument, EncodedDocument, FailedDocument

if TYPE_CHECKING:
    import numpy.typing as npt

    from ctxindex.types import FloatArray

    Stored = npt.NDArray[np.floating]

_log = logging.getLogger("ctxindex")

BLOCK_NUMBERS = 16_000_000
"""Numbers of a block of scores: 64 MB."""

_TOKEN_NUMBERS = 32_000_000
"""Products of query tokens and chunk tokens at once, in late interaction."""


@dataclass
class Indexing:
    """What making a corpus ready cost.

    `seconds` includes those that vectors read from a cache took when they were made; `cached` counts their chunks.
    `loading` are the seconds until the model had read its first text, `reading` those in which something was put
    before chunks; both are part of nothing else. `failed` are documents without vectors, and why: their chunks are
    never found.
    """

    seconds: float = 0.0
    loading: float = 0.0
    reading: float = 0.0
    cached: int = 0
    failed: dict[str, str] = field(default_factory=dict)


class Scorer(Protocol):
    """Scores all chunks of a corpus for queries."""

    def index(self, corpus: Corpus) -> Indexing:
        """Make the corpus ready; what an earlier call made ready is forgotten."""
        ...

    def score(self, queries: Sequence[str]) -> Iterator[FloatArray]:
        """Blocks of (some queries, chunks) float32, in the order of the queries; minus infinity: not found."""
        ...


Reader: TypeAlias = Callable[[Sequence[ChunkedDocument]], Sequence[ChunkedDocument]]
"""What is read in the place of documents: the same, or with something before each chunk."""


class Encoded:
    """Implements `Scorer` with an encoder: cosine, or MaxSim over multivectors.

    Args:
        encoder: of documents and queries.
        cache: of vectors; every document is encoded once for each content that is read of it.
        read: what is read in the place of the documents.
        done: called for every document, with its doc_id and why it failed, if it did.
    """

    def __init__(
        self,
        encoder: Encoder,
        cache: Cache,
        read: Reader = lambda documents: documents,
        done: Callable[[str, str | None], None] = lambda doc_id, failure: None,
    ) -> None:
        self._encoder = encoder
        self._cache = cache
        self._read = read
        self._done = done
        self._matrix: Matrix | Multimatrix | None = None
        self._n_chunks = 0

    def index(self, corpus: Corpus) -> Indexing:
        """See `Scorer.index`.

        Raises:
            CtxIndexError: no document could be encoded.
        """
        began = time.perf_counter()
        self._encoder.encode_queries(["anything"])  # loads the model, on nobody's account
        cost = Indexing(loading=time.perf_counter() - began)
        began = time.perf_counter()
        read = self._read(corpus.documents)
        cost.reading = time.perf_counter() - began
        began = time.perf_counter()
        keys = [key_of(one) for one in read]
        kept = dict(self._cache.find(keys))
        numbers = {one.document.doc_id: number for number, one in enumerate(read)}
        for key, one in zip(keys, read, strict=True):
            if key in kept:
                cost.cached += len(one.chunks)
                cost.seconds += kept[key].seconds
                self._done(one.document.doc_id, None)
        since = time.perf_counter()
        missing = [one for key, one in zip(keys, read, strict=True) if key not in kept]
        try:
            for found in self._encoder.encode_documents(missing):
                now = time.perf_counter()
                number = numbers[found.doc_id if isinstance(found, FailedDocument) else found.document.doc_id]
                self._take(found, keys[number], kept, now - since, cost)
                since = now
        finally:
            self._cache.flush()
        if not kept:
            doc_id, reason = next(iter(cost.failed.items()))
            raise CtxIndexError(f"{corpus.name}: no document could be encoded ({doc_id}: {reason})")
        self._matrix = self._gather(corpus, [kept.get(key) for key in keys])
        self._n_chunks = corpus.n_chunks
        cost.seconds += time.perf_counter() - began
        return cost

    def score(self, queries: Sequence[str]) -> Iterator[FloatArray]:
        """See `Scorer.score`."""
        if self._matrix is None:
            raise ValueError("there is no corpus yet")
        counts = self._encoder.tokenizer.count(list(queries))
        asked = [number for number, (query, count) in enumerate(zip(queries, counts, strict=True)) if count]
        if len(asked) < len(queries):
            first = next(number for number, count in enumerate(counts) if not count)
            _log.warning(
                "%d queries have no text that the model can read: %r", len(queries) - len(asked), queries[first]
            )
        if not asked:
            yield np.full((len(queries), self._n_chunks), -np.inf, dtype=np.float32)
            return
        vectors = self._encoder.encode_queries([queries[number] for number in asked])
        yield from _with_gaps(self._matrix.score(vectors), asked, len(queries))

    def _take(
        self, found: EncodedDocument | FailedDocument, key: str, kept: dict[str, Kept], seconds: float, cost: Indexing
    ) -> None:
        if isinstance(found, FailedDocument):
            cost.failed[found.doc_id] = found.reason
            self._done(found.doc_id, found.reason)
            return
        precise = self._encoder.spec.storage == "float32"
        # As an index would hold them.
        vectors: Stored = found.vectors if precise else found.vectors.astype(np.float16)
        kept[key] = Kept(vectors, found.lengths, seconds)
        self._cache.keep(key, kept[key])
        self._done(found.document.doc_id, None)

    def _gather(self, corpus: Corpus, kept: list[Kept | None]) -> Matrix | Multimatrix:
        """All vectors in the order of the chunks; a document without any has none."""
        dim = self._encoder.spec.dim
        if not self._encoder.spec.multivector:
            matrix = np.full((corpus.n_chunks, dim), np.nan, dtype=np.float32)
            for number, one in enumerate(kept):
                if one is not None:
                    matrix[corpus.starts[number] : corpus.starts[number + 1]] = one.vectors
            return Matrix(matrix)
        lengths = np.zeros(corpus.n_chunks, dtype=np.int64)
        for number, one in enumerate(kept):
            if one is not None:
                lengths[corpus.starts[number] : corpus.starts[number + 1]] = one.lengths or ()
        return Multimatrix(np.concatenate([one.vectors for one in kept if one is not None]), lengths)


def _with_gaps(blocks: Iterator[FloatArray], asked: Sequence[int], total: int) -> Iterator[FloatArray]:
    """The blocks, whose rows are those of `asked`, and rows of minus infinity for all other numbers below `total`."""
    following, row = 0, 0
    for block in blocks:
        here = asked[row : row + len(block)]
        row += len(block)
        end = asked[row] if row < len(asked) else total
        if end - following == len(block):
            yield block
        else:
            filled = np.full((end - following, block.shape[1]), -np.inf, dtype=np.float32)
            filled[np.array(here) - following] = block
            yield filled
        following = end


class _Repeats:
    """Chunks with the very vectors of an earlier one, which then score the same.

    A product of matrices gives equal rows products that differ in the last bits, by where they stand and by the number
    of threads, and texts that are repeated would be ranked by chance. Copied from the first of them, ties are ties.
    """

    def __init__(self, rows: Iterable[npt.NDArray[np.floating]]) -> None:
        first: dict[bytes, int] = {}
        pairs = [
            (number, earlier)
            for number, row in enumerate(rows)
            if (earlier := first.setdefault(blake2b(row.tobytes(), digest_size=16).digest(), number)) != number
        ]
        self._later, self._first = np.array(pairs, dtype=np.int64).reshape(-1, 2).T

    def settle(self, scores: FloatArray) -> FloatArray:
        """The scores, (queries, chunks), with the first's in the place of every later one's."""
        if len(self._later):
            scores[:, self._later] = scores[:, self._first]
        return scores


class Matrix:
    """One unit vector a chunk: (chunks, dim) float32; rows of NaN are chunks that are never found."""

    def __init__(self, vectors: FloatArray) -> None:
        missing = np.isnan(vectors[:, 0])
        self._missing = missing if missing.any() else None
        self._vectors = vectors if self._missing is None else np.nan_to_num(vectors, copy=False)
        self._repeats = _Repeats(self._vectors)

    def score(self, queries: FloatArray | list[FloatArray]) -> Iterator[FloatArray]:
        """Blocks of cosines with (queries, dim) unit vectors."""
        rows = max(1, BLOCK_NUMBERS // len(self._vectors))
        for begin in range(0, len(queries), rows):
            scores: FloatArray = np.asarray(queries[begin : begin + rows]) @ self._vectors.T
            self._repeats.settle(scores)
            if self._missing is not None:
                scores[:, self._missing] = -np.inf
            yield scores


class Multimatrix:
    """Several unit vectors a chunk: (vectors, dim) of all chunks behind each other, and (chunks,) how many of each."""

    def __init__(self, vectors: npt.NDArray[np.floating], lengths: npt.NDArray[np.int64]) -> None:
        self._vectors = vectors
        self._lengths = lengths
        self._found = np.flatnonzero(lengths)
        self._ends = np.cumsum(lengths)
        self._repeats = _Repeats(np.split(vectors, self._ends[:-1]))

    def score(self, queries: FloatArray | list[FloatArray]) -> Iterator[FloatArray]:
        """Blocks of MaxSim with queries of (query vectors, dim) each; see `ctxindex.encoding.maxsim`."""
        rows = max(1, min(64, BLOCK_NUMBERS // len(self._lengths)))
        for begin in range(0, len(queries), rows):
            yield self._repeats.settle(self._block([np.asarray(query) for query in queries[begin : begin + rows]]))

    def _block(self, queries: list[FloatArray]) -> FloatArray:
        tokens = np.concatenate(queries)
        begins = np.cumsum([0, *(len(query) for query in queries)])[:-1]
        scores = np.full((len(queries), len(self._lengths)), -np.inf, dtype=np.float32)
        for chunks in self._parts(len(tokens)):
            first = self._ends[chunks[0]] - self._lengths[chunks[0]]
            part = self._vectors[first : self._ends[chunks[-1]]].astype(np.float32)
            offsets = self._ends[chunks] - self._lengths[chunks] - first
            nearest = np.maximum.reduceat(tokens @ part.T, offsets, axis=1)  # (query tokens, chunks)
            scores[:, chunks] = np.add.reduceat(nearest, begins, axis=0)
        return scores

    def _parts(self, tokens: int) -> Iterator[npt.NDArray[np.int64]]:
        """The numbers of chunks, in parts that have a bounded number of vectors."""
        budget = max(1, _TOKEN_NUMBERS // tokens)
        part = (self._ends[self._found] - 1) // budget
        for number in np.unique(part):
            yield self._found[part == number]
