from __future__ import annotations

import pytest

from ctxindex.loading.text import load_rst, load_text
from ctxindex.types import Section

LIMIT = 1_000_000


def test_plain_text_is_what_was_written() -> None:
    text = "Title\n=====\r\n\r\n[SEP] [CLS] שלום 🎉\u202e\tx\x0c\n\n"
    parsed = load_text(text.encode(), max_chars=LIMIT)
    assert (parsed.text, parsed.title, parsed.sections) == (text, None, ())


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_rst_titles(line_end: str) -> None:
    text = (
        "======\n Main\n======\n\nintro\n\nFirst\n-----\n\ntext\n\nSub\n~~~\n\ntext\n\nSecond\n------\n\n"
        "====  ====\na     b\n====  ====\n\nquote::\n\n  Not a title\n  -----------\n\nToo long a title\n----\n\n----\n"
    ).replace("\n", line_end)
    parsed = load_rst(text.encode(), max_chars=LIMIT)
    assert parsed.text == text
    assert parsed.title == "Main"
    assert parsed.sections == (
        Section(0, ("Main",)),
        Section(text.index("First"), ("Main", "First")),
        Section(text.index("Sub"), ("Main", "First", "Sub")),
        Section(text.index("Second"), ("Main", "Second")),
    )


def test_rst_without_titles() -> None:
    parsed = load_rst(b"----\n\ntext\n\n====\n", max_chars=LIMIT)
    assert (parsed.title, parsed.sections) == (None, ())
