"""Values and helpers that the parts of the conformance suite share. Made from seeds, so that a failure repeats."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ctxindex.types import DocumentRecord, DocumentRevision, StoredChunk, VectorLayout

if TYPE_CHECKING:
    from ctxindex.stores.protocol import Store
    from ctxindex.types import FloatArray

DIM = 8
_IDS = uuid.UUID("6b1f1ab7-0c62-4f0e-9a57-3d2c8e2a9c01")

NASTY_DOC_IDS = (
    "plain.txt",
    'it\'s "a" file/ü 漢.txt',
    "a\\b",
    "%_",
    "two\nlines",
    " leading and trailing ",
    "semi;colon--'; DROP TABLE x",
    "{curly} [square] $dollar #hash?query=1&x",
    "e\u0301 is not \u00e9",
    "🙂/" + "long" * 60,
)


class Connecting:
    """What a subclass gives: how to open an index."""

    def connect(self, path: Path, index: str) -> Store:
        """Open index `index` of the database in the folder `path` (a fresh one for each test)."""
        raise NotImplementedError

    @contextmanager
    def opened(self, path: Path, index: str = "index") -> Iterator[Store]:
        """A connection that is closed in the end."""
        store = self.connect(path, index)
        try:
            yield store
        finally:
            store.close()

    @contextmanager
    def created(self, path: Path, index: str = "index", dim: int = DIM) -> Iterator[Store]:
        """A connection to a new, empty index."""
        with self.opened(path, index) as store:
            store.create({"format": 1}, VectorLayout(dim))
            yield store


def unit_vectors(rows: int, dim: int = DIM, seed: int = 0) -> FloatArray:
    """(rows, dim) float32 with unit rows."""
    vectors = np.random.default_rng(seed).standard_normal((rows, dim)).astype(np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)


def document(
    doc_id: str,
    revision: str = "r1",
    n_chunks: int = 3,
    *,
    dim: int = DIM,
    seed: int = 0,
    texts: Sequence[str] | None = None,
    title: str | None = None,
    metadata: Mapping[str, Any] | Sequence[Mapping[str, Any]] = (),
) -> DocumentRevision:
    """A document revision; `metadata` for all chunks or one mapping a chunk."""
    texts = texts if texts is not None else [f"{doc_id} {revision} chunk {ordinal}" for ordinal in range(n_chunks)]
    each = [metadata] * len(texts) if isinstance(metadata, Mapping) else list(metadata) or [{}] * len(texts)
    vectors = unit_vectors(len(texts), dim, seed=uuid.uuid5(_IDS, f"{doc_id}|{revision}|{seed}").int % 2**32)
    chunks = []
    start = 0
    for ordinal, text in enumerate(texts):
        chunk_id = str(uuid.uuid5(_IDS, f"{doc_id}|{revision}|{ordinal}"))
        end = start + len(text)
        chunks.append(
            StoredChunk(
                chunk_id, doc_id, revision, ordinal, start, end, text, title,
                dict(each[ordinal]), ordinal // 2, 10 * ordinal, vectors[ordinal],
            )
        )  # fmt: skip
        start = end
    record = DocumentRecord(doc_id, revision, f"hash of {doc_id}", len(chunks), 7 * len(chunks), title=title)
    return DocumentRevision(record, tuple(chunks))


def assert_same_chunks(found: Sequence[StoredChunk], expected: Sequence[StoredChunk], *, vectors: bool = True) -> None:
    """Field by field; vectors to 1e-6."""
    assert [chunk.ordinal for chunk in found] == [chunk.ordinal for chunk in expected]
    for left, right in zip(found, expected, strict=True):
        for name in ("chunk_id", "doc_id", "revision", "start", "end", "text", "title", "window", "context_tokens"):
            assert getattr(left, name) == getattr(right, name), name
        assert_same_json(dict(left.metadata), dict(right.metadata))
        if not vectors:
            assert left.vector is None
            continue
        assert left.vector is not None
        assert right.vector is not None
        assert left.vector.dtype == np.float32
        assert left.vector.shape == right.vector.shape
        np.testing.assert_allclose(left.vector, right.vector, rtol=0, atol=1e-6)


def assert_same_json(found: Any, expected: Any) -> None:
    """Equal, and of equal types: True is not 1, 1 is not 1.0. A tuple counts as a list."""
    if isinstance(expected, tuple):
        expected = list(expected)
    assert type(found) is type(expected), (found, expected)
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            assert_same_json(found[key], value)
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for left, right in zip(found, expected, strict=True):
            assert_same_json(left, right)
    else:
        assert found == expected


def raises(error: type[Exception], call: Any, *arguments: Any) -> Exception:
    """The exception of that type that `call(*arguments)` raises (pytest is not imported here)."""
    try:
        call(*arguments)
    except error as caught:
        return caught
    raise AssertionError(f"{call} did not raise {error.__name__}")


def indexed(store: Store) -> dict[str, DocumentRecord]:
    """All records by doc_id."""
    return {record.doc_id: record for record in store.records()}
