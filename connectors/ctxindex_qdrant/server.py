"""A Qdrant server or cloud, through qdrant-client over REST.

Two collections, `<index>__g1` and `<index>__g1_docs`, reached through the aliases `<index>` and `<index>__docs`, which
are set last and in one request: until then there is no index. The spec is metadata of the records' collection. A
corpus context is in a third, `<index>__g1_context` with the alias `<index>__context`, in base64 and in parts that fit
a request. Where a collection is large the server searches its graph, which is approximate; that is the server's to
configure.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import urlsplit

from qdrant_client import QdrantClient, models

from ctxindex.errors import IndexNotFoundError, StoreError
from ctxindex.stores.payload import NUMBERS
from ctxindex.stores.retry import Backoff, retrying
from ctxindex.types import VectorLayout
from ctxindex_qdrant import refusals
from ctxindex_qdrant.engine import (
    KEYWORD_FIELDS,
    MULTIVECTOR,
    OVERSAMPLING,
    VECTOR,
    Collection,
    JsonFilter,
    Point,
    Scored,
    only_vector,
    vector_name,
)

if TYPE_CHECKING:
    from ctxindex.types import FloatArray

T = TypeVar("T")

MEMORY = ":memory:"
TIMEOUT_SECONDS = 60
GENERATION = "g1"
SPEC_KEY = "ctxindex_spec"
_PAGE = 500
_PART_BYTES = 1 << 20
"""Of a corpus context, in one request: far below what servers take (32 MB), and it is read once a process."""

_PROBE = Backoff(tries=2, first=0.2)
"""At connect: who forgot to start the server should not wait to hear it."""

_in_memory: dict[str, QdrantClient] = {}


class ServerEngine:
    """One index on one server."""

    max_points = 256
    max_bytes = 4_000_000
    rounds_queries = False  # it does, to float16; but hits with all their vectors are megabytes, and the error is 1e-4

    def __init__(self, client: QdrantClient, address: str, index: str, *, local: bool = False) -> None:
        self._client = client
        self._address = address
        self._index = index
        self._local = local
        self._aliases: dict[Collection, str] = {"chunks": index, "docs": f"{index}__docs"}
        self._names: dict[Collection, str] = {
            "chunks": f"{index}__{GENERATION}",
            "docs": f"{index}__{GENERATION}_docs",
        }
        self._context = f"{index}__{GENERATION}_context"
        self._context_alias = f"{index}__context"
        self._layout: VectorLayout | None = None
        self.backoff = Backoff()

    @classmethod
    def connect(cls, url: str, index: str, *, memory: str = "") -> ServerEngine:
        """A client for `url`, after one request to see that somebody answers.

        `:memory:` is the client's local mode, shared by all connections of this process with the same `memory`.
        """
        if url == MEMORY:
            client = _in_memory.setdefault(memory, QdrantClient(MEMORY))
            return cls(client, MEMORY, index, local=True)
        key = os.environ.get("QDRANT_API_KEY") or None
        try:
            client = QdrantClient(url=url, api_key=key, timeout=TIMEOUT_SECONDS, check_compatibility=False)
        except ValueError as error:
            raise StoreError(f"{_public(url)} is no address of a Qdrant server: {error}") from error
        engine = cls(client, _public(url), index)
        engine.backoff = _PROBE
        engine.read_spec()
        engine.backoff = Backoff()
        return engine

    @property
    def label(self) -> str:
        """Address without credentials, and the index."""
        return f"qdrant:{self._address} index {self._index}"

    def read_spec(self) -> dict[str, Any] | None:
        """From the records' collection."""
        try:
            info = self._call(lambda: self._client.get_collection(self._aliases["docs"]))
        except IndexNotFoundError:
            return None
        metadata = info.config.metadata or {}
        if SPEC_KEY not in metadata:
            raise StoreError(
                f"{self.label} exists but was not made by ctxindex, or the server is too old to keep "
                "metadata of collections (Qdrant 1.16 and later do)"
            )
        return cast("dict[str, Any]", metadata[SPEC_KEY])

    def create(
        self, spec: Mapping[str, Any], layout: VectorLayout, *, int8: bool = False, context: bytes | None = None
    ) -> None:
        """Collections, payload indexes, then the aliases."""
        name = MULTIVECTOR if layout.multivector else VECTOR
        vectors = {name: _vector_params(layout, int8=int8)}
        self._create_collection("chunks", vectors, None)
        self._create_collection("docs", {}, {SPEC_KEY: dict(spec)})
        aliases = [_alias(self._names[each], self._aliases[each]) for each in self._names]
        if context is not None:
            self._create_context(context)
            aliases.append(_alias(self._context, self._context_alias))
        self._call(lambda: self._client.update_collection_aliases(change_aliases_operations=aliases))
        self._layout = layout

    def read_context(self) -> bytes | None:
        """The parts, put together."""
        try:
            self._call(lambda: self._client.get_collection(self._context_alias))
        except IndexNotFoundError:
            return None
        first = self._context_part(0)
        parts = [first, *(self._context_part(number) for number in range(1, first["parts"]))]
        return b"".join(base64.b64decode(part["content"]) for part in parts)

    def layout(self) -> VectorLayout:
        """As given to `create`."""
        if self._layout is None:
            info = self._call(lambda: self._client.get_collection(self._aliases["chunks"]))
            vectors = cast("dict[str, models.VectorParams]", info.config.params.vectors)
            ((name, params),) = vectors.items()
            self._layout = VectorLayout(params.size, name == MULTIVECTOR)
        return self._layout

    def upsert(self, collection: Collection, points: Sequence[Point]) -> None:
        """One request."""
        rows = [
            models.PointStruct(
                id=point.id,
                vector={} if point.vector is None else {vector_name(point.vector): point.vector.tolist()},
                payload=dict(point.payload),
            )
            for point in points
        ]
        self._call(lambda: self._client.upsert(self._aliases[collection], rows, wait=True))

    def delete_ids(self, collection: Collection, ids: Sequence[str]) -> None:
        """One request."""
        self._delete(collection, models.PointIdsList(points=list(ids)))

    def delete_where(self, collection: Collection, where: JsonFilter) -> None:
        """One request."""
        self._delete(collection, models.FilterSelector(filter=_filter(where)))

    def retrieve(self, collection: Collection, ids: Sequence[str]) -> list[Point]:
        """One request."""
        records = self._call(lambda: self._client.retrieve(self._aliases[collection], list(ids), with_payload=True))
        return [Point(str(record.id), record.payload or {}) for record in records]

    def scroll(self, collection: Collection, where: JsonFilter | None, *, vectors: bool = False) -> Iterator[Point]:
        """In pages."""
        condition = None if where is None else _filter(where)
        offset: Any = None
        while True:
            records, offset = self._scroll_page(collection, condition, offset, vectors)
            for record in records:
                yield Point(str(record.id), record.payload or {}, only_vector(record.vector) if vectors else None)
            if offset is None:
                return

    def count(self, collection: Collection, where: JsonFilter) -> int:
        """Exactly."""
        alias, condition = self._aliases[collection], _filter(where)
        return self._call(lambda: self._client.count(alias, count_filter=condition, exact=True)).count

    def search(self, query: FloatArray, limit: int, where: JsonFilter | None, *, vectors: bool = False) -> list[Scored]:
        """One request."""
        numbers = query.tolist()
        several = query.ndim == 2
        condition = None if where is None else _filter(where)
        found = self._call(
            lambda: self._client.query_points(
                self._aliases["chunks"],
                query=numbers,
                using=vector_name(query),
                limit=limit,
                query_filter=condition,
                search_params=_rescoring() if several and not self._local else None,
                with_payload=True,
                with_vectors=vectors,
            )
        )
        return [
            Scored(Point(str(hit.id), hit.payload or {}, only_vector(hit.vector) if vectors else None), hit.score)
            for hit in found.points
        ]

    def maintain(self) -> None:
        """The server looks after itself."""

    def close(self) -> None:
        """Close connections; what is in memory stays for the next one."""
        if not self._local:
            self._client.close()

    def _create_collection(
        self, collection: Collection, vectors: Mapping[str, models.VectorParams], metadata: dict[str, Any] | None
    ) -> None:
        name = self._names[collection]

        def make() -> None:
            self._client.delete_collection(name)  # what a killed `create` left, or a lost answer to this request
            self._client.create_collection(name, vectors_config=vectors, metadata=metadata)

        self._call(make)
        if self._local:  # it has no payload indexes, and warns
            return
        fields = [(field, models.PayloadSchemaType.KEYWORD) for field in KEYWORD_FIELDS[collection]]
        if collection == "chunks":
            fields.append((f"{NUMBERS}[].key", models.PayloadSchemaType.KEYWORD))
            fields.append((f"{NUMBERS}[].value", models.PayloadSchemaType.FLOAT))
        for field, schema in fields:
            self._index_field(name, field, schema)

    def _create_context(self, content: bytes) -> None:
        def make() -> None:
            self._client.delete_collection(self._context)
            self._client.create_collection(self._context, vectors_config={})

        self._call(make)
        parts = [content[start : start + _PART_BYTES] for start in range(0, len(content), _PART_BYTES)] or [b""]
        for number, part in enumerate(parts):
            payload = {"content": base64.b64encode(part).decode(), "parts": len(parts)}
            self._put_context_part(models.PointStruct(id=number, vector={}, payload=payload))

    def _put_context_part(self, row: models.PointStruct) -> None:
        self._call(lambda: self._client.upsert(self._context, [row], wait=True))

    def _context_part(self, number: int) -> dict[str, Any]:
        found = self._call(lambda: self._client.retrieve(self._context_alias, [number], with_payload=True))
        if not found or found[0].payload is None:
            raise StoreError(f"a part of the corpus context is missing in {self.label}: ingest into a new index")
        return found[0].payload

    def _index_field(self, name: str, field: str, schema: models.PayloadSchemaType) -> None:
        self._call(lambda: self._client.create_payload_index(name, field, schema, wait=True))

    def _delete(self, collection: Collection, selector: models.PointIdsList | models.FilterSelector) -> None:
        self._call(lambda: self._client.delete(self._aliases[collection], selector, wait=True))

    def _scroll_page(
        self, collection: Collection, condition: models.Filter | None, offset: Any, vectors: bool
    ) -> tuple[list[models.Record], Any]:
        return self._call(
            lambda: self._client.scroll(
                self._aliases[collection],
                scroll_filter=condition,
                limit=_PAGE,
                offset=offset,
                with_payload=True,
                with_vectors=vectors,
            )
        )

    def _call(self, request: Callable[[], T]) -> T:
        """Send; every request of this class may be sent twice."""
        try:
            return retrying(
                request, retryable=refusals.may_pass, backoff=self.backoff, retry_after=refusals.asked_to_wait
            )
        except Exception as error:
            raise refusals.translated(error, self._address, self.label) from error


def _alias(collection: str, name: str) -> models.CreateAliasOperation:
    return models.CreateAliasOperation(create_alias=models.CreateAlias(collection_name=collection, alias_name=name))


def _filter(where: JsonFilter) -> models.Filter:
    return models.Filter.model_validate(where)


def _vector_params(layout: VectorLayout, *, int8: bool) -> models.VectorParams:
    quantization = models.ScalarQuantization(scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8))
    if not layout.multivector:
        return models.VectorParams(size=layout.dim, distance=models.Distance.COSINE)
    return models.VectorParams(
        size=layout.dim,
        distance=models.Distance.DOT,  # unit vectors, and MaxSim is defined by products
        multivector_config=models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM),
        datatype=models.Datatype.FLOAT16,
        quantization_config=quantization if int8 else None,
        hnsw_config=models.HnswConfigDiff(m=0),  # a graph over token vectors costs much and finds little
    )


def _rescoring() -> models.SearchParams:
    return models.SearchParams(quantization=models.QuantizationSearchParams(rescore=True, oversampling=OVERSAMPLING))


def _public(url: str) -> str:
    """The address without user, password and query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}".rstrip("/")
