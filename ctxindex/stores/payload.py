"""A stored chunk as one flat JSON object, for databases that keep payloads beside vectors.

Other people's readers (LlamaIndex's and LangChain's Qdrant stores, a notebook) look for `text`, for the document's id
under one of several names, and for metadata as keys of their own at the top level. We give them that. Because a
metadata key may be named like one of ours, those top-level copies are for others only: all metadata is also kept whole
under `metadata`, which is what reading back uses, and a key that collides with ours has no copy at the top level.
Filters look at neither, but at `ctx_facets` and `ctx_numbers` (see `facets`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ctxindex.stores.facets import facets_of, numbers_of
from ctxindex.types import Hit, StoredChunk

if TYPE_CHECKING:
    from ctxindex.types import FloatArray

FACETS = "ctx_facets"
NUMBERS = "ctx_numbers"
"""A list of `{"key": …, "value": …}`: keys stay values, so that no database reads a dot in one as a path."""

DOCUMENT_ID_KEYS = ("doc_id", "ref_doc_id", "document_id")
OWN_KEYS = (
    "chunk_id",
    "doc_id",
    "revision",
    "ordinal",
    "start",
    "end",
    "text",
    "title",
    "window",
    "context_tokens",
    "metadata",
)


def to_payload(chunk: StoredChunk) -> dict[str, Any]:
    """Everything of `chunk` but its vector, as JSON values."""
    metadata = dict(chunk.metadata)
    own: dict[str, Any] = {name: getattr(chunk, name) for name in OWN_KEYS}
    own.update(dict.fromkeys(DOCUMENT_ID_KEYS, chunk.doc_id))
    own["metadata"] = metadata
    own[FACETS] = facets_of(metadata, chunk.title)
    own[NUMBERS] = [
        {"key": key, "value": number} for key, numbers in numbers_of(metadata).items() for number in numbers
    ]
    return {**metadata, **own}


def from_payload(payload: Mapping[str, Any], vector: FloatArray | None = None) -> StoredChunk:
    """The inverse of `to_payload`; `vector` is as of `StoredChunk`."""
    return StoredChunk(**{name: payload[name] for name in OWN_KEYS}, vector=vector)


def to_hit(chunk: StoredChunk, score: float, *, best: float = 1.0) -> Hit:
    """`chunk` as the answer to a query; what rounding puts above the `best` score there can be is cut off."""
    shared: dict[str, Any] = {name: getattr(chunk, name) for name in Hit.__dataclass_fields__ if name != "score"}
    return Hit(**shared, score=min(best, score))


def filter_values(chunk: StoredChunk) -> dict[str, Any]:
    """What `filters.matches` looks at: metadata, doc_id and title in one mapping; ours win."""
    return {**chunk.metadata, "doc_id": chunk.doc_id, "title": chunk.title}
