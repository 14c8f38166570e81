"""Markdown: the text is the raw file, so that offsets are those of the source; headings give title and sections.

Knows CommonMark blocks and front matter. Nothing in a block is parsed but headings.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from ctxindex.loading.building import Heading, clean_title, first_title, sections_of
from ctxindex.loading.encodings import decode_text
from ctxindex.loading.values import Parsed

if TYPE_CHECKING:
    from markdown_it import MarkdownIt

_FRONT_MATTER: Final = re.compile(
    # It begins with a key, or else a rule (---) at the top of a file would swallow the text up to the next one.
    r"(?P<fence>---|\+\+\+)[ \t]*\r?\n(?P<body>[A-Za-z_][\w.-]*[ \t]*[:=].*?)^(?:(?P=fence)|\.\.\.)[ \t]*\r?$",
    re.DOTALL | re.MULTILINE,
)
_FRONT_TITLE: Final = re.compile(r"^title[ \t]*[:=][ \t]*(?P<title>[^\r\n]+)", re.MULTILINE | re.IGNORECASE)
# What markdown-it takes for the end of a line, so that its line numbers are ours.
_LINE_END: Final = re.compile(r"\r\n?|\n")
# YAML that goes on at the next line; not worth a YAML parser.
_BLOCK_SCALARS: Final = (">", "|", ">-", "|-", ">+", "|+")
_HEADING_CHARS: Final = 1000


def load_markdown(data: bytes, *, max_chars: int) -> Parsed:
    """Markdown as it is written; the title is that of the front matter, else the first heading."""
    decoded = decode_text(data, max_chars=max_chars)
    text = decoded.text
    front = _FRONT_MATTER.match(text)
    headings = list(_headings(text, front.end() if front else 0))
    title = _front_title(front["body"]) if front else None
    return Parsed(text, title=title or first_title(headings), sections=sections_of(headings), metadata=decoded.metadata)


def _front_title(body: str) -> str | None:
    match = _FRONT_TITLE.search(body)
    title = clean_title(match["title"]) if match else None
    if title in _BLOCK_SCALARS:
        return None
    if title and len(title) > 1 and title[0] == title[-1] and title[0] in "\"'":
        return clean_title(title[1:-1])
    return title


def _headings(text: str, begin: int) -> Iterator[Heading]:
    body = text[begin:]
    starts = [begin, *(begin + match.end() for match in _LINE_END.finditer(body))]
    tokens = _block_parser().parse(body)
    for opening, content in pairwise(tokens):
        # A heading in a quote or a list is part of that, and begins no section.
        if opening.type == "heading_open" and opening.level == 0 and opening.map:
            yield Heading(starts[opening.map[0]], int(opening.tag[1:]), _plain(content.content))


def _plain(inline: str) -> str:
    """What a reader sees of a heading: no emphasis marks, links as their text."""
    tokens = _parser().parseInline(inline[:_HEADING_CHARS])[0].children or []
    return "".join(" " if token.type in ("softbreak", "hardbreak") else token.content for token in tokens)


@cache
def _parser() -> MarkdownIt:
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark")


@cache
def _block_parser() -> MarkdownIt:
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark")
    # The other rules look into the blocks, which costs most of the time and changes no heading's place.
    parser.core.ruler.enableOnly(["normalize", "block"])
    return parser
