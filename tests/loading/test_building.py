from __future__ import annotations

import pytest

from ctxindex.errors import DocumentError
from ctxindex.loading.building import Heading, TextBuilder, clean_title, repair_surrogates, sections_of
from ctxindex.types import Section


@pytest.mark.parametrize(
    ("raw", "title"),
    [(None, None), (" \n", None), (" a\r\n b\tc ", "a b c"), ("x" * 400, "x" * 300), ("\0a\x07", "a")],
)
def test_titles(raw: str | None, title: str | None) -> None:
    assert clean_title(raw) == title


def test_sections_nest_by_level() -> None:
    headings = [Heading(0, 2, "a"), Heading(5, 3, "b"), Heading(9, 3, " "), Heading(12, 1, "c"), Heading(20, 3, "d")]
    assert sections_of(headings) == (
        Section(0, ("a",)),
        Section(5, ("a", "b")),
        Section(12, ("c",)),
        Section(20, ("c", "d")),
    )


def test_surrogates() -> None:
    assert repair_surrogates("a\ud83c\udf89b\ud800c") == "a\U0001f389b\ufffdc"
    assert repair_surrogates("plain é") == "plain é"


def test_the_widest_break_counts() -> None:
    builder = TextBuilder(100)
    builder.break_with("\n\n")
    for separators in (("\t", "\n", " "), ("\n\n", "\t"), (" ",), ()):
        builder.add("x")
        for separator in separators:
            builder.break_with(separator)
    builder.add("x")
    assert builder.text() == "x\nx\n\nx xx"


def test_heading_begins_at_its_first_character() -> None:
    builder = TextBuilder(100)
    builder.add_collapsed(" intro ")
    builder.break_with("\n\n")
    mark = builder.mark()
    builder.add_collapsed("  The \n")
    builder.add_collapsed(" title")
    builder.heading(mark, 1)
    assert builder.text() == "intro\n\nThe title"
    assert builder.headings == [Heading(7, 1, "The title")]
    builder.heading(builder.mark(), 1)
    assert len(builder.headings) == 1


def test_limit() -> None:
    builder = TextBuilder(3)
    builder.add("abc")
    with pytest.raises(DocumentError, match="oversized"):
        builder.add("d")
