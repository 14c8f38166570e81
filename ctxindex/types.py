"""The values that flow down the street: document -> chunks -> vectors -> store -> hits.

Frozen dataclasses and two seams (`Tokenizer`, `Chunker`) that rooms hand to one another. This module knows nothing of
files, models or databases, and imports nothing heavy.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

FloatArray: TypeAlias = "npt.NDArray[np.float32]"
"""float32; a matrix of vectors is (rows, dim). In quotes, because this module does not import numpy."""

MULTIVECTOR_NUMBERS = 1_048_576
"""A multivector has fewer numbers than this (vectors x dim): Qdrant's limit, kept by every store alike."""

Metadata: TypeAlias = Mapping[str, Any]
"""What JSON can hold: string keys; strings, numbers, booleans, null, and lists of those."""


@dataclass(frozen=True, slots=True)
class Section:
    """The heading path in force from character `start` of the text to the next section's start."""

    start: int
    path: tuple[str, ...]


@dataclass(frozen=True)
class Document:
    """One source item. `text` is Unicode that encodes to UTF-8 (no lone surrogates); spans count its characters.

    `doc_id` is the name of the root given plus the path inside it, never absolute. `title` comes from the source's own
    metadata or first heading, never from the file's name. `pages[i]` is the character where page i + 1 begins; empty
    where the format has no pages. `source_hash` identifies the bytes the document was read from and how they were
    read, so that an unchanged source need not be parsed again; it takes no part in `content_hash`.
    """

    doc_id: str
    text: str
    title: str | None = None
    metadata: Metadata = field(default_factory=dict)
    sections: tuple[Section, ...] = ()
    pages: tuple[int, ...] = ()
    source_hash: str = ""

    @cached_property
    def content_hash(self) -> str:
        """sha256 over everything an index stores of this document, its doc_id aside."""
        parts = (
            self.text,
            self.title,
            dict(self.metadata),
            [[section.start, list(section.path)] for section in self.sections],
            list(self.pages),
        )
        canonical = json.dumps(parts, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Chunk:
    """The span `[start, end)` of a document's text; `text == document.text[start:end]`, always.

    `ordinal` counts a document's chunks from 0. `metadata` is what the place in the document adds (`page`, `headings`).
    """

    ordinal: int
    start: int
    end: int
    text: str
    metadata: Metadata = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ChunkedDocument:
    """A document and its chunks, in the order of the text; at least one chunk."""

    document: Document
    chunks: tuple[Chunk, ...]


@dataclass(frozen=True, slots=True)
class EncodedDocument:
    """A document, its chunks and their vectors, float32 with unit rows.

    `vectors` is (len(chunks), dim), one row a chunk. An encoder of several vectors a chunk gives all rows of all
    chunks, one chunk after the other, and says in `lengths` how many belong to each, at least one: ragged, never
    padded. `chunk_vectors` takes both apart.

    `windows[i]` is the number of the window that owns chunk i, `context_tokens[i]` how many content tokens besides its
    own the chunk saw in that window. `n_tokens` counts the content tokens of all chunks.
    """

    document: Document
    chunks: tuple[Chunk, ...]
    vectors: FloatArray
    windows: tuple[int, ...]
    context_tokens: tuple[int, ...]
    n_tokens: int
    lengths: tuple[int, ...] | None = None

    def chunk_vectors(self) -> list[FloatArray]:
        """The vector of each chunk, (dim,) float32, or its multivector, (its length, dim) float32."""
        if self.lengths is None:
            return list(self.vectors)
        ends = accumulate(self.lengths)
        return [self.vectors[end - length : end] for end, length in zip(ends, self.lengths, strict=True)]


@dataclass(frozen=True, slots=True)
class FailedDocument:
    """A source that gave no document, or a document that gave no vectors, and why.

    `source_hash` is empty where the next run should try again although the source has not changed.
    """

    doc_id: str
    reason: str
    source_hash: str = ""


@dataclass(frozen=True, slots=True)
class VectorLayout:
    """What a store must know to make room for vectors of `dim` numbers.

    One vector a chunk is stored in float32 and compared by cosine. With `multivector` a chunk has any number of unit
    vectors, stored in float16 and compared by MaxSim: the sum over the query's vectors of the greatest dot product with
    any of the chunk's.
    """

    dim: int
    multivector: bool = False


@dataclass(frozen=True, slots=True)
class StoredChunk:
    """A chunk as a store keeps it. `metadata` is the document's and the chunk's, merged; the chunk's wins.

    `chunk_id` is a UUID, a function of doc_id, revision and ordinal. `vector` is (dim,) float32, or (vectors, dim) in
    an index of multivectors (what is read back has been rounded to float16), or None where the caller did not ask for
    vectors.
    """

    chunk_id: str
    doc_id: str
    revision: str
    ordinal: int
    start: int
    end: int
    text: str
    title: str | None
    metadata: Metadata
    window: int
    context_tokens: int
    vector: FloatArray | None = None


Status: TypeAlias = Literal["live", "failed", "skipped"]


@dataclass(frozen=True, slots=True)
class DocumentRecord:
    """The index's own row about one document.

    `revision` is the revision whose chunks are live in the store, or "" if there are none (a document that has only
    ever failed). `status` is "failed" with `error` set where the source could not be indexed at the last attempt;
    chunks of an earlier revision then stay live. It is "skipped", with the reason as `error`, for a source that turned
    out to be no document when it was read, so that it need not be read again. `pending` is the record that a replace in
    flight will leave behind: written before the first chunk and cleared last, so that a run that finds it knows what
    was interrupted. `updated_at` is UTC, ISO 8601, and takes no part in comparisons between records.
    """

    doc_id: str
    revision: str
    source_hash: str
    n_chunks: int
    n_tokens: int
    status: Status = "live"
    error: str | None = None
    title: str | None = None
    updated_at: str = field(default="", compare=False)
    pending: DocumentRecord | None = None

    def flipped(self) -> DocumentRecord:
        """The record after its pending replace succeeded; itself where none is pending."""
        return self if self.pending is None else replace(self.pending, pending=None)

    def to_json(self) -> dict[str, Any]:
        """All fields as JSON values, `pending` nested."""
        names = ("doc_id", "revision", "source_hash", "n_chunks", "n_tokens", "status", "error", "title", "updated_at")
        values: dict[str, Any] = {name: getattr(self, name) for name in names}
        values["pending"] = self.pending.to_json() if self.pending else None
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> DocumentRecord:
        """The inverse of `to_json`; fields this version does not know are ignored."""
        known = {name: values[name] for name in cls.__dataclass_fields__ if name in values}
        if known.get("pending") is not None:
            known["pending"] = cls.from_json(known["pending"])
        return cls(**known)


@dataclass(frozen=True, slots=True)
class DocumentRevision:
    """What a store's `replace` takes: the record as it will be when live, and all chunks, with their vectors."""

    record: DocumentRecord
    chunks: tuple[StoredChunk, ...]


@dataclass(frozen=True, slots=True)
class Hit:
    """One chunk that answers a query; a higher `score` is better.

    It is the cosine similarity to the query, at most 1; in an index of multivectors MaxSim, at most the number of the
    query's vectors.
    """

    doc_id: str
    revision: str
    chunk_id: str
    ordinal: int
    start: int
    end: int
    score: float
    text: str
    title: str | None
    metadata: Metadata


@dataclass(frozen=True, slots=True)
class ContextStatus:
    """The corpus context of an index, and the corpus since.

    `size` counts the context's vectors, made of `texts` different texts. They were drawn with `seed`, in the way called
    `sampling`, at the time `made_at` (ISO 8601, UTC), when `documents_then` documents were found, and are of `sampled`
    documents, of which `changed` say something else now and `gone` are not in the index any more; it has
    `documents_now` documents. Both numbers of documents count those that failed, too. `drift` is how far the corpus has
    moved in what it says: about 1 is chance, above 2 a new context is worth its price; None where it was not asked for
    or there are too few texts to tell.
    """

    context_id: str
    size: int
    texts: int
    seed: int
    sampling: str
    made_at: str
    documents_then: int
    documents_now: int
    sampled: int
    changed: int
    gone: int
    drift: float | None = None

    @property
    def growth(self) -> float:
        """How many times as many documents there are now."""
        return self.documents_now / max(1, self.documents_then)


class Tokenizer(Protocol):
    """The encoder's tokenizer as chunking sees it: content tokens only, literal special tokens read as plain text."""

    def count(self, texts: Sequence[str]) -> list[int]:
        """Content tokens of each text, tokenised alone."""
        ...

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """The character span of each content token of `text`, in order."""
        ...


class Chunker(Protocol):
    """Document -> spans in the order of the text, exact by construction."""

    def chunk(self, document: Document) -> tuple[Chunk, ...]:
        """The chunks of `document`.

        Raises:
            DocumentError: where the text holds nothing a model could read.
        """
        ...
