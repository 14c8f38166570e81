"""The store seam on LanceDB: two tables an index, `<index>__g1` for chunks and `<index>__g1_docs` for records.

Where the index has a corpus context, a third, `<index>__g1_context`, holds it in a single row.

The records table is made last and carries the spec in its schema, so an index exists entirely or not at all. A batch
of documents is one commit of the chunks table, so that readers see each document in one revision at any time
and need not ask which is live. Knows no SQL dialect (`sql`), no Arrow (`rows`) and no LanceDB call (`database`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from heapq import nlargest
from itertools import islice
from typing import TYPE_CHECKING, Any

from ctxindex.errors import IndexNotFoundError, StoreError
from ctxindex.stores.facets import reduce_filter
from ctxindex.stores.payload import to_hit
from ctxindex.stores.protocol import Counts
from ctxindex.stores.replacing import recover_documents, replace_documents
from ctxindex.stores.vectors import check_query, max_sim_joined
from ctxindex_lancedb import sql

if TYPE_CHECKING:
    from ctxindex.stores.filters import Filter
    from ctxindex.stores.protocol import StoreLocation
    from ctxindex.types import DocumentRecord, DocumentRevision, FloatArray, Hit, StoredChunk, VectorLayout
    from ctxindex_lancedb.database import Database

GENERATION = 1
_REPLACES_BETWEEN_UPKEEP = 100
"""Every commit leaves a fragment, and every later commit lists them all: a long run must not wait for its end."""

_SCANNED_AT_ONCE = 256
"""Multivectors in memory at once: about 17 MB in float32, at 128 vectors of 128 numbers."""

_ATTEMPTS = 5
"""How often a reader looks again when a writer was faster."""

_NAMES_AT_ONCE = 1000
"""doc_ids in one condition, so that the SQL stays short enough to parse quickly."""


class LanceStore:
    """One index in one LanceDB database."""

    def __init__(self, database: Database, index: str, where: str) -> None:
        self._database = database
        self._lock = f"{index}.lock"
        self._where = where
        self._chunks = f"{index}__g{GENERATION}"
        self._documents = f"{index}__g{GENERATION}_docs"
        self._context = f"{index}__g{GENERATION}_context"
        self._known_layout: VectorLayout | None = None
        self._replaces = 0

    @classmethod
    def connect(cls, location: StoreLocation) -> LanceStore:
        """Open `location.url` (`s3://…`, `gs://…`, `az://…`), or the folder `lancedb` in `location.path`.

        Credentials for object stores come from the environment (`AWS_ACCESS_KEY_ID` and so on).
        """
        from ctxindex_lancedb.database import Database

        if location.url and location.url.startswith(("http://", "https://")):
            raise StoreError(f"LanceDB is not served at {location.url}: for a Qdrant server, add --store qdrant")
        folder = None if location.url else location.path / "lancedb"
        uri = location.url or str(folder)
        where = f"lancedb:{uri} index {location.index}"
        return cls(Database(uri, folder=folder, label=where), location.index, where)

    @property
    def location(self) -> str:
        """The folder or URL, and the index."""
        return self._where

    def read_spec(self) -> dict[str, Any] | None:
        """From the schema of the records table."""
        from ctxindex_lancedb import rows

        schema = self._database.schema(self._documents)
        return None if schema is None else rows.spec_of(schema)

    def create(self, spec: Mapping[str, Any], layout: VectorLayout, context: bytes | None = None) -> None:
        """Chunks and context first, records last: until then there is no index."""
        from ctxindex_lancedb import rows

        if self.read_spec() is not None:
            raise StoreError(f"{self._where} exists already")
        self._database.create(self._chunks, rows.chunk_schema(layout))
        self._database.drop(self._context)  # of a killed `create`
        if context is not None:
            self._database.create(self._context, rows.CONTEXT)
            self._database.add(self._context, rows.context_table(context))
        self._database.create(self._documents, rows.document_schema(spec))

    def read_context(self) -> bytes | None:
        """From its table, where there is one."""
        from ctxindex_lancedb import rows

        self._layout()
        if self._database.schema(self._context) is None:
            return None
        return rows.context_of(list(self._database.scan(self._context, rows.CONTEXT.names)))

    def writing(self) -> AbstractContextManager[None]:
        """A lock on a file beside the tables; none in an object store."""
        return self._database.writing(self._lock)

    def records(self, doc_ids: Collection[str] | None = None) -> Iterator[DocumentRecord]:
        """Read in batches while the caller consumes them."""
        from ctxindex_lancedb import rows

        self._layout()
        groups = [None] if doc_ids is None else [sql.among("doc_id", names) for names in _groups(doc_ids)]
        scans = (self._database.scan(self._documents, rows.DOCUMENTS.names, where) for where in groups)
        return (record for scan in scans for batch in scan for record in rows.records_from(batch))

    def put_records(self, records: Sequence[DocumentRecord]) -> None:
        """One commit."""
        from ctxindex_lancedb import rows

        self._layout()
        if records:
            self._database.merge(self._documents, "doc_id", rows.record_table(records))

    def delete_records(self, doc_ids: Collection[str]) -> None:
        """One commit for a thousand documents."""
        for names in _groups(doc_ids):
            self._database.delete(self._documents, sql.among("doc_id", names))

    def write_chunks(self, chunks: Sequence[StoredChunk]) -> None:
        """All chunks of their documents in one commit, which drops whatever else these documents had."""
        from ctxindex_lancedb import rows

        layout = self._layout()
        if not chunks:
            return
        table = rows.chunk_table(chunks, layout)
        theirs = sql.among("doc_id", list(dict.fromkeys(chunk.doc_id for chunk in chunks)))
        if self._database.count(self._chunks, theirs):
            self._database.merge(self._chunks, "chunk_id", table, drop=theirs)
        else:  # a merge reads the whole key column: for documents that are new, adding is all there is to do
            self._database.add(self._chunks, table)

    def delete_chunks(self, live: Mapping[str, str]) -> None:
        """One commit for a thousand documents."""
        for names in _groups(live):
            self._database.delete(self._chunks, sql.other_revisions({name: live[name] for name in names}))

    def count_chunks(self, doc_id: str, revision: str) -> int:
        """Chunks of that revision."""
        return self._database.count(
            self._chunks, f"doc_id = {sql.quoted(doc_id)} AND revision = {sql.quoted(revision)}"
        )

    def replace(self, documents: Sequence[DocumentRevision]) -> None:
        """Three commits for the batch: intent, chunks, done; now and then upkeep."""
        self._layout()
        replace_documents(self, documents, atomic=True)
        self._replaces += 1
        if self._replaces % _REPLACES_BETWEEN_UPKEEP == 0:
            self.maintain()

    def recover(self) -> list[str]:
        """See `ctxindex.stores.replacing`."""
        self._layout()
        return recover_documents(self, atomic=True)

    def delete(self, doc_ids: Collection[str]) -> None:
        """Chunks, then records: what is left of a killed delete is still listed, and deleted next time."""
        self._layout()
        self.delete_chunks(dict.fromkeys(doc_ids, ""))
        self.delete_records(doc_ids)

    def search(self, query: FloatArray, k: int, where: Filter | None = None) -> list[Hit]:
        """Exact: every chunk that matches is compared."""
        from ctxindex_lancedb import rows

        layout = self._layout()
        query = check_query(query, layout, self._where)
        if k < 1:
            return []
        condition = None if where is None else sql.condition(reduce_filter(where))
        columns = list(rows.CHUNK_COLUMNS)
        if layout.multivector:
            return self._best_multivectors(query, k, condition)
        table = self._database.nearest(self._chunks, query, k, columns, condition)
        distances = table.column("_distance").to_pylist()
        return [to_hit(chunk, 1 - distance) for chunk, distance in zip(rows.chunks_from(table), distances, strict=True)]

    def _best_multivectors(self, query: FloatArray, k: int, condition: str | None) -> list[Hit]:
        """By exact MaxSim over a scan of the vectors, which takes a seventh of the time of Lance's own (0.40).

        The chunks themselves are read afterwards; where a writer was faster, both are done again.
        """
        import pyarrow as pa  # type: ignore[import-untyped]

        from ctxindex_lancedb import rows

        hits: list[Hit] = []
        for _ in range(_ATTEMPTS):
            scores = dict(nlargest(k, self._max_sims(query, condition), key=lambda found: found[1]))
            batches = list(self._database.scan(self._chunks, list(rows.CHUNK_COLUMNS), sql.among("chunk_id", scores)))
            chunks = rows.chunks_from(pa.Table.from_batches(batches)) if batches else []
            hits = [to_hit(chunk, scores[chunk.chunk_id], best=float(len(query))) for chunk in chunks]
            if len(hits) == len(scores):
                break
        return sorted(hits, key=lambda hit: -hit.score)

    def _max_sims(self, query: FloatArray, condition: str | None) -> Iterator[tuple[str, float]]:
        """The id and the score of every chunk that matches."""
        from ctxindex_lancedb import rows

        for batch in self._database.scan(self._chunks, ["chunk_id", "vector"], condition, rows=_SCANNED_AT_ONCE):
            if len(batch):
                scores = max_sim_joined(query, *rows.joined_multivectors(batch.column("vector")))
                yield from zip(batch.column("chunk_id").to_pylist(), scores.tolist(), strict=True)

    def chunks(self, doc_id: str, *, vectors: bool = False) -> list[StoredChunk]:
        """By ordinal."""
        import pyarrow as pa

        from ctxindex_lancedb import rows

        self._layout()
        columns = [*rows.CHUNK_COLUMNS, *(["vector"] if vectors else [])]
        batches = list(self._database.scan(self._chunks, columns, f"doc_id = {sql.quoted(doc_id)}"))
        found = rows.chunks_from(pa.Table.from_batches(batches)) if batches else []
        return sorted(found, key=lambda chunk: chunk.ordinal)

    def counts(self) -> Counts:
        """From the records."""
        return Counts.of(self.records())

    def maintain(self) -> None:
        """Compact and prune where many small writes have left a trace."""
        self._layout()
        for table in (self._chunks, self._documents):
            self._database.maintain(table)

    def close(self) -> None:
        """Release handles."""
        self._database.close()

    def _layout(self) -> VectorLayout:
        """What the vectors are; raises where there is no index, and so begins every method that needs one."""
        from ctxindex_lancedb import rows

        if self._known_layout is None:
            schema = self._database.schema(self._chunks) if self.read_spec() is not None else None
            if schema is None:
                raise IndexNotFoundError(f"{self._where} does not exist")
            self._known_layout = rows.layout_of(schema)
        return self._known_layout


def _groups(names: Collection[str]) -> Iterator[list[str]]:
    rest = iter(dict.fromkeys(names))
    while group := list(islice(rest, _NAMES_AT_ONCE)):
        yield group
