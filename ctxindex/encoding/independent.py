"""Independent embedding: every chunk is encoded alone, as the model embeds any text. What context is measured against.

Every chunk has a row of its own. As a method, a row is pooled whole, CLS and separator included (`inclusive`), which is
what mean-pooled models of Sentence-Transformers do. As the *isolated view* of a blend it is pooled like the contextual
one (`strict`: the chunk's own tokens), so that the two can be mixed; it may carry the title, unpooled, in front.
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


def isolated_rows(chunks: Sequence[Ids], frame: Frame, title: Ids | None = None) -> Iterator[Row]:
    """One row a chunk, `[CLS] prefix (title [SEP]) chunk [SEP]`, of which the chunk is pooled.

    `title`, (tokens,) int32, is cut to a quarter of the row.
    """
    lead = [] if title is None or not len(title) else [title[: frame.room // 4 - 1], [frame.sep_id]]
    opening = np.concatenate([[frame.cls_id], frame.prefix, *lead]).astype(np.int32)
    for piece in cut_pieces([len(ids) for ids in chunks], frame.max_tokens - len(opening) - 1):
        content = chunks[piece.chunk][piece.start : piece.end]
        ids = np.concatenate([opening, content, [frame.sep_id]]).astype(np.int32)
        place = Place(piece.chunk, len(opening), len(opening) + len(content))
        yield Row(ids, (place,), 0, (0,), isolated=True)
