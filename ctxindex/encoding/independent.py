"""Independent embedding: every chunk is encoded alone, as the model embeds any text. What context is measured against.

Every chunk has a row of its own. As a method, a row is pooled as the model pools any text: the mean of the whole row,
CLS and separator included (`inclusive`), without CLS and prompt (`no-prompt`), or the one state of `cls` or
`lasttoken`. A chunk in several rows is the mean over all of them. As the *isolated view* of a blend it is pooled like
the contextual one (`strict`: the chunk's own tokens), so that the two can be mixed; it may carry, unpooled and in
front, what says which document it is of: the title, or the document's first tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ctxindex.encoding.rows import Frame, Place, Row
from ctxindex.encoding.windows import cut_pieces

if TYPE_CHECKING:
    from ctxindex.encoding.tokenizer import Ids
    from ctxindex.spec import PoolingName


def independent_rows(chunks: Sequence[Ids], frame: Frame, pooling: PoolingName = "inclusive") -> Iterator[Row]:
    """One row a chunk, `[CLS] prefix chunk [SEP]`, pooled as `pooling` says; one too long for a row gives several."""
    for piece in cut_pieces([(0, len(ids)) for ids in chunks], frame.room - 1):
        content = chunks[piece.chunk][piece.start : piece.end]
        ids = _closed(frame, [frame.opening, content])
        start, end = _pooled(pooling, len(ids), frame)
        yield Row(ids, (Place(piece.chunk, start, end),), len(content), (0,))


def isolated_rows(chunks: Sequence[Ids], frame: Frame, shown: Ids | None = None, bare: int = 0) -> Iterator[Row]:
    """One row a chunk, `[CLS] prefix (shown [SEP]) chunk [SEP]`, of which the chunk is pooled.

    `shown`, (tokens,) int32, says which document it is, and is cut to a quarter of the row; the first `bare` chunks are
    read without it.
    """
    plain = titled = frame.opening
    if shown is not None and len(shown):
        titled = np.concatenate([plain, shown[: frame.room // 4 - 1], [frame.sep_id]]).astype(np.int32)
    for piece in cut_pieces([(0, len(ids)) for ids in chunks], frame.max_tokens - len(titled) - 1):
        opening = plain if piece.chunk < bare else titled
        content = chunks[piece.chunk][piece.start : piece.end]
        place = Place(piece.chunk, len(opening), len(opening) + len(content))
        yield Row(_closed(frame, [opening, content]), (place,), 0, (0,), isolated=True)


def _closed(frame: Frame, parts: list[Ids]) -> Ids:
    """The parts as one row, with the separator behind them where texts end with one."""
    return np.concatenate([*parts, [frame.sep_id] if frame.closed else []]).astype(np.int32)


def _pooled(pooling: PoolingName, length: int, frame: Frame) -> tuple[int, int]:
    """The positions of a row that its vector is the mean of."""
    if pooling == "cls":
        return 0, 1
    if pooling == "lasttoken":
        return length - 1, length
    return (frame.prompt_length if pooling == "no-prompt" else 0), length
