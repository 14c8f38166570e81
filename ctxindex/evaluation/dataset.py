"""What is evaluated on: documents, queries, and where in the documents the answers stand.

Relevance is in characters of a document's text, never in chunks, so that one set serves every way of cutting. A set
whose answers are whole documents (BEIR, or questions without spans) ranks documents instead: a document scores as its
best chunk does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Literal, TypeAlias

from ctxindex.chunking.spans import Span
from ctxindex.errors import UsageError
from ctxindex.types import Document

Level: TypeAlias = Literal["chunk", "document"]
"""What is ranked: chunks, or documents."""

Places: TypeAlias = "Mapping[tuple[str, GoldSpan | str | None], str]"
"""File and line by the query_id and an answer of it, a span or a doc_id; None stands for the query itself."""


class DatasetError(UsageError):
    """A dataset that cannot be evaluated on as it is."""


@dataclass(frozen=True, slots=True)
class GoldSpan:
    """Evidence for a query: `text[start:end]` of the document `doc_id`, in characters."""

    doc_id: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Query:
    """A query, and what answers it: spans, or in a set that ranks documents, grades of 0 and more by doc_id."""

    query_id: str
    text: str
    spans: tuple[GoldSpan, ...] = ()
    grades: Mapping[str, int] = field(default_factory=dict)

    @property
    def doc_ids(self) -> frozenset[str]:
        """The documents that hold an answer."""
        return frozenset(span.doc_id for span in self.spans) | {name for name, grade in self.grades.items() if grade}


@dataclass(frozen=True)
class Dataset:
    """A named corpus with queries.

    `units` are the spans of the set's own chunks by doc_id, in the order of the text, where it has any (paragraphs,
    say), and `given` says that they are what the set means to be ranked. `no_units` says why there are none, where what
    the set says of them makes no sense. `unreadable` are documents that could not be loaded, and why: questions about
    them are asked, and stay unanswered.
    """

    name: str
    documents: tuple[Document, ...]
    queries: tuple[Query, ...]
    units: Mapping[str, tuple[Span, ...]] | None = None
    given: bool = False
    no_units: str = ""
    unreadable: Mapping[str, str] = field(default_factory=dict)

    @property
    def level(self) -> Level:
        """What is ranked."""
        return "chunk" if any(query.spans for query in self.queries) else "document"


def without_titles(dataset: Dataset) -> Dataset:
    """The dataset as if no document had a title, by a name that says so: what a method is worth on its text alone."""
    documents = tuple(replace(document, title=None) for document in dataset.documents)
    return replace(dataset, name=f"{dataset.name} without titles", documents=documents)


def check(dataset: Dataset, places: Places | None = None) -> Dataset:
    """The dataset itself, once it is known to make sense.

    Args:
        dataset: what is looked at.
        places: where queries and their answers were read, for messages; what is not in it is called by its query_id.

    Raises:
        DatasetError: with the first thing that does not.
    """
    name = dataset.name
    if not dataset.documents:
        raise DatasetError(f"{name}: there are no documents")
    if not dataset.queries:
        raise DatasetError(f"{name}: there are no queries")
    _require_unique("doc_id", name, (document.doc_id for document in dataset.documents))
    _require_unique("query_id", name, (query.query_id for query in dataset.queries))
    lengths = {document.doc_id: len(document.text) for document in dataset.documents}
    level = dataset.level
    for query in dataset.queries:
        _Checked(dataset, query, lengths, places or {}).require(level)
    return dataset


@dataclass(frozen=True, slots=True)
class _Checked:
    """A query of a dataset that is looked at, with the lengths of all texts that can be read."""

    dataset: Dataset
    query: Query
    lengths: Mapping[str, int]
    places: Places

    def require(self, level: Level) -> None:
        query = self.query
        if not query.text.strip():
            raise self._error("asks nothing: its query is empty")
        if level == "chunk" and not query.spans:
            raise self._error("has no span, others have: give all of them start and end, or none")
        if level == "document" and not query.doc_ids:
            raise self._error("has no relevant document")
        for span in query.spans:
            if reason := self._reason(span):
                raise self._error(reason, span)
        known = self.lengths.keys() | self.dataset.unreadable.keys()
        missing = next((doc_id for doc_id in query.grades if doc_id not in known), None)
        if missing is not None:
            raise self._error(_unknown(missing, self.lengths), missing)

    def _reason(self, span: GoldSpan) -> str:
        """What is wrong with a span, if anything is."""
        length = self.lengths.get(span.doc_id)
        if length is None:
            return "" if span.doc_id in self.dataset.unreadable else _unknown(span.doc_id, self.lengths)
        named = f"has the span [{span.start}, {span.end})"
        if span.end == span.start:
            return f"{named}, which is empty"
        if span.end < span.start:
            return f"{named}, which ends before it begins"
        if not 0 <= span.start < span.end <= length:
            return f"{named}, outside of the {length:,} characters of {span.doc_id!r}"
        return ""

    def _error(self, reason: str, answer: GoldSpan | str | None = None) -> DatasetError:
        query_id = self.query.query_id
        place = self.places.get((query_id, answer))
        if place is None:
            return DatasetError(f"{self.dataset.name}: query {query_id!r} {reason}")
        return DatasetError(f"{place}: {reason}")


def _unknown(doc_id: str, known: Iterable[str]) -> str:
    """What is wrong with a doc_id that the set does not have, and which one may be meant."""
    names = list(known)
    near = [name for name in names if name.endswith("/" + doc_id)] or get_close_matches(doc_id, names, 1, cutoff=0.8)
    meant = f": did you mean {near[0]!r}?" if near else f"; it has {names[0]!r}, for example"
    return f"is about the document {doc_id!r}, which the set does not have{meant}"


def _require_unique(what: str, name: str, values: Iterable[str]) -> None:
    seen: set[str] = set()
    for value in values:
        if value in seen:
            raise DatasetError(f"{name}: the {what} {value!r} occurs twice")
        seen.add(value)
