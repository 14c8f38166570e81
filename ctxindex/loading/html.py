"""HTML: the visible text, block by block, with headings as sections.

Knows elements, not styles: what a style sheet or a script would hide or add is not known here.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from ctxindex.errors import DocumentError
from ctxindex.loading.building import TextBuilder, clean_title, first_title, sections_of
from ctxindex.loading.encodings import decode_html
from ctxindex.loading.values import Parsed

if TYPE_CHECKING:
    from selectolax.lexbor import LexborNode

_HIDDEN_TAGS: Final = "head script style template noscript svg iframe object canvas audio video datalist"
_PARAGRAPH_TAGS: Final = (
    "p div section article header footer main nav aside figure blockquote pre table ul ol dl form fieldset "
    "address details hr h1 h2 h3 h4 h5 h6 hgroup dialog search menu"
)
_LINE_TAGS: Final = "li tr dt dd caption figcaption summary legend option thead tbody tfoot"
_HIDDEN: Final = frozenset(_HIDDEN_TAGS.split())
_HEADINGS: Final = {f"h{level}": level for level in range(1, 7)}
_BREAKS: Final = {
    **dict.fromkeys(_PARAGRAPH_TAGS.split(), "\n\n"),
    **dict.fromkeys(_LINE_TAGS.split(), "\n"),
    **dict.fromkeys(("td", "th"), "\t"),
}
_MAX_DEPTH: Final = 10_000
# Elements that hold nothing, or that end where the next one begins.
_UNCLOSED_TAGS: Final = (
    "area base br col embed hr img input link meta source track wbr p li dt dd tr td th thead tbody tfoot colgroup "
    "option optgroup rp rt html head body"
)
_NEVER_DEEP: Final = frozenset(_UNCLOSED_TAGS.split())
_TAG: Final = re.compile(r"<(?P<end>/?)(?P<name>[a-zA-Z][\w:-]*)[^<>]*>")
_SCRIPT: Final = re.compile(r"<script\b.*?(?:</script\b|\Z)", re.DOTALL | re.IGNORECASE)


def load_html(data: bytes, *, max_chars: int) -> Parsed:
    """The text of a page. The title is its <title>, else its first <h1>, else its first heading."""
    from selectolax.lexbor import LexborHTMLParser

    decoded = decode_html(data, max_chars=max_chars)
    _check_depth(decoded.text)
    tree = LexborHTMLParser(decoded.text)
    builder = TextBuilder(max_chars)
    if tree.root is not None:
        _walk(tree.root, builder)
    element = tree.css_first("head > title")
    title = clean_title(element.text()) if element is not None else None
    highest = [heading for heading in builder.headings if heading.level == 1]
    return Parsed(
        builder.text(),
        title=title or first_title(highest) or first_title(builder.headings),
        sections=sections_of(builder.headings),
        metadata=decoded.metadata,
    )


def _check_depth(page: str) -> None:
    """Raise DocumentError where elements lie in one another so deep that parsing, quadratic in it, takes minutes."""
    # Scripts are full of tags in strings; they are looked at only by pages that seem too deep.
    if _depth(page) > _MAX_DEPTH and _depth(_SCRIPT.sub("", page)) > _MAX_DEPTH:
        raise DocumentError(f"elements nested too deeply (more than {_MAX_DEPTH:,})")


def _depth(page: str) -> int:
    depth = deepest = 0
    for match in _TAG.finditer(page):
        if match["name"].lower() in _NEVER_DEEP or match[0].endswith("/>"):
            continue
        depth = max(0, depth - 1) if match["end"] else depth + 1
        deepest = max(deepest, depth)
    return deepest


def _walk(root: LexborNode, builder: TextBuilder) -> None:
    # Not recursive: hostile pages are nested thousands deep.
    marks: list[int] = []
    verbatim = 0
    node: LexborNode | None = root
    while node is not None:
        tag = node.tag or ""
        verbatim += tag == "pre"
        _enter(node, tag, builder, marks, verbatim=bool(verbatim))
        child = None if tag in _HIDDEN else node.first_child
        if child is not None:
            node = child
            continue
        while node is not None:
            verbatim -= node.tag == "pre"
            _leave(node.tag or "", builder, marks)
            if node.mem_id == root.mem_id:
                return
            if node.next is not None:
                node = node.next
                break
            node = node.parent


def _enter(node: LexborNode, tag: str, builder: TextBuilder, marks: list[int], *, verbatim: bool) -> None:
    if tag == "-text":
        text = node.text_content or ""
        if verbatim:
            builder.add(text.replace("\r\n", "\n"))
        else:
            builder.add_collapsed(text)
    elif tag == "br":
        builder.break_line()
    elif tag in _BREAKS:
        builder.break_with(_BREAKS[tag])
    if tag in _HEADINGS:
        marks.append(builder.mark())


def _leave(tag: str, builder: TextBuilder, marks: list[int]) -> None:
    if tag in _HEADINGS:
        builder.heading(marks.pop(), _HEADINGS[tag])
    if tag in _BREAKS:
        builder.break_with(_BREAKS[tag])
