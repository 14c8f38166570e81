"""A dataset cut into chunks: what is ranked, and which chunks are gold.

A chunk is relevant to a query when it overlaps one of the query's spans by a character at least.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from ctxindex.chunking.sections import headings_of
from ctxindex.errors import DocumentError
from ctxindex.evaluation.dataset import Dataset, DatasetError, Level, Query
from ctxindex.evaluation.ranking import tie_order
from ctxindex.spec import ChunkerSpec
from ctxindex.types import Chunk, ChunkedDocument, Chunker, Document

if TYPE_CHECKING:
    import numpy.typing as npt

    Numbers = npt.NDArray[np.int64]

_log = logging.getLogger("ctxindex")


@dataclass(frozen=True)
class Corpus:
    """Chunked documents and queries; chunks are numbered from 0 through all documents, in order.

    `gold[i]` are the grades of what answers query i, by the number of the chunk, or of the document where `level` is
    "document"; empty where no chunk holds the answer (the query then counts as not answered). `unreadable` are
    documents that gave no chunk, and why. `chunker` is how the documents were cut, None for the set's own chunks.
    """

    name: str
    level: Level
    documents: tuple[ChunkedDocument, ...]
    queries: tuple[Query, ...]
    gold: tuple[Mapping[int, int], ...]
    unreadable: Mapping[str, str]
    chunker: ChunkerSpec | None = None

    @cached_property
    def starts(self) -> Numbers:
        """(documents + 1,) int64: the number of each document's first chunk, and of one past the last."""
        return np.cumsum([0, *(len(one.chunks) for one in self.documents)])

    @cached_property
    def owners(self) -> Numbers:
        """(chunks,) int64: the number of the document that each chunk is of."""
        return np.repeat(np.arange(len(self.documents)), np.diff(self.starts))

    @property
    def n_chunks(self) -> int:
        """Chunks of all documents."""
        return int(self.starts[-1])

    @cached_property
    def chunk_names(self) -> tuple[str, ...]:
        """`doc_id_ordinal` of every chunk: what a ranking calls it, and what ties are decided by."""
        return tuple(f"{one.document.doc_id}_{chunk.ordinal}" for one in self.documents for chunk in one.chunks)

    @cached_property
    def document_names(self) -> tuple[str, ...]:
        """The doc_ids."""
        return tuple(one.document.doc_id for one in self.documents)

    @cached_property
    def chunk_order(self) -> Numbers:
        """(chunks,) int64: the place of each chunk among equal scores, as of `tie_order`."""
        return tie_order(self.chunk_names)

    @cached_property
    def document_order(self) -> Numbers:
        """(documents,) int64: the same of documents."""
        return tie_order(self.document_names)

    @property
    def unanswerable(self) -> int:
        """Queries that nothing here answers."""
        return sum(not gold for gold in self.gold)

    def chunk(self, number: int) -> tuple[Document, Chunk]:
        """The chunk of that number, and its document."""
        owner = int(self.owners[number])
        one = self.documents[owner]
        return one.document, one.chunks[number - int(self.starts[owner])]

    def gold_documents(self, query: int) -> dict[int, int]:
        """The grades of the documents that answer a query, by number: the highest of each document's chunks."""
        if self.level == "document":
            return dict(self.gold[query])
        grades: dict[int, int] = {}
        for number, grade in self.gold[query].items():
            owner = int(self.owners[number])
            grades[owner] = max(grade, grades.get(owner, 0))
        return grades

    def position(self, query: int) -> float:
        """Where in its document a query's first gold chunk stands: 0 is the first chunk, 1 the last.

        Not a number where documents are ranked, where nothing is gold, and where the document is a single chunk.
        """
        if self.level == "document" or not self.gold[query]:
            return float("nan")
        number = min(self.gold[query])
        owner = int(self.owners[number])
        first, last = int(self.starts[owner]), int(self.starts[owner + 1]) - 1
        return (number - first) / (last - first) if last > first else float("nan")

    def part(self, documents: Collection[int], queries: Collection[int]) -> Corpus:
        """The corpus of some documents and queries, by number, in the order that they have here.

        Raises:
            ValueError: a query's gold document is not among the documents.
        """
        kept = sorted(documents)
        number_of = {old: new for new, old in enumerate(kept)}
        smaller = replace(
            self,
            documents=tuple(self.documents[number] for number in kept),
            queries=tuple(self.queries[number] for number in sorted(queries)),
            gold=(),
        )
        gold = []
        for query in sorted(queries):
            if any(owner not in number_of for owner in self.gold_documents(query)):
                raise ValueError(f"a gold document of query {query} is left out")
            gold.append({self._renumber(number, number_of, smaller): g for number, g in self.gold[query].items()})
        return replace(smaller, gold=tuple(gold))

    def _renumber(self, number: int, number_of: Mapping[int, int], smaller: Corpus) -> int:
        if self.level == "document":
            return number_of[number]
        owner = int(self.owners[number])
        return number - int(self.starts[owner]) + int(smaller.starts[number_of[owner]])


