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
from ctxindex.encoding.independent import independent_rows, isolated_rows
from ctxindex.encoding.job import DocumentJob
from ctxindex.encoding.late import Anchor, late_rows
from ctxindex.encoding.pooling import unit_rows
from ctxindex.encoding.rows import Frame, Row
from ctxindex.encoding.tokenizer import ModelTokenizer
from ctxindex.errors import UsageError
from ctxindex.metering import Meter
from ctxindex.spec import EncoderSpec
from ctxindex.types import ChunkedDocument, Document, EncodedDocument, FailedDocument

if TYPE_CHECKING:
    from ctxindex.encoding.encoder import EncoderOptions
    from ctxindex.encoding.tokenizer import Ids
    from ctxindex.types import FloatArray

_log = logging.getLogger("ctxindex")

BATCH_TOKENS = 4096
"""Padded tokens of a batch where the user says nothing: 8 full windows of MiniLM."""

_POOL_BATCHES = 4
"""Batches that rows are collected for before they are sorted: little padding, and seconds of work lost in a crash."""

Waiting = TypeVar("Waiting")


@dataclass(frozen=True, slots=True)
class _Task(Generic[Waiting]):
    """A row, and who waits for its sums."""

    owner: Waiting
    row: Row

    @property
    def length(self) -> int:
        return self.row.length


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
        with prefetch(jobs, _weight, limit) as ahead:
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

    def _jobs(self, documents: Iterable[ChunkedDocument], frame: Frame) -> Iterator[DocumentJob | FailedDocument]:
        """Runs in the prefetching thread."""
        for source in documents:
            with self._meter.time("tokenise"):
                chunks = self.tokenizer.ids([chunk.text for chunk in source.chunks])
                rows = self._rows(source.document, chunks, frame) if all(map(len, chunks)) else []
            if rows:
                yield DocumentJob(source, rows, self.spec.dim, self.spec.blend, sum(map(len, chunks)))
            else:
                reason = "a chunk has no tokens that the model can read"
                yield FailedDocument(source.document.doc_id, reason, source.document.source_hash)

    def _rows(self, document: Document, chunks: Sequence[Ids], frame: Frame) -> list[Row]:
        spec = self.spec
        if spec.method == "independent":
            return list(independent_rows(chunks, frame))
        title = self._title(document)
        anchor = Anchor(title if spec.anchor_title else title[:0], spec.anchor)
        rows = list(late_rows(chunks, frame, spec.overlap, anchor, "centre" if spec.owner == "none" else spec.owner))
        if spec.blend:
            rows += isolated_rows(chunks, frame, title if spec.isolated == "title" else None)
        return rows

    def _title(self, document: Document) -> Ids:
        """The ids of the title; none where there is no title, or the text begins with it and so says it already."""
        title = " ".join((document.title or "").split())
        opening = " ".join(document.text[: 2 * len(title) + 100].split())
        if not title or opening.casefold().startswith(title.casefold()):
            return np.empty(0, dtype=np.int32)
        return self.tokenizer.ids([title])[0]

    def _encode(self, jobs: Iterable[DocumentJob | FailedDocument]) -> Iterator[EncodedDocument | FailedDocument]:
        pool: list[_Task[DocumentJob]] = []
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

    def _run(self, pool: Sequence[_Task[DocumentJob]]) -> Iterator[EncodedDocument | FailedDocument]:
        for task, sums in self._sums(pool):
            self._meter.tokens(task.row.content)
            if task.owner.add(task.row, sums):
                yield task.owner.result()

    def _sums(self, tasks: Sequence[_Task[Waiting]]) -> Iterator[tuple[_Task[Waiting], FloatArray]]:
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
                pad_id=self.tokenizer.pad_id,
                dtype=self.spec.dtype,
                device=self._device,
                meter=self._meter,
            )
        return self._backbone

    def _frame(self, prefix: str) -> Frame:
        ids = self.tokenizer.ids([prefix])[0] if prefix else np.empty(0, dtype=np.int32)
        return Frame(self.tokenizer.cls_id, self.tokenizer.sep_id, ids, self.spec.max_tokens)


def _weight(job: DocumentJob | FailedDocument) -> int:
    return job.weight if isinstance(job, DocumentJob) else 0
