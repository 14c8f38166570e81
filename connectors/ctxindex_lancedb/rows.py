"""Arrow tables from our values and back: the two schemas, and nothing of the database.

Metadata is a JSON column: readable with LanceDB's `json_get_*` functions. `facets` and `extremes` are derived from it
for filters (see `ctxindex.stores.facets` and `sql`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]

from ctxindex.stores.facets import facets_of, numbers_of
from ctxindex.stores.vectors import check_chunks
from ctxindex.types import DocumentRecord, StoredChunk, VectorLayout
from ctxindex_lancedb.sql import greatest, least

if TYPE_CHECKING:
    from ctxindex.types import FloatArray

SPEC_KEY = b"ctxindex_spec"

_PLAIN = (
    ("chunk_id", pa.string()),
    ("doc_id", pa.string()),
    ("revision", pa.string()),
    ("ordinal", pa.int32()),
    ("start", pa.int64()),
    ("end", pa.int64()),
    ("text", pa.string()),
    ("title", pa.string()),
    ("window", pa.int32()),
    ("context_tokens", pa.int32()),
)
CHUNK_COLUMNS = (*(name for name, _ in _PLAIN), "metadata")
"""What is read back; `vector` only where asked for."""

DOCUMENTS = pa.schema(
    [
        pa.field("doc_id", pa.string(), nullable=False),
        pa.field("revision", pa.string()),
        pa.field("source_hash", pa.string()),
        pa.field("n_chunks", pa.int64()),
        pa.field("n_tokens", pa.int64()),
        pa.field("status", pa.string()),
        pa.field("error", pa.string()),
        pa.field("title", pa.string()),
        pa.field("updated_at", pa.string()),
        pa.field("pending", pa.string()),
    ]
)

CONTEXT = pa.schema([pa.field("content", pa.large_binary(), nullable=False)])


def chunk_schema(layout: VectorLayout) -> pa.Schema:
    """The columns of the chunks table; `vector` is a list of `dim` float32, or a list of such lists of float16."""
    fields = [pa.field(name, kind, nullable=name == "title") for name, kind in _PLAIN]
    fields += [
        pa.field("metadata", pa.json_()),
        pa.field("facets", pa.list_(pa.string())),
        pa.field("extremes", pa.json_()),
        pa.field("vector", _vector_type(layout)),
    ]
    return pa.schema(fields)


def layout_of(schema: pa.Schema) -> VectorLayout:
    """The layout that `chunk_schema` was given."""
    kind = schema.field("vector").type
    multivector = not pa.types.is_fixed_size_list(kind)
    return VectorLayout((kind.value_type if multivector else kind).list_size, multivector)


def document_schema(spec: Mapping[str, Any]) -> pa.Schema:
    """The columns of the records table, with the spec in the schema's metadata."""
    return DOCUMENTS.with_metadata({SPEC_KEY: json.dumps(spec, ensure_ascii=False).encode()})


def spec_of(schema: pa.Schema) -> dict[str, Any]:
    """The spec that `document_schema` put there."""
    return cast("dict[str, Any]", json.loads(schema.metadata[SPEC_KEY]))


def chunk_table(chunks: Sequence[StoredChunk], layout: VectorLayout) -> pa.Table:
    """One row a chunk; the vectors are copied once.

    The schema is ours, not the table's: Lance reports JSON columns as binary, and text given as binary is not parsed.

    Raises:
        StoreError: a chunk's vector is missing or does not fit the layout.
    """
    check_chunks(chunks, layout)
    columns = [pa.array([getattr(chunk, name) for chunk in chunks], kind) for name, kind in _PLAIN]
    metadata = [json.dumps(dict(chunk.metadata), ensure_ascii=False) for chunk in chunks]
    facets = [facets_of(chunk.metadata, chunk.title) for chunk in chunks]
    extremes = [json.dumps(_extremes(chunk.metadata)) for chunk in chunks]
    columns += [
        pa.array(metadata, pa.json_()),
        pa.array(facets, pa.list_(pa.string())),
        pa.array(extremes, pa.json_()),
        _vector_column([cast("FloatArray", chunk.vector) for chunk in chunks], layout),
    ]
    return pa.Table.from_arrays(columns, schema=chunk_schema(layout))


def chunks_from(table: pa.Table) -> list[StoredChunk]:
    """One chunk a row of `CHUNK_COLUMNS`, with vectors where the table has that column."""
    rows = table.select(list(CHUNK_COLUMNS)).to_pylist()
    vectors: Sequence[FloatArray | None] = [None] * len(rows)
    if "vector" in table.column_names and rows:
        vectors = _vectors(table.column("vector").combine_chunks())
    chunks = []
    for row, vector in zip(rows, vectors, strict=True):
        row["metadata"] = json.loads(row["metadata"])
        chunks.append(StoredChunk(**row, vector=vector))
    return chunks


def context_table(content: bytes) -> pa.Table:
    """The one row of a corpus context."""
    return pa.table({"content": [content]}, schema=CONTEXT)


def context_of(batches: Sequence[pa.RecordBatch]) -> bytes | None:
    """The inverse of `context_table`; None where the row is missing."""
    contents: list[bytes] = [content for batch in batches for content in batch.column("content").to_pylist()]
    return contents[0] if contents else None


def record_table(records: Sequence[DocumentRecord]) -> pa.Table:
    """One row a record; `pending` as JSON."""
    rows = [record.to_json() for record in records]
    for row in rows:
        row["pending"] = json.dumps(row["pending"], ensure_ascii=False) if row["pending"] else None
    return pa.Table.from_pylist(rows, schema=DOCUMENTS)


def records_from(batch: pa.RecordBatch) -> Iterator[DocumentRecord]:
    """One record a row."""
    for row in batch.to_pylist():
        row["pending"] = json.loads(row["pending"]) if row["pending"] else None
        yield DocumentRecord.from_json(row)


def _extremes(metadata: Mapping[str, Any]) -> dict[str, float]:
    found = {}
    for key, numbers in numbers_of(metadata).items():
        found[least(key)] = min(numbers)
        found[greatest(key)] = max(numbers)
    return found


def _vector_type(layout: VectorLayout) -> pa.DataType:
    if layout.multivector:
        return pa.list_(pa.list_(pa.float16(), layout.dim))
    return pa.list_(pa.float32(), layout.dim)


def _vector_column(vectors: Sequence[FloatArray], layout: VectorLayout) -> pa.Array:
    """The column `vector` for one (dim,) or (vectors, dim) array a chunk."""
    kind = np.float16 if layout.multivector else np.float32
    rows = np.concatenate([vector.reshape(-1, layout.dim) for vector in vectors]).astype(kind, copy=False)
    single = pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), layout.dim)
    if not layout.multivector:
        return single
    offsets = np.cumsum([0, *map(len, vectors)], dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), single)


def _vectors(column: pa.Array) -> Sequence[FloatArray]:
    """The inverse of `_vector_column`; float32."""
    if pa.types.is_fixed_size_list(column.type):
        rows: FloatArray = column.flatten().to_numpy().reshape(len(column), -1)
        return list(rows)
    numbers, lengths = joined_multivectors(column)
    return [numbers[start:stop] for start, stop in pairwise(accumulate(lengths, initial=0))]


def joined_multivectors(column: pa.Array) -> tuple[FloatArray, list[int]]:
    """A column of multivectors as (all vectors, dim) float32, and how many each row has."""
    single = column.flatten()  # of a slice, its own values alone
    numbers = single.flatten().to_numpy().astype(np.float32).reshape(-1, single.type.list_size)
    return numbers, np.diff(column.offsets.to_numpy()).tolist()
