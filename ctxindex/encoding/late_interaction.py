"""Late interaction with late chunking: chunks go through the model together, and each keeps a vector a token.

    document   [CLS] [D] c1 [SEP] c2 [SEP] …      in the windows of late chunking, with the same owners and context
    query      [CLS] [Q] text [SEP] [MASK] …      filled up to a fixed length where the model was trained so

A chunk keeps the vectors of its content tokens in the order of its text, however many windows it was read in: none for
separators, none for padding, none dropped. With the policy `authors-compat` the first chunk also keeps those of CLS and
the marker, and with `inclusive` the last one also its separator's, which makes a document of one chunk what PyLate
gives; `strict`, the default, keeps content alone. With `--windows chunk` every chunk is a document of its own (PyLate's
vectors with the skiplist of the model, where the chunk is no longer than PyLate reads): the baseline that reading in
context is measured against. Source: "Context is Gold to find the Gold Passage", arXiv 2505.24782, and PyLate 1.4,
models/colbert.py.

With a blend b every chunk is also read alone, as exactly these tokens, and token i keeps one vector, mixed of both:

    normalize((1 - b) u_i + b v_i)      u_i in its window, v_i in the chunk alone

Both have unit length, so this is the blend of one vector a chunk, token by token, and a store holds and scores what it
does without. Two other forms were measured (docs/how-it-works.md): two multivectors and (1 - b) MaxSim(q, u) + b
MaxSim(q, v) found a little less; the vectors of both views under one maximum found as much as token-wise b = 0.7 with
an untrained model and half a point more with one that was trained for context, and up to three points more than smaller
b, for twice the vectors in the store and in every search. Then what the skiplist
names is left out, and the rest is clustered by the mixed vectors.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import numpy as np

from ctxindex.encoding.checkpoint import Checkpoint
from ctxindex.encoding.colbert import query_length
from ctxindex.encoding.colbert_model import ColbertBackbone, TokenBackbone
from ctxindex.encoding.head import Head
from ctxindex.encoding.job import DocumentJob
from ctxindex.encoding.local import LocalEncoder
from ctxindex.encoding.pooling import unit_rows
from ctxindex.encoding.rows import Frame, Place, Row
from ctxindex.encoding.token_pooling import pool_tokens
from ctxindex.errors import DocumentError, ModelError
from ctxindex.metering import Meter
from ctxindex.spec import EncoderSpec
from ctxindex.types import MULTIVECTOR_NUMBERS, ChunkedDocument

if TYPE_CHECKING:
    import numpy.typing as npt

    from ctxindex.encoding.colbert import ColbertLayout
    from ctxindex.encoding.options import EncoderOptions
    from ctxindex.encoding.tokenizer import Ids
    from ctxindex.types import FloatArray

_log = logging.getLogger("ctxindex")

_QUERIES_AT_ONCE = 64
_UNUSABLE = "the model's output is not a usable vector (its norm is zero or not finite)"


class LateInteractionEncoder(LocalEncoder):
    """Implements `Encoder` with a late-interaction model: documents and queries get several vectors each."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        spec: EncoderSpec,
        options: EncoderOptions,
        meter: Meter,
        backbone: TokenBackbone | None = None,
    ) -> None:
        super().__init__(checkpoint, spec, options, meter, backbone)
        self._layout = cast("ColbertLayout", checkpoint.colbert)
        skipped = self._layout.skiplist if spec.skiplist == "model" else frozenset()
        self._skipped = np.array(sorted(skipped), dtype=np.int32)

    def encode_queries(self, queries: Sequence[str]) -> list[FloatArray]:  # type: ignore[override]  # ragged
        """(query vectors, dim) float32 for each query, unit rows.

        A query longer than the model reads is cut, with a warning in the log.

        Raises:
            UsageError: a query without any token.
            ModelError: the model gives no usable vectors.
        """
        rows = self.query_rows(queries)
        scored: list[FloatArray] = []
        for start in range(0, len(rows), _QUERIES_AT_ONCE):
            part = rows[start : start + _QUERIES_AT_ONCE]
            try:
                vectors = self.load().token_vectors(
                    [row.ids for row in part], [row.length if row.attended is None else row.attended for row in part]
                )
            except MemoryError:
                raise ModelError(f"there is not enough memory to read {len(part)} queries at once") from None
            scored += [_placed(row, each) for row, each in zip(part, vectors, strict=True)]
        if not all(np.isfinite(each).all() for each in scored):
            raise ModelError(_UNUSABLE)
        return scored

    def load(self) -> TokenBackbone:
        """See `LocalEncoder.load`."""
        if self._backbone is None:
            self._backbone = ColbertBackbone(
                self._layout,
                facts=self._checkpoint.facts,
                max_tokens=self.spec.max_tokens,
                pad_id=self.tokenizer.pad_id,
                dtype=self.spec.dtype,
                device=self._device,
                threads=self._threads,
                meter=self._meter,
            )
        return cast("TokenBackbone", self._backbone)

    def document_rows(self, source: ChunkedDocument) -> list[Row]:
        """See `LocalEncoder.document_rows`: tokens whose vectors are left out are in no place."""
        rows = super().document_rows(source)
        if not len(self._skipped):
            return rows
        saying = {place.chunk for row in rows for place in row.places if not self._skips(row, place).all()}
        return [row for row in (self._without_skipped(row, saying) for row in rows) if row.places]

    def _skips(self, row: Row, place: Place) -> npt.NDArray[np.bool_]:
        """Which tokens of a place the skiplist names."""
        return np.isin(row.ids[place.start : place.end], self._skipped)

    def _without_skipped(self, row: Row, saying: Collection[int]) -> Row:
        """The row without the tokens to skip, of the chunks that are `saying` something besides these."""
        runs = [
            (run, context)
            for place, context in zip(row.places, row.context, strict=True)
            for run in (_runs(place, self._skips(row, place)) if place.chunk in saying else [place])
        ]
        return replace(row, places=tuple(run for run, _ in runs), context=tuple(context for _, context in runs))

    def query_rows(self, queries: Sequence[str]) -> list[Row]:
        """See `LocalEncoder.query_rows`: every place is a token whose vector is scored."""
        return [self._query_row(ids) for ids in self._query_ids(queries, self._layout.query_marker.lead)]

    def _query_row(self, content: Ids) -> Row:
        marker, expansion = self._layout.query_marker, self._layout.expansion
        opening = [] if self.tokenizer.cls_id is None else [self.tokenizer.cls_id]
        opening += marker.ids
        room = query_length(self._layout, self.spec.max_tokens) - 1 - len(opening)
        if len(content) > room:
            _log.warning("a query of %d tokens was cut to the %d the model reads", len(content), room)
        read = [*opening, *content[:room], self.tokenizer.sep_id]
        filling = max(0, expansion.length - len(read)) * [expansion.token_id] if expansion else []
        attended = len(read) + (len(filling) if expansion and expansion.attend else 0)
        ids = np.array([*read, *filling], dtype=np.int32)
        places = tuple(Place(0, place, place + 1) for place in self._scored(ids))
        return Row(ids, places, len(content[:room]), (0,) * len(places), attended=attended)

    def _scored(self, ids: Ids) -> list[int]:
        """The places of a query whose vectors are scored: all, save those that the model's files say to skip."""
        skipped = self._layout.skiplist if "query" in self._layout.skiplist_tasks else frozenset()
        kept = np.flatnonzero(~np.isin(ids, list(skipped))).tolist()
        return kept or list(range(len(ids)))

    def _frame(self, prefix: str) -> Frame:
        marker = np.array(self._layout.document_marker.ids, dtype=np.int32)
        lead = self._layout.document_marker.lead
        return Frame(self.tokenizer.cls_id, self.tokenizer.sep_id, marker, self.spec.max_tokens, lead)

    def _job(self, source: ChunkedDocument, rows: list[Row], n_tokens: int) -> DocumentJob:
        return _TokenJob(source, rows, self._head, n_tokens, self.spec, self._skipped)

    def _values(self, rows: Sequence[Row]) -> list[FloatArray]:
        """For each row the vectors of all its tokens, (tokens, dim) float32."""
        ids = [row.ids for row in rows]
        return self.load().token_vectors(ids, list(map(len, ids)))


