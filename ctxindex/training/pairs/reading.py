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

from ctxindex.chunking.spans import Span
from ctxindex.evaluation.corpus import Corpus, cut
from ctxindex.evaluation.dataset import Dataset, DatasetError, GoldSpan, check
from ctxindex.evaluation.datasets.evidence import found_again
from ctxindex.evaluation.datasets.gathering import Gathering, gather
from ctxindex.evaluation.datasets.rows import Row, read_jsonl
from ctxindex.spec import ChunkerSpec
from ctxindex.training.pairs.writing import Cuts
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
    loaded: list[Document] = []
    failures: dict[str, str] = {}
    for one in documents:
        if isinstance(one, Document):
            loaded.append(one)
        else:
            failures[one.doc_id] = one.reason
    rows = found_again(written, loaded, file)
    lengths = {document.doc_id: len(document.text) for document in loaded}
    places = _places(rows) if any(map(_names_chunk, rows)) else None
    asked = gather(rows, numbered=True) if places is None else _whole(rows, places, lengths)
    dataset = check(Dataset(name, tuple(loaded), asked.queries(), unreadable=failures), asked.places)
    if dataset.level == "document":
        raise DatasetError(
            f'{file} says which documents answer, and not where: each line needs "start" and "end", or "chunk"'
        )
    corpus = cut(_without(dataset, _removed(rows, lengths)), chunker, spec)
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


def _removed(rows: Iterable[Row], lengths: Mapping[str, int]) -> dict[str, list[Span]]:
    """What is to be cut out of each document: in order, and no two stretches overlap."""
    found: dict[str, list[Span]] = {}
    for row in rows:
        if row.has("remove"):
            doc_id = row.identifier("doc_id")
            span = _span(row, "remove")
            if doc_id in lengths and span[1] > lengths[doc_id]:
                raise row.error(f'"remove" is outside of the {lengths[doc_id]:,} characters of {doc_id!r}')
            found.setdefault(doc_id, []).append(span)
    return {doc_id: _joined(spans) for doc_id, spans in found.items()}


def _span(row: Row, name: str) -> Span:
    value = row.values[name]
    numbers = value if isinstance(value, list) and len(value) == 2 else [None, None]
    start, end = numbers
    if type(start) is not int or type(end) is not int or not 0 <= start < end:
        raise row.error(f'"{name}" is {value!r}, and no [start, end] in characters')
    return start, end


def _joined(spans: Iterable[Span]) -> list[Span]:
    joined: list[Span] = []
    for start, end in sorted(spans):
        if joined and start <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(end, joined[-1][1])
        else:
            joined.append((start, end))
    return joined


def _without(dataset: Dataset, removed: Mapping[str, Sequence[Span]]) -> Dataset:
    """The dataset with these stretches cut out of its documents, and its answers where they stand then."""
    if not removed:
        return dataset
    cuts = {doc_id: Cuts(spans) for doc_id, spans in removed.items()}
    documents = [_shortened(one, cuts[one.doc_id]) if one.doc_id in cuts else one for one in dataset.documents]
    queries = [replace(query, spans=tuple(_moved(query.spans, cuts))) for query in dataset.queries]
    kept = tuple(query for query in queries if query.spans)
    if len(kept) < len(queries):
        count = len(queries) - len(kept)
        _log.warning("%s: %d queries left out, whose answers other pairs remove", dataset.name, count)
    return replace(dataset, documents=tuple(documents), queries=kept)


def _shortened(document: Document, cut_out: Cuts) -> Document:
    return replace(
        document,
        text=cut_out.apply(document.text),
        sections=tuple(replace(section, start=cut_out.move(section.start)) for section in document.sections),
        pages=tuple(cut_out.move(page) for page in document.pages),
    )


def _moved(spans: Iterable[GoldSpan], cuts: Mapping[str, Cuts]) -> Iterable[GoldSpan]:
    for span in spans:
        if span.doc_id not in cuts:
            yield span
            continue
        start, end = cuts[span.doc_id].move(span.start), cuts[span.doc_id].move(span.end)
        if start < end:
            yield replace(span, start=start, end=end)
