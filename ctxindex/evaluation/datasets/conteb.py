"""The sets of ConTEB: tables `documents` and `queries`, as a folder or on the hub; an answer is a chunk.

    documents    chunk_id ("doc-id_ordinal"), chunk
    queries      query, chunk_id or a list of them (also called chunk_ids); query_id or id where there is one

A document's text is its chunks with blank lines between them. The chunks are what the set means to be ranked.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ctxindex.chunking.spans import Span
from ctxindex.evaluation.dataset import Dataset, DatasetError, GoldSpan, check
from ctxindex.evaluation.datasets.gathering import Gathering
from ctxindex.evaluation.datasets.rows import Row, jsonl_file, read_jsonl
from ctxindex.evaluation.datasets.tables import SPLITS, Splits, find_tables, read_table
from ctxindex.types import Document

_TABLES: Final = ("documents", "queries")
_DOCUMENT_COLUMNS: Final = ("chunk_id", "chunk")
_QUERY_COLUMNS: Final = ("query", "chunk_id", "chunk_ids", "query_id", "id")
_SEPARATOR: Final = "\n\n"
_ORDINAL: Final = re.compile(r"[0-9]{1,18}")

_log = logging.getLogger("ctxindex")


def is_conteb(folder: Path) -> bool:
    """Whether a folder has the tables of this format."""
    lines = jsonl_file(folder, "documents")
    if lines is not None:
        first = _first(lines)
        if first is None or not first.has("chunk_id") or first.has("doc_id"):
            return False  # whoever reads it as documents says what is wrong
    return len(_tables(folder)) == len(_TABLES)


def _tables(folder: Path) -> dict[str, Splits]:
    return find_tables(folder, _TABLES, leave_out=_is_set_of_its_own)


def _is_set_of_its_own(folder: Path) -> bool:
    """Whether a folder inside of another has the span format, which calls its files as the tables are called."""
    documents = jsonl_file(folder, "documents")
    if documents is None or jsonl_file(folder, "queries") is None:
        return False
    first = _first(documents)
    return first is not None and first.has("doc_id")


def _first(file: Path) -> Row | None:
    """The first row of a file; None where it has none, or one that is broken."""
    try:
        return next(read_jsonl(file), None)
    except DatasetError:
        return None


def open_conteb(folder: Path, name: str) -> Dataset:
    """The dataset in a folder of this format: its split `test`, or else `validation`, or else `train`.

    Raises:
        DatasetError: something in it can't be read, or makes no sense.
    """
    tables = _tables(folder)
    missing = next((table for table in _TABLES if table not in tables), None)
    if missing is not None:
        raise DatasetError(f"{folder} has no table {missing!r}")
    split = _split(tables["queries"], folder)
    chunks = _Chunks()
    for row in read_table(_documents_of(tables["documents"], split, folder), _DOCUMENT_COLUMNS):
        chunks.add(row)
    documents, spans = chunks.documents(name)
    gathering = Gathering()
    for row in read_table(tables["queries"][split], _QUERY_COLUMNS):
        _ask(row, gathering, chunks.gold)
    units = {doc_id: tuple(own) for doc_id, own in spans.items()}
    return check(Dataset(name, documents, gathering.queries(), units, given=True), gathering.places)


@dataclass
class _Chunks:
    """The chunks of all documents: (ordinal, chunk_id, text) by doc_id, and once those are known, the span of each."""

    found: dict[str, list[tuple[int, str, str]]] = field(default_factory=dict)
    gold: dict[str, GoldSpan] = field(default_factory=dict)
    _seen: set[str] = field(default_factory=set)

    def add(self, row: Row) -> None:
        """Take one chunk."""
        chunk_id = row.identifier("chunk_id")
        doc_id, _, ordinal = chunk_id.rpartition("_")
        if not doc_id.strip() or not _ORDINAL.fullmatch(ordinal):
            raise row.error(f'"chunk_id" is {chunk_id!r}: expected the document and a number, as in a_0')
        if chunk_id in self._seen:
            raise row.error(f"the chunk {chunk_id!r} occurs twice")
        self._seen.add(chunk_id)
        self.found.setdefault(doc_id, []).append((int(ordinal), chunk_id, row.string("chunk")))

    def documents(self, name: str) -> tuple[tuple[Document, ...], dict[str, list[Span]]]:
        """The documents, and the spans of their chunks in the order of the ordinals."""
        documents: list[Document] = []
        spans: dict[str, list[Span]] = {}
        shuffled: list[str] = []
        for doc_id, own in self.found.items():
            ordered = sorted(own, key=lambda chunk: chunk[0])
            if ordered != own:
                shuffled.append(doc_id)
            start = 0
            spans[doc_id] = []
            for _, chunk_id, text in ordered:
                end = start + len(text)
                spans[doc_id].append((start, end))
                self.gold[chunk_id] = GoldSpan(doc_id, start, end)
                start = end + len(_SEPARATOR)
            documents.append(Document(doc_id, _SEPARATOR.join(text for *_, text in ordered)))
        if shuffled:
            _log.warning(
                "%s: the rows of %d documents are not in the order of their chunks' numbers, which counts (%s)",
                *(name, len(shuffled), shuffled[0]),
            )
        return tuple(documents), spans


def _ask(row: Row, gathering: Gathering, gold: Mapping[str, GoldSpan]) -> None:
    named = next((name for name in ("query_id", "id") if row.has(name)), None)
    query_id = str(row.number) if named is None else row.identifier(named)
    gathering.ask(query_id, row.string("query"), row)
    for chunk_id in _chunk_ids(row):
        span = gold.get(chunk_id)
        if span is None:
            raise row.error(f"names the chunk {chunk_id!r}, which the set does not have")
        if span.start == span.end:
            raise row.error(f"names the chunk {chunk_id!r}, which is empty")
        gathering.add_span(query_id, span, row)


def _chunk_ids(row: Row) -> Iterable[str]:
    name = "chunk_ids" if row.has("chunk_ids") else "chunk_id"
    value: Any = row.values.get(name)
    values = value if isinstance(value, list) else [value]
    if value is None or not values:
        raise row.error(f'has no "{name}"' if value is None else f'"{name}" is empty')
    return [row.as_identifier(one, name) for one in values]


def _split(queries: Splits, folder: Path) -> str:
    split = next((split for split in SPLITS if split in queries), None)
    if split is None:
        raise DatasetError(f"{folder} has the splits {', '.join(queries)}; expected one of {', '.join(SPLITS)}")
    return split


def _documents_of(documents: Splits, split: str, folder: Path) -> list[Path]:
    """The files of the documents that the queries of a split are about."""
    own = documents.get(split)
    if own is None and len(documents) > 1:
        raise DatasetError(f"{folder} has queries in the split {split!r}, and documents in {', '.join(documents)}")
    return list(own if own is not None else next(iter(documents.values())))
