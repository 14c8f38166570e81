"""Which chunks share a forward pass, and which window each chunk's vector is taken from.

A document that fits the model is one window. A longer one is cut in windows of whole chunks:

    [CLS] prefix · tail of the chunk before [SEP] · chunk [SEP] · … · chunk [SEP] · head of the chunk after [SEP]

1. A chunk longer than a window can hold is cut in *pieces* of equal length, which are planned like chunks; its vector
   is the mean over the tokens of all of them (`pooling` adds sums and counts, so nothing is lost in between).
2. Greedily, a window takes consecutive pieces while they fit. The next one begins up to `overlap` pieces back, as long
   as those take no more than a quarter of the window and at least one new piece fits behind them.
3. The room that is left is filled with the nearest tokens of the neighbours, unpooled: even where no whole neighbour
   fits, a chunk at the edge of a window sees what stands before and after it.
4. A piece that several windows hold is *owned* by the one where it has most context on its weaker side ("centre"), by
   the first of them ("first"), or by all of them ("mean": sums and counts add up to the average). Windows that own
   nothing are dropped.
5. With an *anchor*, every window begins with the head of the document, unpooled: the title, and in windows after the
   first also the document's first tokens. What a document is about thus reaches each of its chunks.

Lengths are counted in content tokens; this module knows no ids, no text and no model, so that all of it can be tested
with numbers. Source: the late chunking of arXiv 2505.24782, section 3; ownership and context filling are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise

from ctxindex.spec import Owner


@dataclass(frozen=True, slots=True)
class Piece:
    """Tokens `[start, end)` of chunk number `chunk`: all of the chunk, unless it is too long for a window."""

    chunk: int
    start: int
    end: int

    @property
    def length(self) -> int:
        """Content tokens."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class WindowPlan:
    """One window: pieces `[first, last)`, of which it owns `[own_first, own_last)`.

    `left` and `right` count content tokens of the neighbouring pieces shown as context, unpooled; `left` may reach over
    several pieces, with a separator between any two.
    """

    first: int
    last: int
    own_first: int
    own_last: int
    left: int = 0
    right: int = 0


def cut_pieces(lengths: Sequence[int], capacity: int) -> list[Piece]:
    """Pieces of the chunks of `lengths` content tokens, where `capacity` is the most a window holds as one piece.

    Only chunks beyond `capacity` are cut; their pieces are at most three quarters of it, which leaves room for context.
    """
    pieces: list[Piece] = []
    for chunk, length in enumerate(lengths):
        count = 1 if length <= capacity else -(-length // max(1, capacity - capacity // 4))
        edges = [length * number // count for number in range(count + 1)]
        pieces.extend(Piece(chunk, start, end) for start, end in pairwise(edges))
    return pieces


def plan_windows(
    lengths: Sequence[int], room: int, overlap: int, *, owner: Owner = "centre", later_room: int | None = None
) -> list[WindowPlan]:
    """Windows over pieces of `lengths` content tokens.

    Args:
        lengths: content tokens of each piece; each takes one separator more, and must fit every window.
        room: tokens of the first window behind what every window begins with.
        overlap: the most pieces that neighbouring windows share.
        owner: which window a shared piece is pooled in.
        later_room: the same as `room`, for windows after the first; they may begin with more.

    Returns:
        Plans in the order of the text. Together they own every piece exactly once ("mean": at least once), and none is
        larger than its room.
    """
    later_room = room if later_room is None else later_room
    plans: list[WindowPlan] = []
    for first, last in _greedy_spans(lengths, room, later_room, overlap):
        plans.append(_fill(lengths, WindowPlan(first, last, first, last), later_room if first else room))
    if owner == "mean":
        return plans
    return _own(lengths, plans, owner)


def _greedy_spans(lengths: Sequence[int], room: int, later_room: int, overlap: int) -> list[tuple[int, int]]:
    spans: list[tuple[int, int]] = []
    first = last = 0
    while last < len(lengths):
        used = sum(lengths[piece] + 1 for piece in range(first, last))
        limit = later_room if first else room
        while last < len(lengths) and used + lengths[last] + 1 <= limit:
            used += lengths[last] + 1
            last += 1
        spans.append((first, last))
        if last < len(lengths):
            first = last - _shared(lengths, last, later_room, overlap)
    return spans


def _shared(lengths: Sequence[int], last: int, room: int, overlap: int) -> int:
    """How many pieces before `last` the next window repeats."""
    limit = min(room // 4, room - lengths[last] - 1)
    shared = used = 0
    while shared < min(overlap, last - 1) and used + lengths[last - shared - 1] + 1 <= limit:
        used += lengths[last - shared - 1] + 1
        shared += 1
    return shared


def _fill(lengths: Sequence[int], plan: WindowPlan, room: int) -> WindowPlan:
    """Share the free room of a window out between both sides; what one cannot use goes to the other."""
    free = room - sum(lengths[piece] + 1 for piece in range(plan.first, plan.last))
    before = range(plan.first - 1, -1, -1)
    after = range(plan.last, len(lengths))
    half = _context(lengths, before, free // 2)
    right = _context(lengths, after, free - _cost(lengths, before, half))
    left = _context(lengths, before, free - _cost(lengths, after, right))
    return replace(plan, left=left, right=right)


def _context(lengths: Sequence[int], neighbours: range, budget: int) -> int:
    """The most content tokens of `neighbours`, nearest first, that `budget` tokens hold with their separators."""
    tokens = 0
    for piece in neighbours:
        taken = min(lengths[piece], budget - 1)
        if taken <= 0:
            break
        tokens += taken
        budget -= taken + 1
    return tokens


def _cost(lengths: Sequence[int], neighbours: range, tokens: int) -> int:
    """What `tokens` of context take with their separators."""
    cost = tokens
    for piece in neighbours:
        if tokens <= 0:
            break
        tokens -= lengths[piece]
        cost += 1
    return cost


def _own(lengths: Sequence[int], plans: list[WindowPlan], owner: Owner) -> list[WindowPlan]:
    owners: list[int] = []
    best: list[tuple[int, int]] = []
    for number, plan in enumerate(plans):
        for piece, sides in zip(range(plan.first, plan.last), _sides(lengths, plan), strict=True):
            score = (min(sides), sum(sides))
            if piece == len(owners):
                owners.append(number)
                best.append(score)
            elif owner == "centre" and score > best[piece]:
                owners[piece] = number
                best[piece] = score
    owned: list[WindowPlan] = []
    start = 0
    for piece, number in enumerate(owners):
        if piece + 1 == len(owners) or owners[piece + 1] != number:
            owned.append(replace(plans[number], own_first=start, own_last=piece + 1))
            start = piece + 1
    return owned


def _sides(lengths: Sequence[int], plan: WindowPlan) -> list[tuple[int, int]]:
    """For each piece of the window, the content tokens it sees before and after itself."""
    ends = list(accumulate(lengths[plan.first : plan.last], initial=0))
    total = plan.left + ends[-1] + plan.right
    return [(plan.left + start, total - plan.left - end) for start, end in pairwise(ends)]
