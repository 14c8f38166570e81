"""What loaders share: cleaning titles, turning headings into sections, and building a text block by block.

Knows no format.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from ctxindex.errors import DocumentError, MissingDependencyError
from ctxindex.loading.values import check_chars
from ctxindex.types import Section

_TITLE_CHARS: Final = 300
# The white space that markup collapses; a no-break space is none of it.
_MARKUP_SPACE: Final = re.compile(r"[ \t\n\r\f]+")
_SEPARATORS: Final = ("", " ", "\t", "\n", "\n\n")
_UNPRINTABLE: Final = re.compile(r"[\x00-\x1f\x7f\s]+")


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading of level 1 (the highest) and up, and the character of the text where it begins."""

    start: int
    level: int
    title: str


def clean_title(raw: str | None) -> str | None:
    """A title on one line, 300 characters at most; None where nothing is left."""
    if raw is None:
        return None
    # Cut before cleaning as well, so that a heading of a million characters costs nothing.
    title = _UNPRINTABLE.sub(" ", raw[: 10 * _TITLE_CHARS]).strip()
    return title[:_TITLE_CHARS].rstrip() or None


def repair_surrogates(text: str) -> str:
    """`text` with surrogate pairs joined and lone surrogates replaced by U+FFFD; most texts come back as they are."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def sections_of(headings: Iterable[Heading]) -> tuple[Section, ...]:
    """One section a heading, under the last heading of each higher level; headings without a title are left out."""
    open_headings: list[Heading] = []
    sections = []
    for heading in headings:
        title = clean_title(heading.title)
        if title is None:
            continue
        while open_headings and open_headings[-1].level >= heading.level:
            open_headings.pop()
        open_headings.append(Heading(heading.start, heading.level, title))
        sections.append(Section(heading.start, tuple(above.title for above in open_headings)))
    return tuple(sections)


def first_title(headings: Iterable[Heading]) -> str | None:
    """The title of the first heading that has one."""
    return next((title for heading in headings if (title := clean_title(heading.title))), None)


def missing_package(package: str, *, extra: str, purpose: str) -> DocumentError:
    """The failure of a document whose loader needs an optional package: it is tried again at the next run."""
    return DocumentError(str(MissingDependencyError(package, extra=extra, purpose=purpose)), transient=True)


@dataclass
class TextBuilder:
    r"""Joins pieces of text with as much white space between them as was asked for, and knows the place of each.

    Breaks ask for white space ("", " ", "\t", "\n" or "\n\n") before the next piece; none stands at the beginning
    or the end of the text.
    """

    max_chars: int
    headings: list[Heading] = field(default_factory=list)
    _parts: list[str] = field(default_factory=list)
    _length: int = 0
    _pending: str = ""
    _held: bool = False

    def add(self, text: str) -> None:
        """Append `text` as it is.

        Raises:
            DocumentError: where the text grows over `max_chars`.
        """
        if not text:
            return
        if self._length:
            self._append(self._pending)
        self._pending = ""
        self._held = False
        self._append(text)
        check_chars(self._length, self.max_chars)

    def add_collapsed(self, text: str) -> None:
        """Append `text` with each run of markup white space as one space, and none next to a break."""
        collapsed = _MARKUP_SPACE.sub(" ", text)
        if collapsed.startswith(" "):
            self.break_with(" ")
        self.add(collapsed.strip(" "))
        if collapsed.endswith(" ") and collapsed != " ":
            self.break_with(" ")

    def break_with(self, separator: str) -> None:
        """Ask for `separator` before the next piece; of several asked for, the widest counts."""
        if self._held:
            return
        self._pending = max(self._pending, separator, key=_SEPARATORS.index)

    def break_line(self) -> None:
        """Ask for a line break; two of them in a row separate paragraphs."""
        self._pending = "\n\n" if self._pending in ("\n", "\n\n") else "\n"

    def hold(self) -> None:
        """Keep the break asked for last against wider ones, until the next piece."""
        self._held = True

    def release(self) -> None:
        """Let wider breaks win again."""
        self._held = False

    def mark(self) -> int:
        """The place of the next piece in the list of pieces, to be handed to `heading`."""
        return len(self._parts)

    def heading(self, mark: int, level: int) -> None:
        """All that was added since `mark` is a heading, if it is anything."""
        parts = self._parts[mark:]
        # The first of them may be the white space that was pending; it belongs to no heading.
        if parts and not parts[0].strip(" \t\n"):
            parts = parts[1:]
        title = "".join(parts)
        if title:
            self.headings.append(Heading(self._length - len(title), level, title))

    def text(self) -> str:
        """All pieces so far."""
        return "".join(self._parts)

    def _append(self, text: str) -> None:
        if text:
            self._parts.append(text)
            self._length += len(text)
