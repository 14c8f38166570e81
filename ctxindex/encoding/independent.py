"""Independent embedding: every chunk is encoded alone, as the model embeds any text. What context is measured against.

Every chunk has a row of its own and is pooled whole, CLS and separator included (`inclusive`), which is what
mean-pooled models of Sentence-Transformers do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ctxindex.encoding.rows import Frame, Place, Row
from ctxindex.encoding.windows import cut_pieces

if TYPE_CHECKING:
    from ctxindex.encoding.tokenizer import Ids


def independent_rows(chunks: Sequence[Ids], frame: Frame) -> Iterator[Row]:
    """One row a chunk, `[CLS] prefix chunk [SEP]`, pooled whole; a chunk too long for a row gives several."""
    for piece in cut_pieces([len(ids) for ids in chunks], frame.room - 1):
        content = chunks[piece.chunk][piece.start : piece.end]
        ids = np.concatenate([[frame.cls_id], frame.prefix, content, [frame.sep_id]]).astype(np.int32)
        yield Row(ids, (Place(piece.chunk, 0, len(ids)),), len(content), (0,))
