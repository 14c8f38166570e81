"""Answers in documents that changed after the questions were written: found again by their words, or left out.

A row may hold the words of its answer as `evidence`. Where the document says something else at its span, the span goes
to where the words stand now. White space is no part of the words: the documents of an index have other blanks.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ctxindex.chunking.spans import Span
from ctxindex.evaluation.dataset import DatasetError
from ctxindex.evaluation.datasets.rows import Row
from ctxindex.types import Document

_log = logging.getLogger("ctxindex")


def found_again(rows: Iterable[Row], documents: Iterable[Document], file: str | Path) -> list[Row]:
    """The rows, each with its answer where the document has it now, and without those whose answers are gone.

    Rows without `evidence` are what they were, and so are those about documents that are not there. What moved or was
    left out is told in the log, once.

    Args:
        rows: one answer each.
        documents: what they are about.
        file: where the rows are from, for messages.

    Raises:
        DatasetError: no row is left, or one has a span that is none.
    """
    texts = {document.doc_id: document.text for document in documents}
    kept: list[Row] = []
    moved = gone = 0
    for row in rows:
        found = _settled(row, texts)
        if found is None:
            gone += 1
            continue
        kept.append(found)
        moved += found is not row
    if gone and not kept:
        raise DatasetError(
            f"{file}: no answer stands in its document any more, all say something else now: make the pairs again "
            "(ctxindex pairs), or give the documents that they were made of"
        )
    if moved or gone:
        _log.warning("%s: %s", file, _told(moved, gone))
    return kept


def _told(moved: int, gone: int) -> str:
    parts = []
    if moved:
        answers = "1 answer has" if moved == 1 else f"{moved:,} answers have"
        parts.append(f"{answers} moved with the text of changed documents and been found again")
    if gone:
        which = "its document says" if gone == 1 else "their documents say"
        parts.append(f"{gone:,} left out: {which} something else now; make the pairs again")
    return ", ".join(parts)


def _settled(row: Row, texts: Mapping[str, str]) -> Row | None:
    """The row itself where nothing changed, or else with other spans; None where its answer is not to be found."""
    if not isinstance(row.values.get("evidence"), str) or not row.has("start"):
        return row
    text = texts.get(row.identifier("doc_id"))
    if text is None:
        return row
    evidence, start, end = row.string("evidence"), row.integer("start"), row.integer("end")
    if 0 <= start < end and text[start:end].split() == evidence.split():
        return row
    moved = _Moved.of(evidence, text)
    return None if moved is None else moved.applied(row, start)


@dataclass(frozen=True, slots=True)
class _Moved:
    """Where the words of an answer stand: the places of their characters in the row's evidence and in the text."""

    before: tuple[int, ...]
    now: tuple[int, ...]

    @classmethod
    def of(cls, evidence: str, text: str) -> _Moved | None:
        """None where the text has the words not at all, or more than once."""
        pattern = re.compile(r"\s+".join(map(re.escape, evidence.split())))
        if not pattern.pattern:
            return None
        first = pattern.search(text)
        if first is None or pattern.search(text, first.start() + 1) is not None:
            return None
        return cls(_characters(evidence, (0, len(evidence))), _characters(text, first.span()))

    def applied(self, row: Row, start: int) -> Row | None:
        """The row with its span, and what it removes, where they are now; `start` is where its evidence began.

        None where it removes what is not within its evidence.
        """
        values: dict[str, Any] = {**row.values, "start": self.now[0], "end": self.now[-1] + 1}
        remove = row.values.get("remove")
        if remove is not None:
            inside = self._inside(remove, start)
            if inside is None:
                return None
            values["remove"] = list(inside)
        return replace(row, values=values)

    def _inside(self, remove: Any, start: int) -> Span | None:
        if not isinstance(remove, list) or len(remove) != 2 or any(type(place) is not int for place in remove):
            return None
        first, last = (place - start for place in remove)
        concerned = [now for before, now in zip(self.before, self.now, strict=True) if first <= before < last]
        if not concerned or first < 0 or last > self.before[-1] + 1:
            return None
        return concerned[0], concerned[-1] + 1


def _characters(text: str, span: Span) -> tuple[int, ...]:
    """The places of all that is no white space."""
    return tuple(place for place in range(*span) if not text[place].isspace())