def cut(dataset: Dataset, chunker: Chunker | None, spec: ChunkerSpec | None = None) -> Corpus:
    """The dataset in chunks: those of `chunker`, which `spec` describes, or where it is None, the set's own.

    A document that cannot be cut is left out and named in `unreadable`, as an ingest would leave it out.

    Raises:
        DatasetError: the set has no chunks of its own, or no document can be cut.
    """
    if chunker is None and dataset.units is None:
        why = f" ({dataset.no_units})" if dataset.no_units else ""
        raise DatasetError(f"{dataset.name} has no chunks of its own{why}: leave out --chunks given")
    documents: list[ChunkedDocument] = []
    unreadable = dict(dataset.unreadable)
    for document in dataset.documents:
        try:
            chunks = _own_chunks(document, dataset.units) if chunker is None else chunker.chunk(document)
        except DocumentError as error:
            unreadable[document.doc_id] = error.reason
        else:
            documents.append(ChunkedDocument(document, chunks))
    if not documents:
        raise DatasetError(f"{dataset.name}: no document holds text that the model can read")
    if unreadable:
        doc_id, reason = next(iter(unreadable.items()))
        _log.warning("%s: %d documents left out (%s: %s)", dataset.name, len(unreadable), doc_id, reason)
    bare = Corpus(dataset.name, dataset.level, tuple(documents), dataset.queries, (), unreadable, spec)
    corpus = replace(bare, gold=_gold(bare))
    if corpus.unanswerable:
        _log.warning("%s: no chunk answers %d of the queries; they count as 0", dataset.name, corpus.unanswerable)
    return corpus


def _own_chunks(document: Document, units: Mapping[str, Sequence[tuple[int, int]]] | None) -> tuple[Chunk, ...]:
    spans = [(start, end) for start, end in (units or {}).get(document.doc_id, ()) if document.text[start:end].strip()]
    if not spans:
        raise DocumentError("has no chunks")
    return tuple(
        Chunk(ordinal, start, end, document.text[start:end], _headings(document, start, end))
        for ordinal, (start, end) in enumerate(spans)
    )


def _headings(document: Document, start: int, end: int) -> dict[str, list[str]]:
    found = headings_of(document, start, end)
    return {"headings": list(found)} if found else {}


def _gold(corpus: Corpus) -> tuple[dict[int, int], ...]:
    numbers = {doc_id: number for number, doc_id in enumerate(corpus.document_names)}
    if corpus.level == "document":
        return tuple(
            {numbers[doc_id]: grade for doc_id, grade in query.grades.items() if grade and doc_id in numbers}
            for query in corpus.queries
        )
    asked = {numbers[doc_id] for query in corpus.queries for doc_id in query.doc_ids if doc_id in numbers}
    edges = {owner: _edges(corpus.documents[owner].chunks) for owner in asked}
    return tuple(_overlapping(query, numbers, corpus.starts, edges) for query in corpus.queries)


def _edges(chunks: Sequence[Chunk]) -> tuple[Numbers, Numbers]:
    """Where chunks begin and end."""
    return np.array([chunk.start for chunk in chunks]), np.array([chunk.end for chunk in chunks])


def _overlapping(
    query: Query, numbers: Mapping[str, int], firsts: Numbers, edges: Mapping[int, tuple[Numbers, Numbers]]
) -> dict[int, int]:
    gold: dict[int, int] = {}
    for span in query.spans:
        owner = numbers.get(span.doc_id)
        if owner is None:
            continue  # unreadable: the query stays, unanswered
        starts, ends = edges[owner]
        gold |= dict.fromkeys((firsts[owner] + np.flatnonzero((starts < span.end) & (span.start < ends))).tolist(), 1)
    return gold
