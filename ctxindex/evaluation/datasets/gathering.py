"""Queries from rows: several rows of one query are several answers to it.

Knows what a row may say of an answer; not the documents that it is about.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from ctxindex.evaluation.dataset import GoldSpan, Query
from ctxindex.evaluation.datasets.rows import Row

_GRADES = ("relevance", "grade")


@dataclass
class _Asked:
    """A query so far. Spans are the keys, so that each counts once and their order stays."""

    text: str
    spans: dict[GoldSpan, None] = field(default_factory=dict)
    grades: dict[str, int] = field(default_factory=dict)


@dataclass
class Gathering:
    """The queries read so far, by query_id, in the order in which they came, and the file and line of each answer."""

    asked: dict[str, _Asked] = field(default_factory=dict)
    places: dict[tuple[str, GoldSpan | str | None], str] = field(default_factory=dict)

    def ask(self, query_id: str, text: str, row: Row) -> _Asked:
        """The query of that name, made where it is new.

        Raises:
            DatasetError: it has another text in an earlier row.
        """
        known = self.asked.setdefault(query_id, _Asked(text))
        self.places.setdefault((query_id, None), row.place)
        if known.text != text:
            raise row.error(f"the query {query_id!r} has another text than in an earlier row")
        return known

    def add_span(self, query_id: str, span: GoldSpan, row: Row) -> None:
        """One more answer to a query that was asked."""
        self.asked[query_id].spans[span] = None
        self.places.setdefault((query_id, span), row.place)

    def add_grade(self, query_id: str, row: Row) -> None:
        """One more document that answers, or not, with the grade that the row gives it.

        Raises:
            DatasetError: the grade is none, or another than in an earlier row.
        """
        doc_id = row.identifier("doc_id")
        name = next((name for name in _GRADES if row.has(name)), None)
        grade = 1 if name is None else row.integer(name)
        if grade < 0:
            raise row.error(f'"{name}" is {grade}: grades begin at 0')
        known = self.asked[query_id].grades.setdefault(doc_id, grade)
        if known != grade:
            raise row.error(f"grades {doc_id!r} with {grade}, an earlier row with {known}")
        self.places.setdefault((query_id, doc_id), row.place)

    def queries(self) -> tuple[Query, ...]:
        """All of them."""
        return tuple(
            Query(query_id, one.text, tuple(one.spans), dict(one.grades)) for query_id, one in self.asked.items()
        )


def gather(rows: Iterable[Row], *, numbered: bool = False) -> Gathering:
    """The queries of rows `{"query_id", "query", "doc_id", "start", "end"}`.

    Rows without `start` and `end` are about a document as a whole, with a grade in `relevance` or `grade`, or else 1.

    Args:
        rows: one answer each.
        numbered: a row without a `query_id` is a query of its own, named by the number of its line.

    Raises:
        DatasetError: a row is not of that form, or rows with and without spans are mixed.
    """
    gathering = Gathering()
    with_spans: bool | None = None
    for row in rows:
        query_id = str(row.number) if numbered and not row.has("query_id") else row.identifier("query_id")
        gathering.ask(query_id, row.string("query"), row)
        has_span = row.has("start") or row.has("end")
        if with_spans is None:
            with_spans = has_span
        elif with_spans != has_span:
            raise row.error(
                f'has {"a" if has_span else "no"} "start", unlike the rows before: give all of them spans, or none'
            )
        if has_span:
            gathering.add_span(query_id, gold_span(row), row)
        else:
            gathering.add_grade(query_id, row)
    return gathering


def gold_span(row: Row) -> GoldSpan:
    """The span that a row names."""
    return GoldSpan(row.identifier("doc_id"), row.integer("start"), row.integer("end"))
