"""Answers in documents that changed after the questions were written: found again by their words, or left out.

A row may hold the words of its answer as `evidence`. Where the document says something else at its span, the span goes
to where the words stand now. White space is no part of the words: the documents of an index have other blanks.

Words and numbers are whole: "rent of 100" stands neither in "rent of 1000" nor in "rent of 100,000". Where a span
begins or ends inside of one, its row has the rest of it as well, `around`: [what is before the span, what is after it].
"""

from __future__ import annotations

import logging
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from ctxindex.chunking.spans import Span
from ctxindex.evaluation.dataset import DatasetError
from ctxindex.evaluation.datasets.rows import Row
from ctxindex.types import Document

_log = logging.getLogger("ctxindex")

_UNSPACED = re.compile(
    r"[\u0e00-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]"
)
"""Letters that do not tell where a word ends: of scripts without blanks, and of Korean, whose words take endings."""
_POINTS = ".,"
"""Marks that stand inside a number."""


def found_again(rows: Iterable[Row], documents: Iterable[Document], file: str | Path) -> list[Row]:
    """The rows, each with its answer where the document has it now, and without those whose answers are gone.

    Rows without `evidence` are what they were, and so are those about documents that are not there. What moved or was
    left out is told in the log, once.

    Args:
        rows: one answer each.
        documents: what they are about.
        file: where the rows are from, for messages.

    Raises:
        DatasetError: no row is left, or one has a span that is none, or an `around` that is none.
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


def around(text: str, start: int, end: int) -> tuple[str, str]:
    """The rest of the words or numbers inside of which a span begins and ends; nothing where it holds whole ones."""
    first, last = start, end
    while _goes_on(text, first):
        first -= 1
    while _goes_on(text, last):
        last += 1
    return text[first:start], text[end:last]


def _goes_on(text: str, place: int) -> bool:
    """Whether a word or a number is on both sides of a place."""
    if not 0 < place < len(text):
        return False
    before, after = text[place - 1], text[place]
    if before in _POINTS:
        return after.isdigit() and place > 1 and text[place - 2].isdigit()
    if after in _POINTS:
        return before.isdigit() and text[place + 1 : place + 2].isdigit()
    return _is_of_word(before) and _is_of_word(after)


def _is_of_word(character: str) -> bool:
    # Marks on letters are characters of their own in some texts and in some scripts.
    is_any = character.isalnum() or character == "_" or unicodedata.category(character).startswith("M")
    return is_any and _UNSPACED.match(character) is None


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
    words, start, end = _Words.of(row), row.integer("start"), row.integer("end")
    if words.are_at(text, start, end):
        return row
    moved = _Moved.of(words, text)
    return None if moved is None else moved.applied(row, start)


@dataclass(frozen=True, slots=True)
class _Words:
    """The evidence of a row, and what its first word has before and its last word after it."""

    before: str
    evidence: str
    after: str

    @classmethod
    def of(cls, row: Row) -> _Words:
        """What a row with evidence says.

        Raises:
            DatasetError: `around` is something else.
        """
        evidence, rest = row.string("evidence"), row.values.get("around") or ["", ""]
        if not isinstance(rest, list) or len(rest) != 2 or not all(isinstance(part, str) for part in rest):
            raise row.error(f'"around" is {rest!r}, and no [text before the span, text after it] of words that it cuts')
        return cls(rest[0], evidence, rest[1])

    def are_at(self, text: str, start: int, end: int) -> bool:
        """Whether a span still has the evidence, in the same whole words."""
        first, last = start - len(self.before), end + len(self.after)
        return 0 <= first <= start < end and text[first:last].split() == self._all and _is_whole(text, first, last)

    def places(self, text: str) -> Iterator[tuple[int, ...]]:
        """The places of the characters of the evidence, for each time that its whole words stand in a text."""
        skipped, count = len(_characters(self.before)), len(_characters(self.evidence))
        if not count:
            return
        pattern = re.compile(r"\s+".join(map(re.escape, self._all)))
        found = pattern.search(text)
        while found is not None:
            if _is_whole(text, *found.span()):
                yield _characters(text, *found.span())[skipped : skipped + count]
            found = pattern.search(text, found.start() + 1)

    @property
    def _all(self) -> list[str]:
        return f"{self.before}{self.evidence}{self.after}".split()


def _is_whole(text: str, start: int, end: int) -> bool:
    return not _goes_on(text, start) and not _goes_on(text, end)


@dataclass(frozen=True, slots=True)
class _Moved:
    """Where the words of an answer stand: the places of their characters in the row's evidence and in the text."""

    before: tuple[int, ...]
    now: tuple[int, ...]

    @classmethod
    def of(cls, words: _Words, text: str) -> _Moved | None:
        """None where the text has the words not at all, or more than once."""
        found = list(islice(words.places(text), 2))
        return cls(_characters(words.evidence), found[0]) if len(found) == 1 else None

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


def _characters(text: str, start: int = 0, end: int | None = None) -> tuple[int, ...]:
    """The places of all that is no white space."""
    return tuple(place for place in range(start, len(text) if end is None else end) if not text[place].isspace())
