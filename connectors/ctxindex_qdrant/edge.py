"""The embedded engine: Qdrant's own Rust core in this process, in a folder, for one process at a time.

`<folder>/<index>/CURRENT` names the generation (`g1`); in it lie the shards `chunks` and `docs`, `spec.json`, and where
the index has a corpus context, `context.bin`.
CURRENT is written last and atomically, so an index exists entirely or not at all. Writes go to the shard's
write-ahead log and survive the process; `maintain` and `close` flush it. Search is exact: no graph is ever built.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

import qdrant_edge as qe

from ctxindex.errors import IndexNotFoundError, StoreError
from ctxindex.stores.payload import NUMBERS
from ctxindex.types import VectorLayout
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

GENERATION = "g1"
_COLLECTIONS: tuple[Collection, ...] = ("chunks", "docs")
_NEVER_KB = 10**12
"""Size above which the engine would build an approximate index."""

_QUANTIZED_FROM_KB = 1000
"""Below that, searching the originals is as fast."""

_PAGE = 1000
_CONTEXT = "context.bin"


class EdgeEngine:
    """One index in one folder."""

    max_points = 2048
    max_bytes = 8_000_000
    rounds_queries = True

    def __init__(self, home: Path, label: str) -> None:
        self._home = home
        self._label = label
        self._shards: dict[Collection, qe.EdgeShard] = {}
        self._layout: VectorLayout | None = None
        self._loading = threading.Lock()
        self._lock: TextIO | None = None

    @classmethod
    def connect(cls, folder: Path, index: str) -> EdgeEngine:
        """Open the index where it exists, which takes its lock."""
        engine = cls(folder / index, f"qdrant:{folder} index {index}")
        if engine._generation() is not None:
            engine._load()
        return engine

    @property
    def label(self) -> str:
        """The folder and the index."""
        return self._label

    def read_spec(self) -> dict[str, Any] | None:
        """From `spec.json`."""
        generation = self._generation()
        if generation is None:
            return None
        with self._refusals():
            text = (self._home / generation / "spec.json").read_text(encoding="utf-8")
            return cast("dict[str, Any]", json.loads(text)["spec"])

    def create(
        self, spec: Mapping[str, Any], layout: VectorLayout, *, int8: bool = False, context: bytes | None = None
    ) -> None:
        """Shards, then context and spec, then CURRENT."""
        self._take_lock()
        if self._generation() is not None:
            raise StoreError(f"{self._label} exists already")
        folder = self._home / GENERATION
        made = {"dim": layout.dim, "multivector": layout.multivector, "spec": spec}
        with self._refusals():
            if folder.exists():
                shutil.rmtree(folder)
            for collection in _COLLECTIONS:
                _make_shard(folder / collection, collection, _config(collection, layout, int8=int8))
            if context is not None:
                _write_atomically(folder / _CONTEXT, context)
            _write_atomically(folder / "spec.json", json.dumps(made, ensure_ascii=False).encode())
            _write_atomically(self._home / "CURRENT", GENERATION.encode())
        self._load()

    def read_context(self) -> bytes | None:
        """From `context.bin`."""
        file = self._home / (self._generation() or GENERATION) / _CONTEXT
        with self._refusals():
            return file.read_bytes() if file.exists() else None

    def layout(self) -> VectorLayout:
        """As given to `create`."""
        return self._load()

    def upsert(self, collection: Collection, points: Sequence[Point]) -> None:
        """One entry of the write-ahead log."""
        rows = [qe.Point(point.id, _named(point.vector), dict(point.payload)) for point in points]
        self._update(collection, qe.UpdateOperation.upsert_points(rows))

    def delete_ids(self, collection: Collection, ids: Sequence[str]) -> None:
        """By id."""
        self._update(collection, qe.UpdateOperation.delete_points(list(ids)))

    def delete_where(self, collection: Collection, where: JsonFilter) -> None:
        """By filter."""
        self._update(collection, qe.UpdateOperation.delete_points_by_filter(edge_filter(where)))

    def retrieve(self, collection: Collection, ids: Sequence[str]) -> list[Point]:
        """By id."""
        with self._refusals():
            records = self._shard(collection).retrieve(list(ids), with_payload=True, with_vector=False)
        return [Point(str(record.id), record.payload or {}) for record in records]

    def scroll(self, collection: Collection, where: JsonFilter | None, *, vectors: bool = False) -> Iterator[Point]:
        """In pages."""
        offset: Any = None
        condition = None if where is None else edge_filter(where)
        while True:
            request = qe.ScrollRequest(
                offset=offset, limit=_PAGE, filter=condition, with_payload=True, with_vector=vectors
            )
            with self._refusals():
                records, offset = self._shard(collection).scroll(request)
            for record in records:
                yield Point(str(record.id), record.payload or {}, only_vector(record.vector) if vectors else None)
            if offset is None:
                return

    def count(self, collection: Collection, where: JsonFilter) -> int:
        """Exactly."""
        with self._refusals():
            return self._shard(collection).count(qe.CountRequest(exact=True, filter=edge_filter(where)))

    def search(self, query: FloatArray, limit: int, where: JsonFilter | None, *, vectors: bool = False) -> list[Scored]:
        """Every chunk that matches is compared; where multivectors are quantized, by these first."""
        layout = self._load()
        rescoring = qe.QuantizationSearchParams(rescore=True, oversampling=OVERSAMPLING)
        request = qe.QueryRequest(
            limit=limit,
            query=qe.Query.Nearest(query.tolist(), using=vector_name(query)),
            filter=None if where is None else edge_filter(where),
            params=qe.SearchParams(quantization=rescoring) if layout.multivector else qe.SearchParams(exact=True),
            with_payload=True,
            with_vector=vectors,
        )
        with self._refusals():
            found = self._shard("chunks").query(request)
        return [
            Scored(Point(str(hit.id), hit.payload or {}, only_vector(hit.vector) if vectors else None), hit.score)
            for hit in found
        ]

    def maintain(self) -> None:
        """Merge and vacuum segments where the engine finds that due, then flush."""
        with self._refusals():
            for collection in _COLLECTIONS:
                self._shard(collection).optimize()
                self._shard(collection).flush()

    def close(self) -> None:
        """Flush and release the lock."""
        shards, self._shards, self._layout = self._shards, {}, None
        with self._refusals():
            for shard in shards.values():
                shard.flush()
                shard.close()
        self._release_lock()

    def _update(self, collection: Collection, operation: qe.UpdateOperation) -> None:
        with self._refusals():
            self._shard(collection).update(operation)

    def _shard(self, collection: Collection) -> qe.EdgeShard:
        self._load()
        return self._shards[collection]

    def _generation(self) -> str | None:
        try:
            return (self._home / "CURRENT").read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(f"cannot read {self._label}: {error}") from error

    def _load(self) -> VectorLayout:
        with self._loading:
            if self._layout is None:
                self._layout = self._open_shards()
            return self._layout

    def _open_shards(self) -> VectorLayout:
        generation = self._generation()
        if generation is None:
            raise IndexNotFoundError(f"{self._label} does not exist")
        self._take_lock()
        try:
            return self._open_generation(generation)
        except BaseException:
            self._release_lock()
            raise

    def _open_generation(self, generation: str) -> VectorLayout:
        with self._refusals():
            folder = self._home / generation
            loaded = {collection: qe.EdgeShard.load(str(folder / collection)) for collection in _COLLECTIONS}
            made = json.loads((folder / "spec.json").read_text(encoding="utf-8"))
            layout = VectorLayout(int(made["dim"]), bool(made.get("multivector")))
        self._shards.update(loaded)
        return layout

    def _release_lock(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _take_lock(self) -> None:
        """Before anything is made or opened: by the time the engine tries its own, a shard may be half made."""
        if self._lock is not None:
            return
        with self._refusals():
            self._home.mkdir(parents=True, exist_ok=True)
            lock = (self._home / "LOCK").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise StoreError(
                f"{self._label} is open elsewhere, in another process or another Index of this one, and the embedded "
                "engine allows one at a time: wait until that is closed, or use a Qdrant server"
            ) from None
        self._lock = lock

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        """The engine raises bare `Exception`s with a text."""
        try:
            yield
        except (StoreError, TypeError):
            raise
        except Exception as error:
            reason = str(error).strip() or type(error).__name__
            raise StoreError(f"the embedded Qdrant engine refused a request on {self._label}: {reason}") from error


def edge_filter(where: Mapping[str, Any]) -> qe.Filter:
    """A filter in JSON form as the engine's own type."""
    clauses: dict[str, Any] = {name: [_edge_condition(part) for part in where[name]] for name in where}
    return qe.Filter(**clauses)


