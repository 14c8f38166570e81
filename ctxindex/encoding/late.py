"""Late chunking: the chunks of a document go through the model together, and each is pooled out of the joint states.

A row holds chunks in the order of the text, each closed by a separator, behind one CLS and one document prefix. A
chunk's vector is the mean of its own tokens' states (`strict`: no CLS, prefix or separator takes part).

    [CLS] prefix (title [SEP]) (head of the document [SEP]) (context [SEP]) chunk [SEP] … chunk [SEP] (context [SEP])

What stands in brackets is read and never pooled. Title and head are the *anchor*: without them, only the first window
of a long document knows what the document is about.
Source: "Context is Gold to find the Gold Passage", arXiv 2505.24782, section 3 and appendix B.1; first described in
"Late Chunking", arXiv 2409.04701. The anchor is ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ctxindex.encoding.rows import Frame, Place, Row
from ctxindex.encoding.windows import Piece, WindowPlan, cut_pieces, plan_windows
from ctxindex.spec import Owner

if TYPE_CHECKING:
    from ctxindex.encoding.tokenizer import Ids


@dataclass(frozen=True, slots=True)
class Anchor:
    """What windows begin with: `title`, (tokens,) int32, all; the document's first `tokens`, those after the first.

    Each is cut to a quarter of what a window holds, so that at least half of it is left for chunks.
    """

    title: Ids
    tokens: int


@dataclass(frozen=True, slots=True)
class _Opening:
    """The anchor of one document, cut to size: title ids, and its first tokens piece by piece."""

    title: list[Ids]
    head: list[Ids]

    @property
    def title_cost(self) -> int:
        return sum(len(part) + 1 for part in self.title)

    @property
    def cost(self) -> int:
        return self.title_cost + sum(len(part) + 1 for part in self.head)


def late_rows(
    chunks: Sequence[Ids], frame: Frame, overlap: int, anchor: Anchor | None = None, owner: Owner = "centre"
) -> Iterator[Row]:
    """The windows of one document, whose chunks have the content ids `chunks`; arguments as of `plan_windows`."""
    opening = _open(chunks, frame.room, anchor)
    later_room = frame.room - opening.cost
    pieces = cut_pieces([len(ids) for ids in chunks], later_room - 1)
    lengths = [piece.length for piece in pieces]
    plans = plan_windows(lengths, frame.room - opening.title_cost, overlap, owner=owner, later_room=later_room)
    tokens = [chunks[piece.chunk][piece.start : piece.end] for piece in pieces]
    for plan in plans:
        yield _row(pieces, tokens, plan, frame, opening)


def _open(chunks: Sequence[Ids], room: int, anchor: Anchor | None) -> _Opening:
    if anchor is None:
        return _Opening([], [])
    title = anchor.title[: room // 4 - 1]
    parts = _nearest(chunks, range(len(chunks)), min(anchor.tokens, room // 4), from_end=False)
    head: list[Ids] = []
    budget = room // 4
    for part in parts:  # separators count too, so that short chunks cannot take more than their share
        taken = part[: max(0, budget - 1)]
        if len(taken):
            head.append(taken)
        budget -= len(taken) + 1
    return _Opening([title] if len(title) else [], head)


def _row(pieces: Sequence[Piece], tokens: Sequence[Ids], plan: WindowPlan, frame: Frame, opening: _Opening) -> Row:
    before = _nearest(tokens, range(plan.first - 1, -1, -1), plan.left, from_end=True)[::-1]
    after = _nearest(tokens, range(plan.last, len(tokens)), plan.right, from_end=False)
    # Where the context before reaches back into the head of the document, that part of the head is there already.
    missing = sum(map(len, tokens[: plan.first])) - plan.left
    head = _nearest(opening.head, range(len(opening.head)), missing, from_end=False) if plan.first else []
    lead = [*opening.title, *head, *before]
    parts = [*lead, *tokens[plan.first : plan.last], *after]
    ids: list[Ids | list[int]] = [frame.opening]
    position = len(frame.opening)
    starts: list[int] = []
    for part in parts:
        starts.append(position)
        ids += [part, [frame.sep_id]]
        position += len(part) + 1
    owned = range(plan.own_first, plan.own_last)
    places = tuple(_place(pieces[piece], starts[len(lead) + piece - plan.first]) for piece in owned)
    content = sum(map(len, parts))
    context = tuple(content - (place.end - place.start) for place in places)
    pooled = sum(pieces[piece].length for piece in owned)
    return Row(np.concatenate(ids).astype(np.int32), places, pooled, context)


def _place(piece: Piece, start: int) -> Place:
    return Place(piece.chunk, start, start + piece.length)


def _nearest(tokens: Sequence[Ids], neighbours: range, count: int, *, from_end: bool) -> list[Ids]:
    """`count` tokens of `neighbours`, nearest first, piece by piece."""
    taken: list[Ids] = []
    for piece in neighbours:
        if count <= 0:
            break
        ids = tokens[piece]
        part = ids[max(0, len(ids) - count) :] if from_end else ids[:count]
        taken.append(part)
        count -= len(part)
    return taken
