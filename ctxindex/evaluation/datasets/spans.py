"""The span format: a folder with documents.jsonl and queries.jsonl, gzipped or not.

    documents    {"doc_id", "title", "text"}, a line a document; `chunks`, [[start, end], …], where the set has its own
    queries      {"query_id", "query", "doc_id", "start", "end"}, a line an answer: `text[start:end]`, in characters

Texts are taken as they are, since offsets count their characters. The set's own chunks are `chunks` of the documents;
or where queries name the `paragraph` of an answer, all paragraphs; or where they name its `section`, the answers
themselves and what stands between them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ctxindex.chunking.spans import Span
from ctxindex.evaluation.dataset import Dataset, DatasetError, check
from ctxindex.evaluation.datasets.gathering import gather, gold_span
from ctxindex.evaluation.datasets.rows import Row, jsonl_file, read_jsonl
from ctxindex.loading.jsonl import parse_document
from ctxindex.loading.values import DEFAULT_MAX_CHARS
from ctxindex.types import Document

_BREAK = "\n\n"


def is_spans(folder: Path) -> bool:
    """Whether a folder has the files of this format."""
    return jsonl_file(folder, "documents") is not None and jsonl_file(folder, "queries") is not None


def open_spans(folder: Path, name: str) -> Dataset:
    """The dataset in a folder of this format.

    Raises:
        DatasetError: something in it can't be read, or makes no sense.
    """
    documents_file, queries_file = jsonl_file(folder, "documents"), jsonl_file(folder, "queries")
    if documents_file is None or queries_file is None:
        raise DatasetError(f"{folder} has no documents.jsonl, or no queries.jsonl")
    documents: list[Document] = []
    chunks: dict[str, tuple[Span, ...]] = {}
    for row in read_jsonl(documents_file):
        documents.append(_document(row))
        if row.has("chunks"):
            chunks[documents[-1].doc_id] = _chunks(row, len(documents[-1].text))
    rows = list(read_jsonl(queries_file))
    gathered = gather(rows)
    dataset = check(Dataset(name, tuple(documents), gathered.queries()), gathered.places)
    if not chunks:
        try:
            return replace(dataset, units=_units(dataset, rows))
        except DatasetError as error:  # fields of these names may mean something else; only --chunks given needs them
            return replace(dataset, no_units=str(error))
    without = next((document.doc_id for document in documents if document.doc_id not in chunks), None)
    if without is not None:
        raise DatasetError(f'{documents_file}: the document {without!r} has no "chunks", others have')
    return replace(dataset, units=chunks, given=True)


def _document(row: Row) -> Document:
    with row.explained():
        doc_id, parsed = parse_document(dict(row.values), max_chars=DEFAULT_MAX_CHARS)
    return Document(doc_id, parsed.text, parsed.title, parsed.metadata)


def _chunks(row: Row, length: int) -> tuple[Span, ...]:
    values = row.values["chunks"]
    if not isinstance(values, list):
        raise row.error('"chunks" is no list')
    spans = [_as_span(row, value, length) for value in values]
    if not spans:
        raise row.error('"chunks" is empty')
    if spans != sorted(set(spans)):
        raise row.error('"chunks" are not in the order of the text, or one is there twice')
    return tuple(spans)


def _as_span(row: Row, value: Any, length: int) -> Span:
    if not isinstance(value, list) or len(value) != 2 or any(type(number) is not int for number in value):
        raise row.error(f'"chunks" has {value!r}: each chunk is [start, end]')
    start, end = value
    if not 0 <= start < end <= length:
        raise row.error(f'"chunks" has [{start}, {end}], outside of the {length:,} characters of the text')
    return start, end


def _units(dataset: Dataset, rows: Sequence[Row]) -> dict[str, tuple[Span, ...]] | None:
    """The set's own chunks, as far as fields of its queries tell of any. The rows are known to be good."""
    if dataset.level == "document":
        return None
    if any(row.has("paragraph") for row in rows):
        return _paragraphs(dataset.documents, rows)
    if any(row.has("section") for row in rows):
        sections = _sections(rows)
        return {one.doc_id: tuple(_filled(one, sections.get(one.doc_id, {}))) for one in dataset.documents}
    return None


def _paragraphs(documents: Iterable[Document], rows: Iterable[Row]) -> dict[str, tuple[Span, ...]]:
    """All paragraphs by doc_id, the empty ones left out; each row's answer is known to lie in the one that it names."""
    spans = {document.doc_id: tuple(_split(document.text)) for document in documents}
    for row in rows:
        if row.has("paragraph"):
            gold, number = gold_span(row), row.integer("paragraph")
            own = spans[gold.doc_id]
            if not 0 <= number < len(own):
                raise row.error(f"names paragraph {number} of {gold.doc_id!r}, which has {len(own)} of them, from 0")
            start, end = own[number]
            if not start <= gold.start < gold.end <= end:
                raise row.error(
                    f"the span [{gold.start}, {gold.end}) is not within paragraph {number} of {gold.doc_id!r}, which "
                    f"is [{start}, {end})"
                )
    texts = {document.doc_id: document.text for document in documents}
    return {
        doc_id: tuple((start, end) for start, end in own if texts[doc_id][start:end].strip())
        for doc_id, own in spans.items()
    }


def _split(text: str) -> Iterator[Span]:
    """The paragraphs of a text, those included that hold nothing."""
    start = 0
    for paragraph in text.split(_BREAK):
        yield start, start + len(paragraph)
        start += len(paragraph) + len(_BREAK)


def _sections(rows: Iterable[Row]) -> dict[str, dict[int, Span]]:
    """The span of each section that is an answer, by doc_id and number."""
    found: dict[str, dict[int, Span]] = {}
    for row in rows:
        if row.has("section"):
            gold, number = gold_span(row), row.integer("section")
            span = (gold.start, gold.end)
            known = found.setdefault(gold.doc_id, {}).setdefault(number, span)
            if known != span:
                raise row.error(
                    f"section {number} of {gold.doc_id!r} is [{span[0]}, {span[1]}), in an earlier row it is "
                    f"[{known[0]}, {known[1]})"
                )
    return found


def _filled(document: Document, sections: Mapping[int, Span]) -> Iterator[Span]:
    """The sections of a document in the order of its text, and between them what else of it holds text."""
    place = 0
    for start, end in [*sorted(sections.values()), (len(document.text), len(document.text))]:
        if start < place:
            raise DatasetError(f"two sections of {document.doc_id!r} overlap at character {start:,}")
        between = document.text[place:start]
        if between.strip():
            first = place + len(between) - len(between.lstrip())
            yield first, first + len(between.strip())
        if start < end:
            yield start, end
        place = end
