"""Conformance: an index whose chunks have several vectors each, stored in float16 and ranked by exact MaxSim."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ctxindex.errors import StoreError
from ctxindex.stores.conformance.samples import DIM, Connecting, document, indexed, raises, unit_vectors
from ctxindex.stores.filters import Condition
from ctxindex.types import MULTIVECTOR_NUMBERS, DocumentRevision, StoredChunk, VectorLayout

if TYPE_CHECKING:
    from ctxindex.stores.protocol import Store
    from ctxindex.types import FloatArray, Hit

RAGGED = (1, 300, 2, 17, 128)


class MultivectorConformance(Connecting):
    """A store whose scores come from a server that rounds queries may raise `multivector_tolerance`."""

    multivector_tolerance = 1e-4
    """How far a score may be from the exact one, for every query vector (whose part of the score is at most 1)."""

    def test_multivectors_come_back(self, tmp_path: Path) -> None:
        """From 1 to 300 vectors a chunk, in order, as float16 keeps them."""
        given = multivector_document("a", lengths=RAGGED)
        with self.multivectors(tmp_path) as store:
            store.replace([given, multivector_document("b")])
            assert_stored(store, given)
            assert all(chunk.vector is None for chunk in store.chunks("a"))
        with self.opened(tmp_path) as store:
            assert_stored(store, given)

    def test_max_sim_ranks_exactly(self, tmp_path: Path) -> None:
        """Order and scores of queries of 1 to 32 vectors against numpy, before and after upkeep."""
        documents = [multivector_document(f"d{number}", lengths=RAGGED, dim=32) for number in range(12)]
        with self.multivectors(tmp_path, dim=32) as store:
            store.replace(documents[:5])
            store.replace(documents[5:])
            for rows in (1, 3, 32):
                query = unit_vectors(rows, 32, seed=rows)
                for k in (1, 7, 100):
                    self.assert_max_sim(store.search(query, k), documents, query, k)
            single = unit_vectors(1, 32, seed=4)
            assert store.search(single[0], 3) == store.search(single, 3)
            store.maintain()
            self.assert_max_sim(store.search(query, 9), documents, query, 9)

    def test_negative_products_count(self, tmp_path: Path) -> None:
        """A chunk whose best product is -1 scores -1: nothing is padded, nothing is floored at 0."""
        axis = np.eye(1, DIM, dtype=np.float32)
        with self.multivectors(tmp_path) as store:
            store.replace([with_vectors(document("a", n_chunks=2), [-axis, np.repeat(-axis, 40, axis=0)])])
            hits = store.search(axis, 5)
            np.testing.assert_allclose([hit.score for hit in hits], [-1, -1], atol=1e-5)

    def test_filters_come_before_max_sim(self, tmp_path: Path) -> None:
        """As many hits as asked for, where so many match."""
        documents = [multivector_document(f"d{number}", metadata={"n": number}) for number in range(40)]
        query = unit_vectors(4)
        with self.multivectors(tmp_path) as store:
            store.replace(documents)
            for number in (0, 39):
                hits = store.search(query, 2, Condition("n", "eq", number))
                self.assert_max_sim(hits, [documents[number]], query, 2)
            hits = store.search(query, 5, Condition("doc_id", "in", ("d3", "d4")))
            self.assert_max_sim(hits, documents[3:5], query, 5)

    def test_multivectors_are_replaced_and_deleted(self, tmp_path: Path) -> None:
        """Longer, shorter, gone; neighbours untouched."""
        kept = multivector_document("kept")
        with self.multivectors(tmp_path) as store:
            store.replace([kept, multivector_document("a", lengths=RAGGED)])
            for revision, lengths in (("r2", (3,)), ("r3", (40, 1, 2, 9, 8, 7)), ("r3", (40, 1, 2, 9, 8, 7))):
                new = multivector_document("a", revision, lengths=lengths)
                store.replace([new])
                assert_stored(store, new)
                assert_stored(store, kept)
                query = unit_vectors(2, seed=8)
                self.assert_max_sim(store.search(query, 50), [kept, new], query, 50)
            store.delete(["a"])
            assert {hit.doc_id for hit in store.search(unit_vectors(2), 50)} == {"kept"}

    def test_killed_replace_of_multivectors(self, tmp_path: Path) -> None:
        """What was written and never flipped is rolled forward, as of any other index."""
        old, new = multivector_document("a"), multivector_document("a", "r2", lengths=(5, 6))
        with self.multivectors(tmp_path) as store:
            store.replace([old])
            store.put_records([replace(old.record, pending=new.record)])
            if hasattr(store, "write_chunks"):
                store.write_chunks(new.chunks)
        with self.opened(tmp_path) as store:
            rolled_back = store.recover()
            assert_stored(store, old if rolled_back else new)
            assert indexed(store)["a"].pending is None

    def test_wrong_multivectors_are_errors(self, tmp_path: Path) -> None:
        """Rather than wrong answers: shape, size, emptiness, zero vectors; the store stays usable."""
        good = multivector_document("a")
        wide = 8191
        rows = MULTIVECTOR_NUMBERS // wide + 1
        with self.multivectors(tmp_path) as store:
            store.replace([good])
            for vector in (
                unit_vectors(1)[0],
                unit_vectors(3, DIM + 1),
                unit_vectors(0),
                np.zeros((2, DIM), np.float32),
            ):
                raises(StoreError, store.replace, [with_vectors(document("b", n_chunks=1), [vector])])
                store.recover()
            raises(StoreError, store.search, unit_vectors(2, DIM + 1), 3)
            raises(StoreError, store.search, unit_vectors(1, DIM + 1)[0], 3)
            raises(StoreError, store.search, unit_vectors(0), 3)
            assert_stored(store, good)
        with self.multivectors(tmp_path, index="wide", dim=wide) as store:
            huge = with_vectors(document("b", n_chunks=1), [np.ones((rows, wide), np.float32)])
            error = raises(StoreError, store.replace, [huge])
            assert f"{MULTIVECTOR_NUMBERS:,}" in str(error)
        with self.created(tmp_path, index="single") as store:
            raises(StoreError, store.search, unit_vectors(2), 3)

    @contextmanager
    def multivectors(self, path: Path, index: str = "index", dim: int = DIM) -> Iterator[Store]:
        """A connection to a new, empty index of multivectors."""
        with self.opened(path, index) as store:
            store.create({"format": 1}, VectorLayout(dim, multivector=True))
            yield store

    def assert_max_sim(self, hits: list[Hit], documents: list[DocumentRevision], query: FloatArray, k: int) -> None:
        """`hits` are the k best of `documents`; neighbours closer than the tolerance may change places."""
        exact = {
            chunk.chunk_id: float((query.astype(np.float64) @ rounded(chunk).astype(np.float64).T).max(axis=1).sum())
            for each in documents
            for chunk in each.chunks
        }
        best = sorted(exact.values(), reverse=True)[:k]
        near = self.multivector_tolerance * len(query)
        np.testing.assert_allclose([hit.score for hit in hits], best, rtol=0, atol=near)
        np.testing.assert_allclose([exact[hit.chunk_id] for hit in hits], best, rtol=0, atol=near)
        assert len({hit.chunk_id for hit in hits}) == len(hits)
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def multivector_document(
    doc_id: str,
    revision: str = "r1",
    *,
    lengths: Sequence[int] = (4, 1, 9),
    dim: int = DIM,
    metadata: dict[str, object] | None = None,
) -> DocumentRevision:
    """A document whose chunks have that many unit vectors."""
    plain = document(doc_id, revision, len(lengths), dim=dim, metadata=metadata or {})
    seed = sum(map(ord, doc_id + revision))
    vectors = [unit_vectors(length, dim, seed=seed + ordinal) for ordinal, length in enumerate(lengths)]
    return with_vectors(plain, vectors)


def with_vectors(given: DocumentRevision, vectors: Sequence[FloatArray]) -> DocumentRevision:
    """The same document with other vectors, one array a chunk."""
    chunks = [replace(chunk, vector=vector) for chunk, vector in zip(given.chunks, vectors, strict=True)]
    return DocumentRevision(given.record, tuple(chunks))


def rounded(chunk: StoredChunk) -> FloatArray:
    """A chunk's multivector as float16 keeps it, as float32."""
    return np.asarray(chunk.vector, dtype=np.float16).astype(np.float32)


def assert_stored(store: Store, given: DocumentRevision) -> None:
    """The document's multivectors are in the store: same chunks, same lengths, same order, rounded to float16."""
    found = store.chunks(given.record.doc_id, vectors=True)
    assert [chunk.chunk_id for chunk in found] == [chunk.chunk_id for chunk in given.chunks]
    for chunk, expected in zip(found, given.chunks, strict=True):
        assert chunk.vector is not None
        assert chunk.vector.dtype == np.float32
        np.testing.assert_allclose(chunk.vector, rounded(expected), rtol=0, atol=1e-6)
