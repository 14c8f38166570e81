"""Late chunking: the chunks of a document go through the model together, and each is pooled out of the joint states.

A row holds a stretch of the document's tokens (see `content`) behind one CLS and one document prefix, closed by a
separator. A chunk's vector is the mean of its own tokens' states.

    [CLS] prefix (title [SEP]) (head of the document [SEP]) (context) chunk … chunk (context) [SEP]

What stands in brackets is read and never pooled. Title and head are the *anchor*: without them, only the first window
of a long document knows what the document is about. Which special tokens are pooled is a policy (`Ends`): none, or
those at the ends of the document, in its first and its last window; CLS and separators of other windows never are.

Sources: "Context is Gold to find the Gold Passage", arXiv 2505.24782, section 3 and appendix B.1; first described in
"Late Chunking", arXiv 2409.04701, whose windows of tokens are `token_rows`. The anchor is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ctxindex.encoding.content import Content
from ctxindex.encoding.rows import Frame, Place, Row
from ctxindex.encoding.windows import Piece, WindowPlan, cut_pieces, plan_windows, token_windows
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
class Ends:
    """What is pooled besides content.

    `opening` is the position of the document's first window that the first chunk begins at, 0 for CLS; None for its own
    first token. `closing` is whether the last chunk owns the separator that closes the document. A row ends with a
    separator if `closed`.
    """

    opening: int | None = None
    closing: bool = False
    closed: bool = True


@dataclass(frozen=True, slots=True)
class _Opening:
    """The anchor of one document, cut to size: its title, and how many of its first tokens, separators included."""

    title: Ids
    head: int

    @property
    def title_cost(self) -> int:
        return len(self.title) + bool(len(self.title))

    @property
    def cost(self) -> int:
        return self.title_cost + self.head + bool(self.head)


def late_rows(
    content: Content,
    frame: Frame,
    overlap: int,
    anchor: Anchor | None = None,
    owner: Owner = "centre",
    *,
    whole: bool = False,
    ends: Ends | None = None,
) -> list[Row]:
    """The windows of one document: `overlap` and `owner` as of `plan_windows`, but a single one if `whole`."""
    ends = ends or Ends()
    opening = _open(content, frame.room, anchor)
    room = content.total + 1 if whole else frame.room - opening.title_cost
    later_room = room if whole else frame.room - opening.cost
    # Sorted, because the pieces of chunks that overlap take turns.
    pieces = sorted(cut_pieces(content.spans, later_room - 1), key=lambda piece: piece.start)
    spans = [(piece.start, piece.end) for piece in pieces]
    plans = plan_windows(spans, content.total, room, overlap, owner=owner, later_room=later_room)
    rows = [_row(content, pieces, plan, frame, opening, ends) for plan in plans]
    first = rows[0].places[0]
    if ends.opening is not None:
        rows[0] = replace(rows[0], places=(_opened(first, ends.opening), *rows[0].places[1:]))
    last = rows[-1].places[-1]
    if ends.closing and ends.closed:
        rows[-1] = replace(rows[-1], places=(*rows[-1].places[:-1], replace(last, end=last.end + 1)))
    return rows


def token_rows(content: Content, frame: Frame, overlap: int, ends: Ends | None = None) -> list[Row]:
    """Windows of the framed token sequence, cut without regard to chunks; `overlap` as of `token_windows`.

    Only the first window has CLS and prefix, only the last the separator. A chunk is the mean of states of several
    windows where it lies across their borders.
    """
    ends = ends or Ends()
    before = len(frame.opening)
    ids = np.concatenate([frame.opening, content.ids, *([frame.separator] if ends.closed else [])])
    spans = [Place(chunk, before + start, before + end) for chunk, (start, end) in enumerate(content.spans)]
    if ends.opening is not None:
        spans[0] = _opened(spans[0], ends.opening)
    if ends.closing:
        spans[-1] = replace(spans[-1], end=len(ids))
    starts, stops = (np.array([getattr(span, side) for span in spans]) for side in ("start", "end"))
    rows: list[Row] = []
    for start, kept, end in token_windows(len(ids), frame.max_tokens, overlap):
        places, context, pooled = [], [], 0
        for number in np.flatnonzero((starts < end) & (stops > kept)).tolist():
            place = Place(number, max(kept, spans[number].start) - start, min(end, spans[number].end) - start)
            places.append(place)
            own = _within(content, before, start + place.start, start + place.end)
            context.append(_within(content, before, start, end) - own)
            pooled += own
        if places:
            rows.append(Row(ids[start:end], tuple(places), pooled, tuple(context)))
    return rows


def _within(content: Content, before: int, start: int, end: int) -> int:
    """How many of the positions `[start, end)` of a sequence hold content, which begins at `before`."""
    return max(0, min(end - before, content.total) - max(start - before, 0))


def _opened(place: Place, position: int) -> Place:
    """The place of a document's first piece from `position` on, but never without a token."""
    return replace(place, start=min(position, place.end - 1))


def _open(content: Content, room: int, anchor: Anchor | None) -> _Opening:
    if anchor is None:
        return _Opening(content.ids[:0], 0)
    # Separators count too, so that short chunks cannot take more than their share.
    return _Opening(anchor.title[: room // 4 - 1], content.head(anchor.tokens, room // 4 - 1))


def _row(
    content: Content, pieces: Sequence[Piece], plan: WindowPlan, frame: Frame, opening: _Opening, ends: Ends
) -> Row:
    start, end = content.trimmed(plan.start, plan.end)
    parts = [frame.opening]
    shown = len(opening.title)
    if len(opening.title):
        parts += [opening.title, frame.separator]
    if plan.first and opening.head:
        reaches = start <= opening.head + int(content.separators[opening.head])
        if reaches:  # the context before goes back into the head of the document, or up to it
            start = 0
        else:
            parts += [content.ids[: opening.head], frame.separator]
            shown += content.count(0, opening.head)
    shown += content.count(start, end)
    shift = sum(map(len, parts)) - start
    parts += [content.ids[start:end], *([frame.separator] if ends.closed else [])]
    owned = pieces[plan.own_first : plan.own_last]
    places = tuple(Place(piece.chunk, piece.start + shift, piece.end + shift) for piece in owned)
    context = tuple(shown - piece.length for piece in owned)
    return Row(np.concatenate(parts), places, sum(piece.length for piece in owned), context)
