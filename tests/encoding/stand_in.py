"""A backbone whose state is the token's own id: every mistake of place or ownership shows as a wrong whole number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ctxindex.encoding import EncoderOptions, load_encoder
from ctxindex.encoding.checkpoint import open_checkpoint
from ctxindex.encoding.local import LocalEncoder
from ctxindex.encoding.rows import Row
from ctxindex.metering import Meter
from ctxindex.spec import Method
from ctxindex.types import Chunk, ChunkedDocument, Document

if TYPE_CHECKING:
    from ctxindex.types import FloatArray


class IdBackbone:
    """Implements `Backbone`: the state of a token is (its id, 1), with no context at all."""

    def __init__(self) -> None:
        self.rows: list[Row] = []

    def place_sums(self, rows: Sequence[Row]) -> FloatArray:
        self.rows.extend(rows)
        sums = [
            (row.ids[place.start : place.end].sum(), place.end - place.start) for row in rows for place in row.places
        ]
        return np.array(sums, dtype=np.float32)


def stand_in_encoder(
    method: Method, max_tokens: int, batch_tokens: int = 256, **more: Any
) -> tuple[LocalEncoder, IdBackbone]:
    """MiniLM's tokenizer and our windows, with `IdBackbone` in place of the network; `more` are `EncoderOptions`."""
    options = EncoderOptions(method=method, max_tokens=max_tokens, batch_tokens=batch_tokens, **more)
    spec = replace(load_encoder("minilm", options).spec, dim=2)
    backbone = IdBackbone()
    return LocalEncoder(open_checkpoint("minilm"), spec, options, Meter(), backbone), backbone


def chunked(doc_id: str, texts: Sequence[str]) -> ChunkedDocument:
    """A document of which `texts` are the chunks."""
    chunks: list[Chunk] = []
    position = 0
    for ordinal, text in enumerate(texts):
        chunks.append(Chunk(ordinal, position, position + len(text), text))
        position += len(text) + 1
    return ChunkedDocument(Document(doc_id, "\n".join(texts)), tuple(chunks))
