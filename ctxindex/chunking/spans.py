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


def skip_space(text: str, start: int) -> int:
    """The first character from `start` on that is not white space; the end of the text if there is none."""
    while start < len(text) and text[start].isspace():
        start += 1
    return start


def shrink(text: str, span: Span) -> Span:
    """The span without white space at its ends; empty where there is nothing else."""
    start, end = span
    start = min(skip_space(text, start), end)
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
        start = skip_space(text, stop)


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
        small = min(measure(text[start:end]) for start, end in (waiting, span)) < crumb
        if small and measure(text[joined[0] : joined[1]]) <= size:
            waiting = joined
        else:
            yield waiting
            waiting = span
    if waiting is not None:
        yield waiting


def extend_back(text: str, span: Span, floor: int, overlap: int, size: int, measure: Measure) -> Span:
    """`span` with up to `overlap` units of the text before it, not before `floor`, and within `size` in all.

    The overlap begins with a whole word, unless not even one fits (as in scripts that have no spaces).
    """
    start, end = span

    def fits(begin: int) -> bool:
        return measure(text[begin:start]) <= overlap and measure(text[begin:end]) <= size

    best = start
    for begin in _word_starts(text, start, floor):
        if not fits(begin):
            break
        best = begin
    if best == start:
        low = floor
        while low < best:
            middle = (low + best) // 2
            if fits(middle):
                best = middle
            else:
                low = middle + 1
    return skip_space(text, best), end


def _word_starts(text: str, start: int, floor: int) -> Iterator[int]:
    """Positions before `start`, going back to `floor`, where a word begins."""
    for begin in range(start - 1, floor - 1, -1):
        if not text[begin].isspace() and (begin == floor or text[begin - 1].isspace()):
            yield begin
