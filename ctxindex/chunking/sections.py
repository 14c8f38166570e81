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
        body = document.text[start : section.start].strip()
        if "\n" in body or (body and not _is_heading(document, start)):
            yield start, section.start
            start = section.start
    yield start, len(document.text)


def headings_at(document: Document, position: int) -> tuple[str, ...]:
    """The heading path in force at a character of the text, outermost first; empty before the first heading."""
    number = bisect_right(document.sections, position, key=lambda section: section.start)
    return document.sections[number - 1].path if number else ()


def page_at(document: Document, position: int) -> int:
    """The page, counted from 1, that a character of the text is on; 1 where the document has no pages."""
    return max(1, bisect_right(document.pages, position))


def _is_heading(document: Document, start: int) -> bool:
    number = bisect_right(document.sections, start, key=lambda section: section.start)
    return number > 0 and document.sections[number - 1].start == start
