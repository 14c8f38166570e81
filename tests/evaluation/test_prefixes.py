"""What is put before a chunk is read; where the chunk stands does not change."""

from __future__ import annotations

from typing import Any

import pytest

from ctxindex.evaluation.prefixes import headings_before, put_before, title_before
from ctxindex.types import Chunk, ChunkedDocument, Document

CHUNKS = (Chunk(0, 0, 3, "one", {"headings": ["Top", "Part"]}), Chunk(1, 4, 7, "two"))


def document(title: str | None = "Title", doc_id: str = "a") -> ChunkedDocument:
    return ChunkedDocument(Document(doc_id, "one two", title), CHUNKS)


@pytest.mark.parametrize(("title", "expected"), [("Title", "Title"), (None, ""), ("", "")])
def test_the_title(title: str | None, expected: str) -> None:
    assert title_before(document(title).document, CHUNKS[0]) == expected


@pytest.mark.parametrize(
    ("title", "headings", "expected"),
    [
        ("Title", ["Top", "Part"], "Title\nTop > Part"),
        ("Top", ["Top", "Part"], "Top\nPart"),
        ("Top", ["Top"], "Top"),
        ("Part", ["Top", "Part"], "Part\nTop > Part"),
        (None, ["Top", "Part"], "Top > Part"),
        ("Title", [], "Title"),
        ("", ["Top"], "Top"),
        (None, None, ""),
        ("Title", None, "Title"),
    ],
)
def test_the_title_and_the_heading_path_without_the_title_twice(
    title: str | None, headings: list[str] | None, expected: str
) -> None:
    metadata: dict[str, Any] = {} if headings is None else {"headings": headings}
    assert headings_before(document(title).document, Chunk(0, 0, 3, "one", metadata)) == expected


def test_only_what_is_read_changes() -> None:
    plain = document(None, "b")
    titled, untitled = put_before([document(), plain], title_before)
    assert [chunk.text for chunk in titled.chunks] == ["Title\none", "Title\ntwo"]
    assert [(chunk.ordinal, chunk.start, chunk.end) for chunk in titled.chunks] == [(0, 0, 3), (1, 4, 7)]
    assert titled.chunks[0].metadata == CHUNKS[0].metadata
    assert titled.document is not None
    assert titled.document.text == "one two"
    assert untitled == plain


def test_every_chunk_has_its_own() -> None:
    (found,) = put_before([document()], headings_before)
    assert [chunk.text for chunk in found.chunks] == ["Title\nTop > Part\none", "Title\ntwo"]
    (numbered,) = put_before([document()], lambda source, chunk: f"{source.doc_id}{chunk.ordinal}" * chunk.ordinal)
    assert [chunk.text for chunk in numbered.chunks] == ["one", "a1\ntwo"]
