"""Which chunks share a forward pass, and which window each chunk's vector is taken from.

A document that fits the model is one window. A longer one is cut in windows (`plan_windows`):

    [CLS] prefix · tail of the chunk before · chunk [SEP] … [SEP] chunk · head of the chunk after · [SEP]

1. A chunk longer than a window can hold is cut in *pieces* of equal length, which are planned like chunks; its vector
   is the mean over the tokens of all of them (`pooling` adds sums and counts, so nothing is lost in between).
2. Greedily, a window takes consecutive pieces while they fit, and shows the nearest tokens before and after them as
   *context*, unpooled: `overlap` tokens on each side, room for which is kept free. A chunk thus sees as many on its
   weaker side, wherever the document was cut (less if it nearly fills a window), and no window reads more than needed.
   A window *owns* its pieces: each is taken from the window where it has most context on its weaker side ("centre").
3. Papers cut otherwise, with whole chunks in two windows, and so can we: the next window begins up to `overlap` pieces
   back, as long as those take no more than a quarter of the window and at least one new piece fits behind them. A piece
   that several windows hold is owned by the first of them ("first"), or by all ("mean": sums and counts add up to the
   average). Room that is left is filled with the nearest tokens of the neighbours; with what is shared, they take at
   most a quarter of the room on each side.
4. The end of a document is not filled up: a window that owns little is short.
5. With an *anchor*, every window begins with the head of the document, unpooled: the title, and in windows after the
   first also the document's first tokens. What a document is about thus reaches each of its chunks.

The other plan (`token_windows`) cuts the token sequence without regard to chunks, whose sums then span windows.

Everything here is spans of a document's tokens; this module knows no ids, no text and no model, so that all of it can
be tested with numbers. Sources: late chunking over windows of chunks, arXiv 2505.24782, section 3 (context is
ours); over windows of tokens, arXiv 2409.04701, section 3.3 ("long late chunking").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TypeAlias

from ctxindex.spec import Owner

Span: TypeAlias = tuple[int, int]
"""Tokens `[start, end)` of a document."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Tokens `[start, end)`, of chunk number `chunk`: all of it, unless it is too long for a window."""

    chunk: int
    start: int
    end: int

    @property
    def length(self) -> int:
        """Tokens."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class WindowPlan:
    """One window: it shows the tokens `[start, end)`, and in them the pieces `[first, last)`.

    It owns the pieces `[own_first, own_last)`.
    """

    first: int
    last: int
    own_first: int
    own_last: int
    start: int
    end: int


def cut_pieces(spans: Sequence[Span], capacity: int) -> list[Piece]:
    """Pieces of the chunks at `spans`, in the order of the text, where `capacity` is the most tokens a piece may have.

    Only chunks beyond `capacity` are cut; their pieces are at most three quarters of it, which leaves room for context.
    """
    pieces: list[Piece] = []
    for chunk, (start, end) in enumerate(spans):
        length = end - start
        count = 1 if length <= capacity else -(-length // max(1, capacity - capacity // 4))
        edges = [start + length * number // count for number in range(count + 1)]
        pieces.extend(Piece(chunk, *edge) for edge in pairwise(edges))
    return pieces


def plan_windows(
    spans: Sequence[Span],
    total: int,
    room: int,
    overlap: int,
    *,
    owner: Owner = "centre",
    later_room: int | None = None,
) -> list[WindowPlan]:
    """Windows over the pieces at `spans` of a document of `total` tokens.

    Args:
        spans: where the pieces lie, sorted by start; they may overlap, and there may be other tokens in between. Each
            must fit every window.
        total: tokens of the document, separators between its chunks included.
        room: tokens of the first window behind what every window begins with; the separator that closes it takes one.
        overlap: with the owner "centre", the tokens of context on each side; else the most pieces in two windows.
        owner: which window a piece is pooled in.
        later_room: the same as `room`, for windows after the first; they may begin with more.

    Returns:
        Plans in the order of the text. Together they own every piece exactly once ("mean": at least once), and none is
        larger than its room.
    """
    count = len(spans)
    if total < room:
        return [WindowPlan(0, count, 0, count, 0, total)]
    rooms = (room, room if later_room is None else later_room)
    if owner == "centre":
        return _centred(spans, total, rooms, overlap)
    held = _greedy(spans, *rooms, overlap)
    plans = [_fill(spans, held, number, total, rooms[held[number][0] > 0]) for number in range(len(held))]
    return plans if owner == "mean" else _first_owns(plans)


def _centred(spans: Sequence[Span], total: int, rooms: tuple[int, int], context: int) -> list[WindowPlan]:
    """Windows that own their pieces alone, with up to `context` tokens on each side of them."""
    plans: list[WindowPlan] = []
    first = 0
    while first < len(spans):
        room = rooms[first > 0] - 1
        start = spans[first][0]
        last, end = first + 1, spans[first][1]
        while last < len(spans):
            after = max(end, spans[last][1])
            if min(context, start) + after - start + min(context, total - after) > room:
                break
            last, end = last + 1, after
        # A piece that fills its window leaves less room; what one side cannot use goes to the other.
        free = room - (end - start)
        left, right = min(context, start), min(context, total - end)
        left = min(left, max(free // 2, free - right))
        plans.append(WindowPlan(first, last, first, last, start - left, end + min(right, free - left)))
        first = last
    return plans


def token_windows(total: int, size: int, overlap: int) -> list[tuple[int, int, int]]:
    """Windows of `size` tokens that share `overlap`, over a sequence of `total`: (start, kept, end) of each.

    A window reads `[start, end)` and keeps the states of `[kept, end)`: all but the `overlap` that the window before
    has kept already, so that every token has one state. No window is without one to keep.
    """
    windows: list[tuple[int, int, int]] = []
    start = kept = 0
    while kept < total:
        end = min(start + size, total)
        windows.append((start, kept, end))
        start, kept = end - overlap, end
    return windows


def _greedy(spans: Sequence[Span], room: int, later_room: int, overlap: int) -> list[Span]:
    """The pieces `[first, last)` that each window holds."""
    held: list[Span] = []
    first = last = 0
    while last < len(spans):
        capacity = (later_room if first else room) - 1
        end = _end(spans, first, last + 1)
        while last < len(spans) and (end := max(end, spans[last][1])) - spans[first][0] <= capacity:
            last += 1
        held.append((first, last))
        if last < len(spans):
            first = last - _shared(spans, last, later_room, overlap)
    return held


def _shared(spans: Sequence[Span], last: int, room: int, overlap: int) -> int:
    """How many pieces before `last` the next window repeats."""
    shared = 0
    while shared < min(overlap, last - 1):
        first = last - shared - 1
        begin = spans[first][0]
        if spans[last][0] - begin > room // 4 or _end(spans, first, last + 1) - begin > room - 1:
            break
        shared += 1
    return shared


def _end(spans: Sequence[Span], first: int, last: int) -> int:
    """Where the pieces `[first, last)` end: where the last of them does, unless chunks lie in one another."""
    return max(end for _, end in spans[first:last])


def _fill(spans: Sequence[Span], held: Sequence[Span], number: int, total: int, room: int) -> WindowPlan:
    """Share the free room of a window out between both sides, up to a quarter each."""
    first, last = held[number]
    start, end = spans[first][0], _end(spans, first, last)
    before = spans[held[number - 1][1]][0] - start if number else 0
    following = held[number + 1][0] if number + 1 < len(held) else last
    after = max(0, end - spans[following][0]) if following < last else 0
    free = room - 1 - (end - start)
    left = min(start, max(0, room // 4 - before))
    right = min(total - end, max(0, room // 4 - after))
    left = min(left, max(free // 2, free - right))  # what one side cannot use goes to the other
    right = min(right, free - left)
    return WindowPlan(first, last, first, last, start - left, end + right)


def _first_owns(plans: list[WindowPlan]) -> list[WindowPlan]:
    """Each piece to the first window that holds it; windows that own nothing are left out."""
    owned: list[WindowPlan] = []
    start = 0
    for plan in plans:
        if plan.last > start:
            owned.append(replace(plan, own_first=start, own_last=plan.last))
            start = plan.last
    return owned
