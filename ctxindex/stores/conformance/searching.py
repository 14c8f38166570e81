"""Conformance: ranking is exact, complete, and safe to ask for from several threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ctxindex.errors import StoreError
from ctxindex.stores.conformance.samples import DIM, Connecting, document, raises, unit_vectors
from ctxindex.stores.filters import Condition
from ctxindex.types import DocumentRevision, Hit, StoredChunk

if TYPE_CHECKING:
    from ctxindex.types import FloatArray


class SearchingConformance(Connecting):
    """Search against an exact ranking in numpy."""

    def test_ranking_is_exact(self, tmp_path: Path) -> None:
        """Order and scores to 1e-5, also for queries that are no unit vectors."""
        documents = _corpus()
        with self.created(tmp_path, dim=32) as store:
            store.replace(documents[:20])
            store.replace(documents[20:])
            for row, scale in zip(unit_vectors(6, 32, seed=5), (1.0, 1.0, 1e-3, 17.0, 1e3, -1.0), strict=True):
                query = np.asarray(row * scale, dtype=np.float32)
                for k in (1, 7, 50):
                    assert_ranking(store.search(query, k), documents, query, k)

    def test_hits_carry_the_chunk(self, tmp_path: Path) -> None:
        """A chunk's own vector finds it, with all that a hit shows."""
        target = document("a", metadata={"page": 3, "tags": ["x"]}, title="Title")
        with self.created(tmp_path) as store:
            store.replace([target, document("b")])
            chunk = target.chunks[1]
            assert chunk.vector is not None
            hit = store.search(chunk.vector, 1)[0]
            assert abs(hit.score - 1) < 1e-5
            assert hit.score <= 1
            for name in ("doc_id", "revision", "chunk_id", "ordinal", "start", "end", "text", "title"):
                assert getattr(hit, name) == getattr(chunk, name)
            assert dict(hit.metadata) == {"page": 3, "tags": ["x"]}

    def test_k_larger_than_the_index(self, tmp_path: Path) -> None:
        """All chunks, once each; none where k is 0."""
        with self.created(tmp_path) as store:
            store.replace([document("a", n_chunks=4), document("b", n_chunks=3)])
            hits = store.search(unit_vectors(1)[0], 1000)
            assert len(hits) == len({hit.chunk_id for hit in hits}) == 7
            assert store.search(unit_vectors(1)[0], 0) == []

    def test_wrong_dimension_is_an_error(self, tmp_path: Path) -> None:
        """Rather than a wrong answer."""
        with self.created(tmp_path) as store:
            store.replace([document("a")])
            raises(StoreError, store.search, unit_vectors(1, DIM + 1)[0], 3)
            raises(StoreError, store.replace, [document("b", dim=DIM + 1)])

    def test_filter_comes_before_ranking(self, tmp_path: Path) -> None:
        """The one chunk that matches is found however far it is from the query."""
        with self.created(tmp_path) as store:
            store.replace([document(f"d{number}", metadata={"n": number}) for number in range(60)])
            for number in (0, 31, 59):
                hits = store.search(unit_vectors(1)[0], 3, Condition("n", "eq", number))
                assert [hit.doc_id for hit in hits] == [f"d{number}"] * 3

    def test_threads_may_search_at_once(self, tmp_path: Path) -> None:
        """Four threads get what one gets."""
        documents = _corpus()
        queries = unit_vectors(24, 32, seed=9)
        with self.created(tmp_path, dim=32) as store:
            store.replace(documents)

            def ask(row: int) -> tuple[list[Hit], list[StoredChunk], int]:
                return store.search(queries[row], 5), store.chunks(f"d{row}"), store.counts().chunks

            with ThreadPoolExecutor(4) as pool:
                answers = list(pool.map(ask, range(24)))
            for row, (hits, chunks, total) in enumerate(answers):
                assert_ranking(hits, documents, queries[row], 5)
                assert len(chunks) == 6
                assert total == 240


def assert_ranking(hits: list[Hit], documents: list[DocumentRevision], query: FloatArray, k: int) -> None:
    """`hits` are the k nearest of `documents`; neighbours closer than 1e-6 may change places."""
    chunks = [chunk for each in documents for chunk in each.chunks]
    vectors = np.stack([np.asarray(chunk.vector, dtype=np.float64) for chunk in chunks])
    wide = query.astype(np.float64)
    scores = vectors @ wide / (np.linalg.norm(vectors, axis=1) * np.linalg.norm(wide))
    best = np.sort(scores)[::-1][:k]
    of_chunk = {chunk.chunk_id: score for chunk, score in zip(chunks, scores, strict=True)}
    np.testing.assert_allclose([hit.score for hit in hits], best, rtol=0, atol=1e-5)
    np.testing.assert_allclose([of_chunk[hit.chunk_id] for hit in hits], best, rtol=0, atol=1e-6)


def _corpus() -> list[DocumentRevision]:
    return [document(f"d{number}", n_chunks=6, dim=32) for number in range(40)]
