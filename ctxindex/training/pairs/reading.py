"""Pairs read back: a file of pairs and the documents that it is about -> a corpus, chunks with queries.

    {"query", "doc_id", "start", "end"}     the answer in characters of the text as loaded
    {"query", "doc_id", "chunk"}            the answer as a chunk by its number, from 0, under the chunker in use
    {"query", "chunk_id"}                   the same in one name: doc_id, "_" and the number, as rankings name chunks

A span may come with its words as `evidence`, by which it is found again where the document has changed. A `query_id`
may be there, and several rows of one are several answers; without it every line is a query. All lines say where the
answer is in the same way. What a pair says to remove is cut out of its document before anything else is done with it,
for all pairs of that document: a sentence that a query was made of would be found by its own words.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ctxindex.evaluation.corpus import Corpus, cut
from ctxindex.evaluation.dataset import Dataset, DatasetError, GoldSpan, check
from ctxindex.evaluation.datasets.evidence import found_again
from ctxindex.evaluation.datasets.gathering import Gathering, gather
from ctxindex.evaluation.datasets.removing import removed_by, without
from ctxindex.evaluation.datasets.rows import Row, read_jsonl
from ctxindex.spec import ChunkerSpec
from ctxindex.types import Chunker, Document, FailedDocument

_log = logging.getLogger("ctxindex")


@dataclass(frozen=True, slots=True)
class _Place:
    """A chunk by its number in its document, and the row that names it."""

    doc_id: str
    ordinal: int
    row: Row


def open_pairs(
    file: Path, documents: Iterable[Document | FailedDocument], name: str, chunker: Chunker, spec: ChunkerSpec
) -> Corpus:
    """The documents in chunks, with the queries of a file of pairs.

    Args:
        file: the pairs.
        documents: what they are about, as `load_documents` gives it.
        name: what the corpus is called.
        chunker: cuts the documents.
        spec: what describes the chunker.

    Raises:
        DatasetError: the file cannot be read, a line makes no sense, or no document can be cut.
    """
    written = list(read_jsonl(file))
    if not written:
        raise DatasetError(f"{file} has no questions: make some with ctxindex pairs DOCUMENTS --out PAIRS.jsonl")
    loaded: list[Document] = []
    failures: dict[str, str] = {}
    for one in documents:
        if isinstance(one, Document):
            loaded.append(one)
        else:
            failures[one.doc_id] = one.reason
    if not loaded and not failures:
        raise DatasetError(f"there are no documents that the questions of {file} could be about: name where they are")
    rows = found_again(written, loaded, file)
    lengths = {document.doc_id: len(document.text) for document in loaded}
    places = _places(rows) if any(map(_names_chunk, rows)) else None
    asked = gather(rows, numbered=True) if places is None else _whole(rows, places, lengths)
    dataset = check(Dataset(name, tuple(loaded), asked.queries(), unreadable=failures), asked.places)
    if dataset.level == "document":
        raise DatasetError(
            f'{file} says which documents answer, and not where: each line needs "start" and "end", or "chunk"'
        )
    corpus = cut(without(dataset, removed_by(rows, lengths)), chunker, spec)
    return corpus if places is None else _resolved(corpus, places)


def _names_chunk(row: Row) -> bool:
    return row.has("chunk") or row.has("chunk_id")


def _places(rows: Sequence[Row]) -> dict[str, list[_Place]]:
    """The chunks that answer each query, by query_id."""
    found: dict[str, list[_Place]] = {}
    for row in rows:
        if not _names_chunk(row) or row.has("start"):
            raise row.error("does not say where the answer is as other lines do: give all of them a chunk, or a span")
        found.setdefault(_query_id(row), []).append(_place(row))
    return found


def _place(row: Row) -> _Place:
    if row.has("chunk"):
        return _Place(row.identifier("doc_id"), row.integer("chunk"), row)
    doc_id, _, ordinal = row.identifier("chunk_id").rpartition("_")
    if not doc_id or not (ordinal.isascii() and ordinal.isdigit()):
        raise row.error('"chunk_id" is no doc_id, "_" and the number of a chunk, as in lease.txt_3')
    return _Place(doc_id, int(ordinal), row)


def _query_id(row: Row) -> str:
    return row.identifier("query_id") if row.has("query_id") else str(row.number)


def _whole(rows: Sequence[Row], places: Mapping[str, Sequence[_Place]], lengths: Mapping[str, int]) -> Gathering:
    """The queries, with whole documents as answers until these are cut and chunks have numbers."""
    gathering = Gathering()
    for row in rows:
        gathering.ask(_query_id(row), row.string("query"), row)
        for place in places[_query_id(row)]:
            whole = GoldSpan(place.doc_id, 0, lengths.get(place.doc_id, 1))
            gathering.add_span(_query_id(row), whole, place.row)
    return gathering


def _resolved(corpus: Corpus, places: Mapping[str, Sequence[_Place]]) -> Corpus:
    """The corpus with the chunks that its queries name as answers, and no others, though chunks may overlap."""
    numbers = {doc_id: number for number, doc_id in enumerate(corpus.document_names)}
    queries, gold = [], []
    for query in corpus.queries:
        spans, own = [], {}
        for place in places[query.query_id]:
            if place.doc_id in numbers:  # else it cannot be read, which was told
                number = numbers[place.doc_id]
                chunks = corpus.documents[number].chunks
                if not 0 <= place.ordinal < len(chunks):
                    raise place.row.error(
                        f"names chunk {place.ordinal} of {place.doc_id!r}, which has {len(chunks)}, from 0, as it is "
                        "cut now: give the chunk size that the numbers are of"
                    )
                chunk = chunks[place.ordinal]
                spans.append(GoldSpan(place.doc_id, chunk.start, chunk.end))
                own[int(corpus.starts[number]) + place.ordinal] = 1
        queries.append(replace(query, spans=tuple(dict.fromkeys(spans))))
        gold.append(own)
    return replace(corpus, queries=tuple(queries), gold=tuple(gold))
