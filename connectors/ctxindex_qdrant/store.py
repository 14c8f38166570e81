"""The store seam on Qdrant: ids, payloads, batches, the write order, and which chunks are live.

Qdrant has no transactions, so while a document is replaced the chunks of two revisions lie side by side. Its record
says which one is live, and every reader here asks the records. Knows neither engine, only `engine.Engine`.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from ctxindex.errors import StoreError
from ctxindex.stores.batching import batches
from ctxindex.stores.facets import reduce_filter
from ctxindex.stores.payload import from_payload, to_hit, to_payload
from ctxindex.stores.protocol import Counts, StoreLocation
from ctxindex.stores.replacing import recover_documents, replace_documents
from ctxindex.stores.vectors import SPARE_CANDIDATES, as_stored, check_chunks, check_query, rank_again
from ctxindex.types import DocumentRecord
from ctxindex_qdrant import filters
from ctxindex_qdrant.engine import Engine, Point, Scored

if TYPE_CHECKING:
    from ctxindex.stores.filters import Filter
    from ctxindex.types import DocumentRevision, FloatArray, Hit, StoredChunk, VectorLayout

T = TypeVar("T")

_RECORD_IDS = uuid.UUID("0d6c8f0e-5b8e-4c1b-9a7d-6f4e2c1a9b30")
_NAMES_AT_ONCE = 100
"""Documents in one filter: each is a clause of its own."""

_SPARE_HITS = 8
_ATTEMPTS = 5
"""How often a reader looks again when a writer was faster."""


class QdrantStore:
    """One index on one engine."""

    def __init__(self, engine: Engine, *, int8: bool = False) -> None:
        self._engine = engine
        self._int8 = int8

    @classmethod
    def connect(cls, location: StoreLocation) -> QdrantStore:
        """A server at `location.url` or at `QDRANT_URL`; without either, the folder `qdrant` in `location.path`.

        A server's key comes from `QDRANT_API_KEY`. The option `embedded` asks for the folder even where `QDRANT_URL` is
        set. The option `quantization=int8` makes an index of multivectors keep them in int8 too and search these
        first, scoring the best again in float16. The URL `:memory:` is the client's own toy server in this process, for
        tests.
        """
        int8 = _wants_int8(location.options)
        url = location.url or ("" if location.options.get("embedded") else os.environ.get("QDRANT_URL", ""))
        if url:
            from ctxindex_qdrant.server import ServerEngine

            return cls(ServerEngine.connect(url, location.index, memory=str(location.path)), int8=int8)
        from ctxindex_qdrant.edge import EdgeEngine

        return cls(EdgeEngine.connect(location.path / "qdrant", location.index), int8=int8)

    @property
    def location(self) -> str:
        """The folder or URL, and the index."""
        return self._engine.label

    def read_spec(self) -> dict[str, Any] | None:
        """What `create` was given."""
        return self._engine.read_spec()

    def create(self, spec: Mapping[str, Any], layout: VectorLayout, context: bytes | None = None) -> None:
        """Make the index."""
        if self._int8 and not layout.multivector:
            raise StoreError("quantization=int8 is for indexes of multivectors; this one has one vector a chunk")
        if self.read_spec() is not None:
            raise StoreError(f"{self.location} exists already")
        self._engine.create(spec, layout, int8=self._int8, context=context)

    def read_context(self) -> bytes | None:
        """What `create` was given."""
        self._engine.layout()
        return self._engine.read_context()

    def writing(self) -> AbstractContextManager[None]:
        """The embedded engine has one user at a time anyway; a server cannot keep others out."""
        return nullcontext()

    def records(self, doc_ids: Collection[str] | None = None) -> Iterator[DocumentRecord]:
        """Read in pages while the caller consumes them."""
        self._engine.layout()
        if doc_ids is None:
            points = self._engine.scroll("docs", None)
        else:
            ids = [_record_id(doc_id) for doc_id in dict.fromkeys(doc_ids)]
            points = (point for group in _groups(ids) for point in self._engine.retrieve("docs", group))
        return (DocumentRecord.from_json(point.payload) for point in points)

    def put_records(self, records: Sequence[DocumentRecord]) -> None:
        """Durable on return."""
        self._engine.layout()
        self._upsert("docs", (Point(_record_id(record.doc_id), record.to_json()) for record in records))

    def delete_records(self, doc_ids: Collection[str]) -> None:
        """Records only."""
        for group in _groups([_record_id(doc_id) for doc_id in doc_ids]):
            self._engine.delete_ids("docs", group)

    def write_chunks(self, chunks: Sequence[StoredChunk]) -> None:
        """In several requests."""
        layout = self._engine.layout()
        check_chunks(chunks, layout)
        self._upsert("chunks", (_point(chunk, layout) for chunk in chunks))

    def delete_chunks(self, live: Mapping[str, str]) -> None:
        """Every other revision of these documents."""
        for group in _groups(list(live)):
            self._engine.delete_where("chunks", filters.other_revisions({name: live[name] for name in group}))

    def count_chunks(self, doc_id: str, revision: str) -> int:
        """Chunks of that revision."""
        return self._engine.count("chunks", filters.of_revision(doc_id, revision))

    def replace(self, documents: Sequence[DocumentRevision]) -> None:
        """Five steps, see `ctxindex.stores.replacing`."""
        self._engine.layout()
        replace_documents(self, documents, atomic=False)

    def recover(self) -> list[str]:
        """See `ctxindex.stores.replacing`."""
        return recover_documents(self, atomic=False)

    def delete(self, doc_ids: Collection[str]) -> None:
        """Chunks, then records: what is left of a killed delete is still listed, and deleted next time."""
        self._engine.layout()
        self.delete_chunks(dict.fromkeys(doc_ids, ""))
        self.delete_records(doc_ids)

    def search(self, query: FloatArray, k: int, where: Filter | None = None) -> list[Hit]:
        """Asks for a few more than k, drops what is not live, and asks for more where too few are left.

        What is not live may also have been replaced between the search and the look at its record, and then its new
        chunks are not among the hits. So where anything is dropped, a search counts only if the records said the same
        before and after it.
        """
        layout = self._engine.layout()
        query = check_query(query, layout, self.location)
        again = layout.multivector and self._engine.rounds_queries
        if k < 1:
            return []
        condition = None if where is None else filters.condition(reduce_filter(where))
        wanted = k + SPARE_CANDIDATES if again else k
        limit, attempts = wanted + _SPARE_HITS, 0
        before: dict[str, str] = {}
        while True:
            found = self._engine.search(query, limit, condition, vectors=again)
            after = self._revisions({_doc_id(hit) for hit in found})
            live = [hit for hit in found if after.get(_doc_id(hit)) == hit.point.payload["revision"]]
            settled = len(live) == len(found) or all(before.get(doc_id) == after[doc_id] for doc_id in after)
            before.update(after)
            if not settled and attempts < _ATTEMPTS:
                attempts += 1
            elif len(live) >= wanted or len(found) < limit:
                return _hits(query, live, k, again=again)
            else:
                limit *= 2

    def chunks(self, doc_id: str, *, vectors: bool = False) -> list[StoredChunk]:
        """Of the live revision; looked up again where a writer replaced it in between."""
        found: list[StoredChunk] = []
        for _ in range(_ATTEMPTS):
            record = next(self.records([doc_id]), None)
            if record is None or not record.revision:
                return []
            points = self._engine.scroll("chunks", filters.of_revision(doc_id, record.revision), vectors=vectors)
            found = [from_payload(point.payload, point.vector) for point in points]
            if len(found) == record.n_chunks:
                break
        return sorted(found, key=lambda chunk: chunk.ordinal)

    def counts(self) -> Counts:
        """From the records."""
        return Counts.of(self.records())

    def maintain(self) -> None:
        """What the engine needs."""
        self._engine.layout()
        self._engine.maintain()

    def close(self) -> None:
        """Release locks and connections."""
        self._engine.close()

    def _revisions(self, doc_ids: Collection[str]) -> dict[str, str]:
        """The live revision of each of these documents."""
        return {record.doc_id: record.revision for record in self.records(doc_ids)}

    def _upsert(self, collection: Any, points: Iterator[Point]) -> None:
        limits = {"max_items": self._engine.max_points, "max_bytes": self._engine.max_bytes}
        for batch in batches(points, **limits, size=_request_bytes):
            self._engine.upsert(collection, batch)


def _hits(query: FloatArray, live: Sequence[Scored], k: int, *, again: bool) -> list[Hit]:
    if again:
        return rank_again(query, [from_payload(hit.point.payload, hit.point.vector) for hit in live], k)
    best = 1.0 if query.ndim == 1 else float(len(query))
    return [to_hit(from_payload(hit.point.payload), hit.score, best=best) for hit in live[:k]]


def _point(chunk: StoredChunk, layout: VectorLayout) -> Point:
    vector = chunk.vector
    if layout.multivector and vector is not None:
        vector = as_stored(vector)  # also where the engine would keep more, so that all engines answer alike
    return Point(chunk.chunk_id, to_payload(chunk), vector)


def _wants_int8(options: Mapping[str, str]) -> bool:
    asked = options.get("quantization")
    if asked not in (None, "int8"):
        raise StoreError(f"quantization={asked} is not known to the Qdrant connector: int8, or leave it out")
    return asked == "int8"


def _doc_id(hit: Scored) -> str:
    return str(hit.point.payload["doc_id"])


def _record_id(doc_id: str) -> str:
    return str(uuid.uuid5(_RECORD_IDS, doc_id))


def _request_bytes(point: Point) -> int:
    """About what the point takes in a request: a float32 in JSON is about 21 characters."""
    numbers = 0 if point.vector is None else point.vector.size
    return 21 * numbers + len(json.dumps(point.payload, ensure_ascii=False).encode()) + 64


def _groups(items: Sequence[T]) -> Iterator[list[T]]:
    rest = iter(items)
    while group := list(islice(rest, _NAMES_AT_ONCE)):
        yield group
