"""Plain text and reStructuredText: the text is exactly what was decoded.

Plain text has no structure; of reStructuredText the underlined section titles are known, and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from ctxindex.loading.building import Heading, first_title, sections_of
from ctxindex.loading.encodings import decode_text
from ctxindex.loading.values import Parsed

# A line of one punctuation character: what stands under a section's title, and sometimes over it as well.
_ADORNMENT: Final = re.compile(r"^([!-/:-@\[-`{-~])\1+[ \t]*\r?$", re.MULTILINE)
_TITLE_CHARS: Final = 400


def load_text(data: bytes, *, max_chars: int) -> Parsed:
    """Plain text, source code, CSV: no title and no sections."""
    decoded = decode_text(data, max_chars=max_chars)
    return Parsed(decoded.text, metadata=decoded.metadata)


def load_rst(data: bytes, *, max_chars: int) -> Parsed:
    """A file of reStructuredText with its section titles; the first of them is the document's title."""
    decoded = decode_text(data, max_chars=max_chars)
    headings = list(_headings(decoded.text))
    return Parsed(decoded.text, title=first_title(headings), sections=sections_of(headings), metadata=decoded.metadata)


def _headings(text: str) -> Iterator[Heading]:
    # reStructuredText has no fixed levels: each style gets the next level when it first occurs.
    styles: list[tuple[str, bool]] = []
    last_underline = -1
    for underline in _ADORNMENT.finditer(text):
        start, title = _line_before(text, underline.start())
        if not _fits(title, underline):
            continue
        over_start, over = _line_before(text, start)
        overlined = over.rstrip() == underline[0].rstrip() and over_start != last_underline
        # Without an overline, the line before must be blank and the title must not be indented (a quote, a list).
        if not overlined and (title[0].isspace() or over.strip()):
            continue
        last_underline = underline.start()
        style = (underline[1], overlined)
        if style not in styles:
            styles.append(style)
        yield Heading(over_start if overlined else start, styles.index(style) + 1, title.strip())


def _line_before(text: str, end: int) -> tuple[int, str]:
    """The line that ends before character `end`, and where it starts; long lines are cut."""
    start = text.rfind("\n", 0, max(0, end - 1)) + 1
    return start, text[start : min(end, start + _TITLE_CHARS)].rstrip("\r\n")


def _fits(title: str, underline: re.Match[str]) -> bool:
    return bool(title.strip()) and not _ADORNMENT.fullmatch(title) and len(underline[0].rstrip()) >= len(title.strip())
