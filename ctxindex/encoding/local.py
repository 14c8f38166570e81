"""An encoder that runs a model of ours in this process: documents in, documents with vectors out.

    documents -> [thread: tokenise, plan windows] -> pool of rows -> batches -> forward pass -> sums -> vectors

The thread pulls the documents too, so whatever makes them (reading, parsing, chunking) also runs ahead of the model.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np

from ctxindex.encoding.backbone import Backbone, TransformerBackbone
from ctxindex.encoding.batching import cut_batches, prefetch
from ctxindex.encoding.checkpoint import Checkpoint
from ctxindex.encoding.independent import independent_rows
from ctxindex.encoding.late import late_rows
from ctxindex.encoding.pooling import MeanPool, unit_rows
from ctxindex.encoding.rows import Frame, Row
from ctxindex.encoding.tokenizer import ModelTokenizer
from ctxindex.errors import DocumentError, UsageError
from ctxindex.metering import Meter
from ctxindex.spec import EncoderSpec
from ctxindex.types import ChunkedDocument, EncodedDocument, FailedDocument

if TYPE_CHECKING:
    from ctxindex.encoding.encoder import EncoderOptions
    from ctxindex.encoding.tokenizer import Ids
    from ctxindex.types import FloatArray

_log = logging.getLogger("ctxindex")

BATCH_TOKENS = 4096
"""Padded tokens of a batch where the user says nothing: 8 full windows of MiniLM."""

_POOL_BATCHES = 4
"""Batches that rows are collected for before they are sorted: little padding, and seconds of work lost in a crash."""

Owner = TypeVar("Owner")


@dataclass(frozen=True, slots=True)
class _Task(Generic[Owner]):
    """A row, and who waits for its sums."""

    owner: Owner
    row: Row

    @property
    def length(self) -> int:
        return self.row.length


class _Job:
    """One document on its way through the model."""

    def __init__(self, source: ChunkedDocument, rows: list[Row], dim: int) -> None:
        self.source = source
        self.rows = rows
        self.tokens = sum(row.length for row in rows)
        self._content = sum(row.content for row in rows)
        self._open = len(rows)
        self._pool = MeanPool(len(source.chunks), dim)
        self._windows = [0] * len(source.chunks)
        self._context = [0] * len(source.chunks)
        for number, row in reversed(list(enumerate(rows))):  # a chunk in pieces is listed where it begins
            for place, context in zip(row.places, row.context, strict=True):
                self._windows[place.chunk] = number
                self._context[place.chunk] = context

    def add(self, row: Row, sums: FloatArray) -> bool:
        """Take in the sums of one row, (places, dim) float32; True when the document is complete."""
        for place, total in zip(row.places, sums, strict=True):
            self._pool.add(place.chunk, total, place.end - place.start)
        self._open -= 1
        return self._open == 0

    def result(self) -> EncodedDocument | FailedDocument:
        document = self.source.document
        try:
            vectors = self._pool.vectors()
        except DocumentError as error:
            return FailedDocument(document.doc_id, error.reason, "" if error.transient else document.source_hash)
        return EncodedDocument(
            document, self.source.chunks, vectors, tuple(self._windows), tuple(self._context), self._content
        )


class LocalEncoder:
    """Implements `Encoder` with the model of a checkpoint; one forward pass at a time, from one thread."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        spec: EncoderSpec,
        options: EncoderOptions,
        meter: Meter,
        backbone: Backbone | None = None,
    ) -> None:
        self.spec = spec
        self.tokenizer = ModelTokenizer(checkpoint.backbone)
        self._checkpoint = checkpoint
        self._device = options.device
        self._budget = options.batch_tokens or BATCH_TOKENS
        self._meter = meter
        self._backbone = backbone

    def encode_documents(self, documents: Iterable[ChunkedDocument]) -> Iterator[EncodedDocument | FailedDocument]:
        """See `Encoder.encode_documents`."""
        frame = self._frame(self.spec.document_prefix)
        limit = 2 * _POOL_BATCHES * self._budget
        jobs = self._jobs(documents, frame)
        with prefetch(jobs, lambda job: job.tokens if isinstance(job, _Job) else 0, limit) as ahead:
            yield from self._encode(ahead)

    def encode_queries(self, queries: Sequence[str]) -> FloatArray:
        """See `Encoder.encode_queries`. A query longer than a window is cut, with a warning in the log."""
        frame = self._frame(self.spec.query_prefix)
        rows: list[Row] = []
        for query, ids in zip(queries, self.tokenizer.ids(queries), strict=True):
            if not len(ids):
                raise UsageError(f"there is nothing in the query {query!r} that the model can read")
            if len(ids) > frame.room - 1:
                _log.warning("a query of %d tokens was cut to the %d the model can read", len(ids), frame.room - 1)
            rows.extend(independent_rows([ids[: frame.room - 1]], frame))
        if not rows:
            return np.empty((0, self.spec.dim), dtype=np.float32)
        vectors = np.empty((len(rows), self.spec.dim), dtype=np.float32)
        for task, sums in self._sums([_Task(number, row) for number, row in enumerate(rows)]):
            vectors[task.owner] = sums[0] / task.length
        return unit_rows(vectors)

    def _jobs(self, documents: Iterable[ChunkedDocument], frame: Frame) -> Iterator[_Job | FailedDocument]:
        """Runs in the prefetching thread."""
        for source in documents:
            with self._meter.time("tokenise"):
                chunks = self.tokenizer.ids([chunk.text for chunk in source.chunks])
                rows = self._rows(chunks, frame) if all(map(len, chunks)) else []
            if rows:
                yield _Job(source, rows, self.spec.dim)
            else:
                reason = "a chunk has no tokens that the model can read"
                yield FailedDocument(source.document.doc_id, reason, source.document.source_hash)

    def _rows(self, chunks: Sequence[Ids], frame: Frame) -> list[Row]:
        if self.spec.method == "late":
            return list(late_rows(chunks, frame, self.spec.overlap))
        return list(independent_rows(chunks, frame))

    def _encode(self, jobs: Iterable[_Job | FailedDocument]) -> Iterator[EncodedDocument | FailedDocument]:
        pool: list[_Task[_Job]] = []
        held = 0
        for job in jobs:
            if isinstance(job, FailedDocument):
                yield job
                continue
            for row in job.rows:
                pool.append(_Task(job, row))
                held += row.length
                if held >= _POOL_BATCHES * self._budget:
                    yield from self._run(pool)
                    pool, held = [], 0
        yield from self._run(pool)

    def _run(self, pool: Sequence[_Task[_Job]]) -> Iterator[EncodedDocument | FailedDocument]:
        for task, sums in self._sums(pool):
            self._meter.tokens(task.row.content)
            if task.owner.add(task.row, sums):
                yield task.owner.result()

    def _sums(self, tasks: Sequence[_Task[Owner]]) -> Iterator[tuple[_Task[Owner], FloatArray]]:
        """Each task with the sums of its row's places, (places, dim) float32."""
        for batch in cut_batches(tasks, self._budget):
            sums = self.load().place_sums([task.row for task in batch])
            start = 0
            for task in batch:
                stop = start + len(task.row.places)
                yield task, sums[start:stop]
                start = stop

    def load(self) -> Backbone:
        """Bring the model into memory now, instead of with the first batch.

        Raises:
            ModelError: the weights cannot be loaded.
            ConfigError: this machine has not the device asked for.
        """
        if self._backbone is None:
            self._backbone = TransformerBackbone(
                self._checkpoint.backbone,
                max_tokens=self.spec.max_tokens,
                pad_id=self.tokenizer.pad_id,
                dtype=self.spec.dtype,
                device=self._device,
                meter=self._meter,
            )
        return self._backbone

    def _frame(self, prefix: str) -> Frame:
        ids = self.tokenizer.ids([prefix])[0] if prefix else np.empty(0, dtype=np.int32)
        return Frame(self.tokenizer.cls_id, self.tokenizer.sep_id, ids, self.spec.max_tokens)
