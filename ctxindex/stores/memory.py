"""A store in this process's memory: the fake beside the seam, for the tests of other rooms and for experiments.

Ranks by brute force. What is stored outlives a connection (as long as the process lives), so that tests can close and
reopen; `MemoryStore.forget()` empties everything. Takes the long way of `replacing`, not the atomic one, on purpose:
whoever tests against it sees the states that Qdrant goes through.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, cast

from ctxindex.errors import IndexNotFoundError, StoreError
from ctxindex.stores.filters import matches
from ctxindex.stores.payload import filter_values, to_hit
from ctxindex.stores.protocol import Counts, StoreLocation
from ctxindex.stores.replacing import recover_documents, replace_documents
from ctxindex.stores.vectors import as_stored, check_chunks, check_query, rank_again

if TYPE_CHECKING:
    from ctxindex.stores.filters import Filter
    from ctxindex.types import DocumentRecord, DocumentRevision, FloatArray, Hit, StoredChunk, VectorLayout


@dataclass
class _Contents:
    spec: dict[str, Any]
    layout: VectorLayout
    context: bytes | None = None
    records: dict[str, DocumentRecord] = field(default_factory=dict)
    chunks: dict[str, StoredChunk] = field(default_factory=dict)


class MemoryStore:
    """An index in a dictionary; connections with the same path and index share it."""

    _indexes: ClassVar[dict[tuple[str, str], _Contents]] = {}

    def __init__(self, location: StoreLocation) -> None:
        self._key = (str(location.path), location.index)

    @classmethod
    def connect(cls, location: StoreLocation) -> MemoryStore:
        """A connection; nothing is made."""
        return cls(location)

    @classmethod
    def forget(cls) -> None:
        """Empty all indexes of this process."""
        cls._indexes.clear()

    @property
    def location(self) -> str:
        """For people."""
        return f"memory:{self._key[0]} index {self._key[1]}"

    def read_spec(self) -> dict[str, Any] | None:
        """A copy of what `create` was given."""
        contents = self._indexes.get(self._key)
        return copy.deepcopy(contents.spec) if contents else None

    def create(self, spec: Mapping[str, Any], layout: VectorLayout, context: bytes | None = None) -> None:
        """Make the index."""
        if self._key in self._indexes:
            raise StoreError(f"{self.location} exists already")
        self._indexes[self._key] = _Contents(copy.deepcopy(dict(spec)), layout, context)

    def read_context(self) -> bytes | None:
        """What `create` was given."""
        return self._open().context

    def writing(self) -> AbstractContextManager[None]:
        """Nobody else can reach it."""
        return nullcontext()

    def records(self, doc_ids: Collection[str] | None = None) -> Iterator[DocumentRecord]:
        """The records named, or all."""
        records = self._open().records
        names = list(records) if doc_ids is None else list(dict.fromkeys(doc_ids))
        return iter([records[name] for name in names if name in records])

    def put_records(self, records: Sequence[DocumentRecord]) -> None:
        """Insert or overwrite."""
        self._open().records.update((record.doc_id, record) for record in records)

    def delete_records(self, doc_ids: Collection[str]) -> None:
        """Remove records only."""
        records = self._open().records
        for doc_id in doc_ids:
            records.pop(doc_id, None)

    def write_chunks(self, chunks: Sequence[StoredChunk]) -> None:
        """Insert or overwrite."""
        contents = self._open()
        check_chunks(chunks, contents.layout)
        if contents.layout.multivector:
            chunks = [replace(chunk, vector=as_stored(cast("FloatArray", chunk.vector))) for chunk in chunks]
        contents.chunks.update((chunk.chunk_id, chunk) for chunk in chunks)

    def delete_chunks(self, live: Mapping[str, str]) -> None:
        """Remove every other revision of these documents."""
        chunks = self._open().chunks
        for chunk in list(chunks.values()):
            if live.get(chunk.doc_id, chunk.revision) != chunk.revision:
                del chunks[chunk.chunk_id]

    def count_chunks(self, doc_id: str, revision: str) -> int:
        """Chunks of that revision."""
        return sum((chunk.doc_id, chunk.revision) == (doc_id, revision) for chunk in self._open().chunks.values())

    def replace(self, documents: Sequence[DocumentRevision]) -> None:
        """The long way: intent, chunks, flip, old chunks, done."""
        replace_documents(self, documents, atomic=False)

    def recover(self) -> list[str]:
        """End what was interrupted."""
        return recover_documents(self, atomic=False)

    def delete(self, doc_ids: Collection[str]) -> None:
        """Remove chunks, then records."""
        self.delete_chunks(dict.fromkeys(doc_ids, ""))
        self.delete_records(doc_ids)

    def search(self, query: FloatArray, k: int, where: Filter | None = None) -> list[Hit]:
        """Cosine or MaxSim against every live chunk that matches."""
        import numpy as np

        layout = self._open().layout
        query = check_query(query, layout, self.location)
        found = [chunk for chunk in self._live() if matches(where, filter_values(chunk))]
        if not found or k < 1:
            return []
        if layout.multivector:
            return rank_again(query, found, k)
        vectors = np.stack([np.asarray(chunk.vector) for chunk in found])
        norms = np.linalg.norm(vectors, axis=1) * np.linalg.norm(query)
        scores = vectors @ query / np.maximum(norms, np.finfo(np.float32).tiny)
        order = np.argsort(-scores, kind="stable")[:k]
        return [to_hit(found[position], float(scores[position])) for position in order]

    def chunks(self, doc_id: str, *, vectors: bool = False) -> list[StoredChunk]:
        """Live chunks by ordinal."""
        found = sorted((chunk for chunk in self._live() if chunk.doc_id == doc_id), key=lambda chunk: chunk.ordinal)
        return found if vectors else [replace(chunk, vector=None) for chunk in found]

    def counts(self) -> Counts:
        """From the records and the live chunks."""
        return Counts.of(self.records())

    def maintain(self) -> None:
        """Nothing to do."""
        self._open()

    def close(self) -> None:
        """Nothing to release."""

    def _open(self) -> _Contents:
        try:
            return self._indexes[self._key]
        except KeyError:
            raise IndexNotFoundError(f"{self.location} does not exist") from None

    def _live(self) -> list[StoredChunk]:
        contents = self._open()
        live = {record.doc_id: record.revision for record in list(contents.records.values())}
        return [chunk for chunk in list(contents.chunks.values()) if live.get(chunk.doc_id) == chunk.revision]
