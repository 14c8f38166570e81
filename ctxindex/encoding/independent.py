"""Independent embedding: every chunk is encoded alone, as the model embeds any text. What context is measured against.

Every chunk has a row of its own and is pooled as the model pools any text: the mean of the whole row, CLS and
separator included (`inclusive`), without CLS and prompt (`no-prompt`), or the one state of `cls` or `lasttoken`. A
chunk in several rows is the mean over all of them.
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
    for piece in cut_pieces([len(ids) for ids in chunks], frame.room - 1):
        content = chunks[piece.chunk][piece.start : piece.end]
        ids = np.concatenate([frame.opening, content, [frame.sep_id] if frame.closed else []]).astype(np.int32)
        start, end = _pooled(pooling, len(ids), frame)
        yield Row(ids, (Place(piece.chunk, start, end),), len(content), (0,))


def _pooled(pooling: PoolingName, length: int, frame: Frame) -> tuple[int, int]:
    """The positions of a row that its vector is the mean of."""
    if pooling == "cls":
        return 0, 1
    if pooling == "lasttoken":
        return length - 1, length
    return (frame.prompt_length if pooling == "no-prompt" else 0), length
