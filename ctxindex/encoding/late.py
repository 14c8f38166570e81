"""Late chunking: the chunks of a document go through the model together, and each is pooled out of the joint states.

A row holds chunks in the order of the text, each closed by a separator, behind one CLS and one document prefix. A
chunk's vector is the mean of its own tokens' states (`strict`: no CLS, prefix or separator takes part).
Source: "Context is Gold to find the Gold Passage", arXiv 2505.24782, section 3 and appendix B.1; first described in
"Late Chunking", arXiv 2409.04701.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ctxindex.encoding.rows import Frame, Place, Row
from ctxindex.encoding.windows import Piece, WindowPlan, cut_pieces, plan_windows

if TYPE_CHECKING:
    from ctxindex.encoding.tokenizer import Ids


def late_rows(chunks: Sequence[Ids], frame: Frame, overlap: int) -> Iterator[Row]:
    """The windows of one document: `[CLS] prefix (context [SEP]) chunk [SEP] … chunk [SEP] (context [SEP])`."""
    pieces = cut_pieces([len(ids) for ids in chunks], frame.room - 1)
    plans = plan_windows([piece.length for piece in pieces], frame.room, overlap)
    tokens = [chunks[piece.chunk][piece.start : piece.end] for piece in pieces]
    for plan in plans:
        yield _late_row(pieces, tokens, plan, frame)


def _late_row(pieces: Sequence[Piece], tokens: Sequence[Ids], plan: WindowPlan, frame: Frame) -> Row:
    before = _nearest(tokens, range(plan.first - 1, -1, -1), plan.left, from_end=True)
    after = _nearest(tokens, range(plan.last, len(tokens)), plan.right, from_end=False)
    parts = [*reversed(before), *tokens[plan.first : plan.last], *after]
    ids: list[Ids | list[int]] = [frame.opening]
    position = len(frame.opening)
    starts: list[int] = []
    for part in parts:
        starts.append(position)
        ids += [part, [frame.sep_id]]
        position += len(part) + 1
    content = sum(len(part) for part in parts)
    owned = range(plan.own_first, plan.own_last)
    places = tuple(_place(pieces[piece], starts[len(before) + piece - plan.first]) for piece in owned)
    pooled = sum(pieces[piece].length for piece in owned)
    context = tuple(content - (place.end - place.start) for place in places)
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