def _edge_condition(part: Mapping[str, Any]) -> Any:
    if "has_id" in part:
        return qe.HasIdCondition(set(part["has_id"]))
    if "nested" in part:
        return qe.NestedCondition(part["nested"]["key"], edge_filter(part["nested"]["filter"]))
    if "match" in part:
        return qe.FieldCondition(part["key"], match=qe.MatchAny(any=part["match"]["any"]))
    if "range" in part:
        return qe.FieldCondition(part["key"], range=qe.RangeFloat(**part["range"]))
    return edge_filter(part)


def _make_shard(folder: Path, collection: Collection, config: qe.EdgeConfig) -> None:
    """An empty shard with its indexes, closed again."""
    folder.mkdir(parents=True)
    shard = qe.EdgeShard.create(str(folder), config)
    for field, index in _field_indexes(collection):
        shard.update(qe.UpdateOperation.create_field_index(field, index))
    shard.close()


def _config(collection: Collection, layout: VectorLayout, *, int8: bool) -> qe.EdgeConfig:
    if collection == "docs":  # an engine without any vector is refused; a sparse one that no point has costs nothing
        return qe.EdgeConfig(sparse_vectors={"none": qe.EdgeSparseVectorParams()})
    quantization = qe.ScalarQuantizationConfig(qe.ScalarType.Int8) if int8 else None
    if layout.multivector:
        # Dot, not cosine: the vectors are unit vectors, and MaxSim is defined by products.
        name, params = (
            MULTIVECTOR,
            qe.EdgeVectorParams(
                layout.dim,
                qe.Distance.Dot,
                multivector_config=qe.MultiVectorConfig(qe.MultiVectorComparator.MaxSim),
                datatype=qe.VectorStorageDatatype.Float16,
                quantization_config=quantization,
                hnsw_config=qe.HnswIndexConfig(m=0, ef_construct=100, full_scan_threshold=10_000),
            ),
        )
    else:
        name, params = VECTOR, qe.EdgeVectorParams(layout.dim, qe.Distance.Cosine)
    # Quantized vectors are made where an index would be, which with m=0 is no graph.
    threshold = _QUANTIZED_FROM_KB if int8 else _NEVER_KB
    return qe.EdgeConfig(vectors={name: params}, optimizers=qe.EdgeOptimizersConfig(indexing_threshold=threshold))


def _field_indexes(collection: Collection) -> Iterator[tuple[str, Any]]:
    """Order conditions cost thirty times less with the two nested indexes than without any (measured at 50,000)."""
    for field in KEYWORD_FIELDS[collection]:
        yield field, qe.PayloadSchemaType.Keyword
    if collection == "chunks":
        yield f"{NUMBERS}[].key", qe.KeywordIndexParams(nested=NUMBERS)
        yield f"{NUMBERS}[].value", qe.FloatIndexParams(nested=NUMBERS)


def _named(vector: FloatArray | None) -> dict[str, Any]:
    return {} if vector is None else {vector_name(vector): vector.tolist()}


def _write_atomically(path: Path, content: bytes) -> None:
    draft = path.with_name(path.name + ".tmp")
    with draft.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
