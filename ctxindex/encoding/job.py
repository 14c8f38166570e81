"""One document on its way through the model: its rows, what has come back for them, and what becomes of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ctxindex.encoding.head import Head
from ctxindex.encoding.pooling import MeanPool, unit_rows
from ctxindex.encoding.rows import Row
from ctxindex.errors import DocumentError
from ctxindex.types import ChunkedDocument, EncodedDocument, FailedDocument

if TYPE_CHECKING:
    from ctxindex.types import FloatArray


class DocumentJob:
    """Collects what the model gives for a document's rows until all are there.

    Args:
        source: the document.
        rows: all of its rows, contextual ones first, each view in the order of the text.
        head: what makes vectors of pooled states.
        n_tokens: content tokens of all chunks.
        blend: weight of the isolated vectors, whose rows are among `rows` where it is not 0.
    """

    def __init__(
        self, source: ChunkedDocument, rows: Sequence[Row], head: Head, n_tokens: int, blend: float = 0.0
    ) -> None:
        self.source = source
        self.rows = rows
        self.weight = sum(row.length for row in rows)
        self._head = head
        self._n_tokens = n_tokens
        self._blend = blend
        self._open = len(rows)
        self._too_long = 0
        count = len(source.chunks)
        self._contextual = MeanPool(count)
        self._isolated = MeanPool(count)
        self._windows = [0] * count
        self._context = [0] * count
        for number, row in reversed(list(enumerate(rows))):  # a chunk in pieces is listed where it begins
            if not row.isolated:
                for place, context in zip(row.places, row.context, strict=True):
                    self._windows[place.chunk] = number
                    self._context[place.chunk] = context

    def add(self, row: Row, values: FloatArray | None) -> bool:
        """Take in what the model gave for one row, None where it could not; True when nothing more will come."""
        if values is None:
            self._too_long = max(self._too_long, row.length)
        elif not self._too_long:
            self.take(row, values)
        self._open -= 1
        return self._open == 0

    def take(self, row: Row, values: FloatArray) -> None:
        """The sums of the places of one row, (places, width) float32."""
        pool = self._isolated if row.isolated else self._contextual
        for place, total in zip(row.places, values, strict=True):
            pool.add(place.chunk, total, place.end - place.start)

    def vectors(self) -> tuple[FloatArray, tuple[int, ...] | None]:
        """`vectors` and `lengths` of the `EncodedDocument`.

        Both views go through the head on their own before they are mixed, so that a blend mixes unit vectors.

        Raises:
            DocumentError: there are none.
        """
        contextual = self._head(self._contextual.means())
        if not self._blend:
            return contextual, None
        isolated = self._head(self._isolated.means())
        return unit_rows((1 - self._blend) * contextual + self._blend * isolated), None

    def result(self) -> EncodedDocument | FailedDocument:
        """The document with its vectors, or why it has none."""
        document = self.source.document
        if self._too_long:
            reason = f"a window of {self._too_long} tokens does not fit in memory: use smaller windows (--max-tokens)"
            return FailedDocument(document.doc_id, reason)
        try:
            vectors, lengths = self.vectors()
        except DocumentError as error:
            return FailedDocument(document.doc_id, error.reason, "" if error.transient else document.source_hash)
        windows, context = tuple(self._windows), tuple(self._context)
        return EncodedDocument(document, self.source.chunks, vectors, windows, context, self._n_tokens, lengths)
