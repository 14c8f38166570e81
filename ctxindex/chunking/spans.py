"""Arithmetic on spans of a text: aligning what a splitter returned, cutting what is too long, adding overlap.

A splitter returns strings; where they stood is found by walking the text with them, in order. Only white space may be
skipped on the way, and that is asserted: nothing is ever searched for, so repeated sentences cannot be confused.
Lengths are measured by a function handed in (characters, or tokens of a model); this module knows no tokenizer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeAlias

Span: TypeAlias = tuple[int, int]
"""`[start, end)` in characters of the document's text."""

Measure: TypeAlias = Callable[[str], int]
"""The length of a text in the unit of the chunk size."""

_LONGEST_TOKEN = 20
"""Characters; a text longer than so many a unit is no crumb."""


def align(text: str, pieces: Iterable[str], start: int = 0) -> list[Span]:
    """Where `pieces`, in order and stripped of outer white space, stand in `text` from character `start` on.

    Raises:
        AssertionError: the pieces are not the text with nothing but white space left out.
    """
    spans: list[Span] = []
    cursor = start
    for piece in pieces:
        begin = skip_space(text, cursor)
        assert text.startswith(piece, begin), f"the splitter changed the text at character {begin}"
        cursor = begin + len(piece)
        spans.append((begin, cursor))
    return spans


def skip_space(text: str, start: int, end: int | None = None) -> int:
    """The first character from `start` on that is not white space; `end` (by default of the text) if there is none."""
    end = len(text) if end is None else end
    while start < end and text[start].isspace():
        start += 1
    return start


def shrink(text: str, span: Span) -> Span:
    """The span without white space at its ends; empty where there is nothing else."""
    start, end = span
    start = skip_space(text, start, end)
    while end > start and text[end - 1].isspace():
        end -= 1
    return start, end


def fit(text: str, span: Span, size: int, measure: Measure) -> Iterator[Span]:
    """`span`, or consecutive parts of it that measure at most `size` each, cut at white space where there is any.

    Tokens do not add up exactly when text is cut elsewhere, so every part is measured as it will be encoded: alone. A
    single character is never cut, whatever it measures.
    """
    start, end = shrink(text, span)
    while start < end:
        stop = end if measure(text[start:end]) <= size else _longest(text, start, end, size, measure)
        yield shrink(text, (start, stop))
        start = skip_space(text, stop, end)


def _longest(text: str, start: int, end: int, size: int, measure: Measure) -> int:
    """An end that keeps `text[start:]` within `size`: the greatest found by halving, moved back to white space."""
    low, high = start + 1, end
    while low + 1 < high:
        middle = (low + high) // 2
        if measure(text[start:middle]) <= size:
            low = middle
        else:
            high = middle
    for stop in range(low, start + (low - start) // 2, -1):
        if text[stop - 1].isspace() and measure(text[start:stop].rstrip()) <= size:
            return stop
    return low


def join_crumbs(text: str, spans: list[Span], size: int, crumb: int, measure: Measure) -> Iterator[Span]:
    """The same spans, but one that measures less than `crumb` is joined to the next, or else to the one before it.

    It stays alone where neither is left within `size`.
    """
    waiting: Span | None = None
    for span in spans:
        if waiting is None:
            waiting = span
            continue
        joined = (waiting[0], span[1])
        # Most spans are far too long to be crumbs, and need not be measured to see that.
        short = [text[start:end] for start, end in (waiting, span) if end - start <= crumb * _LONGEST_TOKEN]
        if any(measure(part) < crumb for part in short) and measure(text[joined[0] : joined[1]]) <= size:
            waiting = joined
        else:
            yield waiting
            waiting = span
    if waiting is not None:
        yield waiting


def extend_back(text: str, span: Span, begins: list[int], size: int, measure: Measure) -> Span:
    """`span` with the text before it from the first of `begins` on that keeps it within `size` in all.

    `begins` are places before the span, in order, none of which takes in more than the overlap asked for. Those where a
    word begins are tried first, since a cut inside a word helps nobody; the others serve scripts that have no spaces.
    """
    start, end = span
    words = [begin for begin in begins if begin == 0 or text[begin - 1].isspace()]
    for begin in words or begins:
        if measure(text[begin:end]) <= size:
            return skip_space(text, begin, start), end
    return span
