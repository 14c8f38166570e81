"""The seam between the store (ids, payloads, write order, liveness) and what executes it: `edge` and `server`.

An engine holds two collections of points: `chunks`, with one vector each, and `docs`, the records, without. It knows
nothing of documents. Filters cross the seam in Qdrant's own JSON form, as in its REST interface, restricted to what
`filters` makes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from ctxindex.stores.payload import FACETS

if TYPE_CHECKING:
    from ctxindex.types import FloatArray, VectorLayout

VECTOR = "dense"
MULTIVECTOR = "multi"
"""Names of the vector of a point: named from the start, so that others can be added beside it."""

OVERSAMPLING = 3.0
"""Where multivectors are quantized, so many times the hits asked for are scored again from the float16 values."""

KEYWORD_FIELDS: dict[Collection, tuple[str, ...]] = {
    "chunks": ("doc_id", "revision", FACETS),
    "docs": ("doc_id",),
}
"""Payload fields that filters look at; indexed before the first point, as strict servers demand."""

Collection: TypeAlias = Literal["chunks", "docs"]
JsonFilter: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Point:
    """`id` is a UUID; `vector` is as of `StoredChunk`, or None for records and where it was not asked for."""

    id: str
    payload: Mapping[str, Any]
    vector: FloatArray | None = None


@dataclass(frozen=True, slots=True)
class Scored:
    """A point and its cosine similarity to a query, or its MaxSim."""

    point: Point
    score: float


class Engine(Protocol):
    """Every method raises StoreError where the engine refuses, IndexNotFoundError where `create` was never done."""

    max_points: int
    """Points in one upsert."""

    max_bytes: int
    """Bytes in one upsert, about."""

    rounds_queries: bool
    """Whether MaxSim is computed from a rounded query, and vectors come so cheaply that the store ranks again."""

    @property
    def label(self) -> str:
        """Where this is, for people."""
        ...

    def read_spec(self) -> dict[str, Any] | None:
        """What `create` was given; None before."""
        ...

    def create(
        self, spec: Mapping[str, Any], layout: VectorLayout, *, int8: bool = False, context: bytes | None = None
    ) -> None:
        """Make both collections, so that `read_spec` gives None until all is there. A half-made index is replaced.

        `int8` asks for scalar quantization of the vectors, beside the originals. `context` is kept as it is.
        """
        ...

    def read_context(self) -> bytes | None:
        """The context given to `create`; None where there was none."""
        ...

    def layout(self) -> VectorLayout:
        """As given to `create`."""
        ...

    def upsert(self, collection: Collection, points: Sequence[Point]) -> None:
        """Insert or overwrite; durable on return."""
        ...

    def delete_ids(self, collection: Collection, ids: Sequence[str]) -> None:
        """Remove points; unknown ids are ignored."""
        ...

    def delete_where(self, collection: Collection, where: JsonFilter) -> None:
        """Remove the points that match."""
        ...

    def retrieve(self, collection: Collection, ids: Sequence[str]) -> list[Point]:
        """Those that exist, without vectors."""
        ...

    def scroll(self, collection: Collection, where: JsonFilter | None, *, vectors: bool = False) -> Iterator[Point]:
        """All points that match, in pages."""
        ...

    def count(self, collection: Collection, where: JsonFilter) -> int:
        """Exactly how many match."""
        ...

    def search(self, query: FloatArray, limit: int, where: JsonFilter | None, *, vectors: bool = False) -> list[Scored]:
        """The nearest chunks, best first; `query` has the shape that the layout asks for."""
        ...

    def maintain(self) -> None:
        """Upkeep, where the engine needs any."""
        ...

    def close(self) -> None:
        """Release; harmless when repeated."""
        ...


def vector_name(vector: FloatArray) -> str:
    """The name under which a vector, (dim,), or a multivector, (vectors, dim), is stored and asked for."""
    return MULTIVECTOR if vector.ndim == 2 else VECTOR


def only_vector(named: Any) -> FloatArray:
    """The vector of a point as a client gives it, by name; a chunk has exactly one."""
    import numpy as np

    (numbers,) = named.values()
    return np.asarray(numbers, dtype=np.float32)
