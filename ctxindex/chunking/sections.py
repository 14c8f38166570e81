"""What a document's structure says of a place in its text: the headings above it, the page it is on."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator

from ctxindex.chunking.spans import Span
from ctxindex.types import Document


def section_blocks(document: Document) -> Iterator[Span]:
    """The text cut at its headings; a heading with no text of its own stays with what follows it."""
    start = 0
    for section in document.sections:
        if document.text[start : section.start].strip() and not _is_bare_heading(document, start, section.start):
            yield start, section.start
            start = section.start
    yield start, len(document.text)


def headings_of(document: Document, start: int, end: int) -> tuple[str, ...]:
    """The heading path of the text in `[start, end)`, outermost first; empty before the first heading.

    It is the path in force where the text begins. Headings that open the span with no text of their own between them
    count as one: the path is that of the last of them.
    """
    number = _section_at(document, start)
    while (
        number + 1 < len(document.sections)
        and document.sections[number + 1].start < end
        and _is_bare_heading(document, start, document.sections[number + 1].start)
    ):
        number += 1
        start = document.sections[number].start
    return document.sections[number].path if number >= 0 else ()


def page_at(document: Document, position: int) -> int:
    """The page, counted from 1, that a character of the text is on; 1 where the document has no pages."""
    return max(1, bisect_right(document.pages, position))


def _is_bare_heading(document: Document, start: int, end: int) -> bool:
    """Whether `[start, end)` is made of sections that are nothing but their headings."""
    number = _section_at(document, start)
    if number < 0 or document.sections[number].start != start:
        return False
    while start < end:
        number += 1
        stop = min(end, document.sections[number].start if number < len(document.sections) else end)
        if len([line for line in document.text[start:stop].splitlines() if line.strip(" =-\t")]) > 1:
            return False  # a second line, and not the underlining of the first
        start = stop
    return True


def _section_at(document: Document, position: int) -> int:
    """The number of the section that a character is in; -1 before the first."""
    return bisect_right(document.sections, position, key=lambda section: section.start) - 1