def _runs(place: Place, skipped: npt.NDArray[np.bool_]) -> list[Place]:
    """The stretches of a place, (its tokens,), that are not skipped."""
    edges = np.flatnonzero(np.diff(np.concatenate([[True], skipped, [True]]))) + place.start
    return [Place(place.chunk, start, end) for start, end in edges.reshape(-1, 2).tolist()]


def _placed(row: Row, vectors: FloatArray) -> FloatArray:
    """Those of a row's vectors, (its length, dim), that its places name."""
    return vectors if len(row.places) == row.length else vectors[[place.start for place in row.places]]


class _TokenJob(DocumentJob):
    """One document on its way through the model: the token vectors of its chunks, put back in order."""

    def __init__(
        self, source: ChunkedDocument, rows: list[Row], head: Head, n_tokens: int, spec: EncoderSpec, skipped: Ids
    ) -> None:
        super().__init__(source, rows, head, n_tokens, spec.blend)
        self._numbers = {id(row): number for number, row in enumerate(rows)}
        self._parts: list[list[FloatArray]] = [[] for _ in rows]
        self._factor = spec.pool_factor
        self._skipped = skipped
        self._alone = spec.windows == "chunk"
        self._protected = 0 if spec.pooling == "strict" else 1

    def take(self, row: Row, vectors: FloatArray) -> None:
        """Keep the vectors of the row's places; `vectors` is (tokens of the row, dim)."""
        # Copied, so that what the row shows as context is not held in memory until the document is complete.
        self._parts[self._numbers[id(row)]] = [vectors[place.start : place.end].copy() for place in row.places]

    def vectors(self) -> tuple[FloatArray, tuple[int, ...] | None]:
        """All chunks' vectors one after the other, and how many each has.

        Raises:
            DocumentError: they are not usable, or a chunk has more than a database can hold.
        """
        chunks = self._chunks(isolated=False)
        if self._blend:
            alone = self._chunks(isolated=True)
            chunks = [
                unit_rows((1 - self._blend) * one + self._blend * other)
                for one, other in zip(chunks, alone, strict=True)
            ]
        if len(self._skipped):
            chunks = [_kept(one, ids, self._skipped) for one, ids in zip(chunks, self._ids(), strict=True)]
        chunks = [self._pooled(number, one) for number, one in enumerate(chunks)]
        return np.concatenate(chunks), tuple(map(len, chunks))

    def _chunks(self, isolated: bool) -> list[FloatArray]:
        """The vectors of every chunk in one of the views, (its tokens, dim) each, put together from its pieces."""
        pieces: list[list[FloatArray]] = [[] for _ in self.source.chunks]
        for row, parts in zip(self.rows, self._parts, strict=True):
            if row.isolated is isolated:
                for place, part in zip(row.places, parts, strict=True):
                    pieces[place.chunk].append(part)
        return list(map(np.concatenate, pieces))

    def _ids(self) -> list[Ids]:
        """The ids of the same tokens."""
        pieces: list[list[Ids]] = [[] for _ in self.source.chunks]
        for row in self.rows:
            if not row.isolated:
                for place in row.places:
                    pieces[place.chunk].append(row.ids[place.start : place.end])
        return list(map(np.concatenate, pieces))

    def _pooled(self, number: int, vectors: FloatArray) -> FloatArray:
        if not np.isfinite(vectors).all():
            raise DocumentError(_UNUSABLE)
        opens = self._alone or number == 0  # the chunk has the vector of CLS
        pooled = pool_tokens(vectors, self._factor, self._protected if opens else 0)
        if pooled.size >= MULTIVECTOR_NUMBERS:
            raise DocumentError(
                f"chunk {number} has {len(pooled):,} token vectors of {pooled.shape[1]} numbers, and databases take "
                f"fewer than {MULTIVECTOR_NUMBERS:,} a chunk: choose a smaller --chunk-size or a larger --pool-factor"
            )
        return pooled


def _kept(vectors: FloatArray, ids: Ids, skipped: Ids) -> FloatArray:
    """Those of a chunk's vectors, (tokens, dim), whose tokens are not skipped; all where that would be none."""
    kept = ~np.isin(ids, skipped)
    return vectors[kept] if kept.any() else vectors
