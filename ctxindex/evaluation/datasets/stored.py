"""Questions about an index that exists: its documents put together from their chunks, and the vectors that it holds.

What stood between chunks was white space and is not stored, so it comes back as spaces: offsets stay right.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ctxindex.evaluation.dataset import Dataset, DatasetError
from ctxindex.evaluation.datasets.questions import with_questions
from ctxindex.stores import Store
from ctxindex.types import Document, Section, StoredChunk

if TYPE_CHECKING:
    from ctxindex.types import FloatArray

_log = logging.getLogger("ctxindex")

_OF_A_CHUNK = frozenset({"headings", "page", "page_end"})
"""Metadata that says where in its document a chunk stands."""


@dataclass(frozen=True, slots=True)
class StoredVectors:
    """The vectors of an index, in the order of a dataset's documents and of their chunks.

    `vectors[i]` is (chunks, dim) float32, a row a chunk of document i. In an index of multivectors it is all rows of
    all chunks, one chunk after the other, and `lengths[i]` says how many belong to each chunk; otherwise `lengths` is
    None.
    """

    vectors: tuple[FloatArray, ...]
    lengths: tuple[tuple[int, ...], ...] | None = None


def open_index_questions(file: str | Path, store: Store, name: str) -> tuple[Dataset, StoredVectors]:
    """The questions in `file` about the documents of an index, and their vectors. The set's own chunks are the index's.

    Documents without chunks (those that failed) are left out.

    Raises:
        DatasetError: the file can't be read, a question is about a document that is not there, or the chunks of a
            document contradict each other.
        IndexNotFoundError: there is no index.
        StoreError: the database can't be read.
    """
    doc_ids = sorted(record.doc_id for record in store.records() if record.revision)
    held = [(doc_id, _chunks(store, doc_id)) for doc_id in doc_ids]
    filled = [(doc_id, chunks) for doc_id, chunks in held if chunks]
    documents = tuple(_document(doc_id, chunks) for doc_id, chunks in filled)
    units = {doc_id: tuple((chunk.start, chunk.end) for chunk in chunks) for doc_id, chunks in filled}
    dataset, rows = with_questions(Dataset(name, documents, (), units, given=True), file)
    if kept := sum(row.has("remove") for row in rows):
        _log.warning(
            "%s: sentences that questions were made of and that are to be removed: %d. The index holds them, and they "
            "are found by the words of the questions: measure on a set that pairs --out DIR writes",
            name,
            kept,
        )
    return dataset, _vectors([chunks for _, chunks in filled])


def _chunks(store: Store, doc_id: str) -> list[StoredChunk]:
    # A chunk of white space is none to an evaluation; units and vectors have to agree on that.
    return [chunk for chunk in store.chunks(doc_id, vectors=True) if chunk.text.strip()]


def _document(doc_id: str, chunks: Sequence[StoredChunk]) -> Document:
    first = chunks[0]
    metadata = {key: value for key, value in first.metadata.items() if key not in _OF_A_CHUNK}
    return Document(doc_id, _text(doc_id, chunks), first.title, metadata, _sections(chunks))


def _text(doc_id: str, chunks: Sequence[StoredChunk]) -> str:
    characters = [" "] * max(chunk.end for chunk in chunks)
    filled = 0
    for chunk in chunks:
        again = characters[chunk.start : min(filled, chunk.end)]
        if len(chunk.text) != chunk.end - chunk.start or not chunk.text.startswith("".join(again)):
            raise DatasetError(
                f"the chunk [{chunk.start}, {chunk.end}) of {doc_id!r} does not fit the others: "
                f"ctxindex verify tells more, and deleting and ingesting the document again mends it"
            )
        characters[chunk.start : chunk.end] = chunk.text
        filled = max(filled, chunk.end)
    return "".join(characters)


def _sections(chunks: Sequence[StoredChunk]) -> tuple[Section, ...]:
    """A section wherever the headings above the chunks change: no chunk crosses a heading."""
    sections: list[Section] = []
    path: tuple[str, ...] = ()
    for chunk in chunks:
        headings: Any = chunk.metadata.get("headings")
        own = tuple(headings) if isinstance(headings, list) else ()
        if own != path:
            sections.append(Section(chunk.start, own))
            path = own
    return tuple(sections)


def _vectors(documents: Sequence[Sequence[StoredChunk]]) -> StoredVectors:
    matrices: list[FloatArray] = []
    lengths: list[tuple[int, ...]] = []
    several = False
    for chunks in documents:
        own = [chunk.vector for chunk in chunks if chunk.vector is not None]
        several = several or own[0].ndim == 2
        rows = [np.atleast_2d(vector) for vector in own]
        lengths.append(tuple(len(one) for one in rows))
        matrices.append(np.concatenate(rows).astype(np.float32, copy=False))
    return StoredVectors(tuple(matrices), tuple(lengths) if several else None)
