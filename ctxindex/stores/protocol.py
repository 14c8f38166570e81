"""The store seam: one named index in one vector database, document-shaped.

A store keeps three things and nothing else knows where: the index's spec (opaque JSON here), one record a document, and
the chunks with their vectors; and a fourth where the index has one, its corpus context (opaque bytes here). Truth about
what is indexed lives here, so two machines that open the same store agree.

The write order of a replace is the protocol's heart; `ctxindex.stores.replacing` has it, written once, for all.
A reader never sees a document half written: `search` and `chunks` return chunks of live revisions only.

A connector is a class with this shape, registered under the entry-point group `ctxindex.stores`, that passes
`ctxindex.stores.conformance`. Connectors import `ctxindex.stores`, `ctxindex.types` and `ctxindex.errors`, nothing else
of ours.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from pathlib import Path

    from ctxindex.stores.filters import Filter
    from ctxindex.types import DocumentRecord, DocumentRevision, FloatArray, Hit, StoredChunk, VectorLayout


@dataclass(frozen=True, slots=True)
class StoreLocation:
    """Where an index is. A connector reads what concerns it.

    `path` is the folder for an embedded database, `url` the address of a served one (then `path` is not used),
    `options` anything more that a connector documents; `embedded` is set where a person asked for the folder by name,
    so that no address in the environment overrides it. Secrets (API keys) come from the connector's own environment
    variables; they are never part of a location, and never stored.
    """

    index: str
    path: Path
    url: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Counts:
    """Documents with status live, chunks of all live revisions, and documents with status failed.

    A document that failed lately may still have chunks of an earlier revision: it counts as failed, its chunks count.
    A new document whose replace has not yet flipped counts nowhere.
    """

    documents: int
    chunks: int
    failed: int

    @classmethod
    def of(cls, records: Iterable[DocumentRecord]) -> Counts:
        """What the records of an index add up to."""
        documents = chunks = failed = 0
        for record in records:
            failed += record.status == "failed"
            if record.revision:
                documents += record.status == "live"
                chunks += record.n_chunks
        return cls(documents, chunks, failed)


class Store(Protocol):
    """One index in one database.

    Every method may raise `StoreError` with a sentence that says what to do. Methods other than `read_spec`, `create`
    and `close` need an index that exists, and raise `IndexNotFoundError` otherwise. `search`, `chunks`, `records` and
    `counts` may be called from several threads at once; methods that write, from one thread at a time.
    """

    @classmethod
    def connect(cls, location: StoreLocation) -> Store:
        """Open the database; makes nothing until `create`.

        Raises:
            StoreError: the database cannot be reached, or another process holds it.
        """
        ...

    @property
    def location(self) -> str:
        """The database and index for a person to read: no secrets, no absolute path unless one was given."""
        ...

    def read_spec(self) -> dict[str, Any] | None:
        """The spec given to `create`, or None where the index does not exist."""
        ...

    def create(self, spec: Mapping[str, Any], layout: VectorLayout, context: bytes | None = None) -> None:
        """Make an empty index that carries `spec`, and `context` if there is one: some megabytes, never written again.

        Atomic to readers: `read_spec` is None until all is in place, the context too.
        """
        ...

    def read_context(self) -> bytes | None:
        """The corpus context given to `create`, byte for byte; None where there was none."""
        ...

    def writing(self) -> AbstractContextManager[None]:
        """Around a run of writes: keeps other writers of the index out where the database can; readers go on.

        Raises:
            StoreError: on entering, another writer is at work.
        """
        ...

    def records(self, doc_ids: Collection[str] | None = None) -> Iterator[DocumentRecord]:
        """The records of the documents named (those that exist), or of all; in no particular order."""
        ...

    def put_records(self, records: Sequence[DocumentRecord]) -> None:
        """Insert or overwrite records by doc_id. Durable on return."""
        ...

    def replace(self, documents: Sequence[DocumentRevision]) -> None:
        """Make each document's chunks exactly those given, and its record live. Durable on return.

        Killed at any moment, each document keeps either its old chunks or has all of its new ones, and `recover` ends
        the rest. Documents must be distinct; a document may have any number of chunks.
        """
        ...

    def recover(self) -> list[str]:
        """End what a killed run left in flight; returns the doc_ids that were rolled back and must be encoded again."""
        ...

    def delete(self, doc_ids: Collection[str]) -> None:
        """Remove records and chunks; unknown ids are ignored."""
        ...

    def search(self, query: FloatArray, k: int, where: Filter | None = None) -> list[Hit]:
        """The `k` live chunks nearest to `query`, best first, fewer where fewer match.

        In an index of one vector a chunk, `query` is (dim,) float32 of any length, and the score is the cosine. In an
        index of multivectors it is (query vectors, dim) float32 with unit rows, or (dim,) for a single one, and the
        score is MaxSim, not divided by anything. `where` is applied before ranking, so k matching chunks are returned
        where k exist.
        """
        ...

    def chunks(self, doc_id: str, *, vectors: bool = False) -> list[StoredChunk]:
        """All live chunks of a document, by ordinal; empty where there are none."""
        ...

    def counts(self) -> Counts:
        """How much is in the index."""
        ...

    def maintain(self) -> None:
        """Fold away what many small writes leave behind (compaction, index upkeep). Safe at any time."""
        ...

    def close(self) -> None:
        """Release files, locks and connections; harmless when repeated."""
        ...
