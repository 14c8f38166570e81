"""One document on its way through the model: its rows, the sums that have come back, and what becomes of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ctxindex.encoding.pooling import MeanPool, unit_rows
from ctxindex.encoding.rows import Row
from ctxindex.errors import DocumentError
from ctxindex.types import ChunkedDocument, EncodedDocument, FailedDocument

if TYPE_CHECKING:
    from ctxindex.types import FloatArray


class DocumentJob:
    """Collects the sums of a document's rows until all are there.

    Args:
        source: the document.
        rows: all of its rows, contextual ones first, in the order of the text.
        dim: numbers in a state.
        blend: weight of the isolated vectors, whose rows are among `rows` where it is not 0.
        n_tokens: content tokens of all chunks.
    """

    def __init__(self, source: ChunkedDocument, rows: Sequence[Row], dim: int, blend: float, n_tokens: int) -> None:
        self.source = source
        self.rows = rows
        self.weight = sum(row.length for row in rows)
        self._n_tokens = n_tokens
        self._blend = blend
        self._open = len(rows)
        count = len(source.chunks)
        self._contextual = MeanPool(count, dim)
        self._isolated = MeanPool(count, dim) if blend else None
        self._windows = [0] * count
        self._context = [0] * count
        for number, row in reversed(list(enumerate(rows))):  # a chunk in pieces is listed where it begins
            if not row.isolated:
                for place, context in zip(row.places, row.context, strict=True):
                    self._windows[place.chunk] = number
                    self._context[place.chunk] = context

    def add(self, row: Row, sums: FloatArray) -> bool:
        """Take in the sums of one row, (places, dim) float32; True when the document is complete."""
        pool = self._isolated if row.isolated else self._contextual
        assert pool is not None, "isolated rows come with a blend"
        for place, total in zip(row.places, sums, strict=True):
            pool.add(place.chunk, total, place.end - place.start)
        self._open -= 1
        return self._open == 0

    def result(self) -> EncodedDocument | FailedDocument:
        """The document with its vectors, or why the model's output cannot be used."""
        document = self.source.document
        try:
            vectors = self._vectors()
        except DocumentError as error:
            return FailedDocument(document.doc_id, error.reason, document.source_hash)
        windows, context = tuple(self._windows), tuple(self._context)
        return EncodedDocument(document, self.source.chunks, vectors, windows, context, self._n_tokens)

    def _vectors(self) -> FloatArray:
        contextual = self._contextual.vectors()
        if self._isolated is None:
            return contextual
        return unit_rows((1 - self._blend) * contextual + self._blend * self._isolated.vectors())
