"""What is put before each chunk: the document's title, its title and heading path, or a line of context.

The cheapest way to tell a chunk what it belongs to, and the one that a contextual method has to beat. Only what is read
changes: the chunk's span, and so what is relevant, stays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from ctxindex.types import Chunk, ChunkedDocument, Document

Before = Callable[[Document, Chunk], str]
"""The text before a chunk; empty for none."""


def title_before(document: Document, chunk: Chunk) -> str:
    """The title."""
    return document.title or ""


def headings_before(document: Document, chunk: Chunk) -> str:
    """The title, and in the next line the heading path, outermost first, unless it only repeats the title."""
    headings: Sequence[str] = chunk.metadata.get("headings", ())
    path = " > ".join(headings[1:] if headings and headings[0] == document.title else headings)
    return "\n".join(part for part in (document.title, path) if part)


def put_before(documents: Sequence[ChunkedDocument], before: Before) -> list[ChunkedDocument]:
    """The documents with every chunk's text behind what is put before it, on a line of its own."""

    def prefixed(source: ChunkedDocument, chunk: Chunk) -> Chunk:
        text = before(source.document, chunk)
        return replace(chunk, text=f"{text}\n{chunk.text}") if text else chunk

    return [replace(one, chunks=tuple(prefixed(one, chunk) for chunk in one.chunks)) for one in documents]
