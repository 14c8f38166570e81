"""An encoder that runs a model of ours in this process: documents in, documents with vectors out.

    documents -> [thread: tokenise, plan windows] -> pool of rows -> batches -> forward pass -> sums -> vectors

The thread pulls the documents too, so whatever makes them (reading, parsing, chunking) also runs ahead of the model.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from ctxindex.encoding.backbone import Backbone, TransformerBackbone
from ctxindex.encoding.batching import cut_batches, prefetch
from ctxindex.encoding.checkpoint import Checkpoint
from ctxindex.encoding.document_rows import DocumentRows
from ctxindex.encoding.fitness import text_pooling
from ctxindex.encoding.head import Head
from ctxindex.encoding.independent import independent_rows
from ctxindex.encoding.job import DocumentJob
from ctxindex.encoding.rows import Frame, Row
from ctxindex.encoding.tokenizer import ModelTokenizer
from ctxindex.errors import ConfigError, ModelError, UsageError
from ctxindex.metering import Meter
from ctxindex.spec import EncoderSpec
from ctxindex.types import ChunkedDocument, EncodedDocument, FailedDocument

if TYPE_CHECKING:
    from ctxindex.encoding.options import EncoderOptions
    from ctxindex.encoding.tokenizer import Ids
    from ctxindex.types import FloatArray

_log = logging.getLogger("ctxindex")

BATCH_TOKENS = 4096
"""Tokens of a batch where the user says nothing: 8 full windows of MiniLM."""

_POOL_BATCHES = 4
"""Batches that rows are collected for before they are sorted: little padding, and seconds of work lost in a crash."""

_LEAST_ROOM = 8
"""Tokens behind the prefix: a title, the head of the document, and a piece of a chunk, with a separator each."""

Waiting = TypeVar("Waiting")
Opened = TypeVar("Opened", bound=Backbone)


@dataclass(frozen=True, slots=True)
class Task(Generic[Waiting]):
    """A row, and who waits for its sums."""

    owner: Waiting
    row: Row

    @property
    def length(self) -> int:
        """Tokens, special tokens included."""
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
        self.tokenizer = ModelTokenizer(checkpoint.tokenizer, lower_case=checkpoint.lower_case)
        self._head = Head(checkpoint.layers, spec.dim)
        self._pooling = text_pooling(checkpoint, spec.force_mean)
        self._rows = DocumentRows(self.tokenizer, spec, self._pooling)
        self._checkpoint = checkpoint
        self._device = options.device
        self._threads = options.threads
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
        rows = self.query_rows(queries)
        if not rows:
            return np.empty((0, self.spec.dim), dtype=np.float32)
        pooled: dict[int, FloatArray] = {}
        for task, sums in self._through([Task(number, row) for number, row in enumerate(rows)]):
            if sums is None:
                raise ModelError(f"there is not enough memory to read a query of {task.length} tokens")
            (place,) = task.row.places
            pooled[task.owner] = sums[0] / np.float32(place.end - place.start)
        return self._head(np.stack([pooled[number] for number in range(len(rows))]))

    def query_rows(self, queries: Sequence[str]) -> list[Row]:
        """What the model reads of each query: a row, with the places that its vector or vectors are made of.

        Raises:
            UsageError: a query without any token.
        """
        frame = self._frame(self.spec.query_prefix)
        rows: list[Row] = []
        for ids in self._query_ids(queries, frame.lead):
            if len(ids) > frame.room - 1:
                _log.warning("a query of %d tokens was cut to the %d the model can read", len(ids), frame.room - 1)
            rows.extend(independent_rows([ids[: frame.room - 1]], frame, self._pooling))
        return rows

    def document_rows(self, source: ChunkedDocument) -> list[Row]:
        """What the model reads of a document; nothing where a chunk has no tokens that it can read."""
        return self._rows.make(source, self._frame(self.spec.document_prefix))[0]

    def _query_ids(self, queries: Sequence[str], lead: str) -> list[Ids]:
        found = self.tokenizer.ids([lead + query for query in queries])
        for query, ids in zip(queries, found, strict=True):
            if not len(ids) or not query.strip():
                raise UsageError(f"there is nothing in the query {query!r} that the model can read")
        return found

    def _jobs(self, documents: Iterable[ChunkedDocument], frame: Frame) -> Iterator[DocumentJob | FailedDocument]:
        """Runs in the prefetching thread."""
        for source in documents:
            with self._meter.time("tokenise"):
                rows, n_tokens = self._rows.make(source, frame)
            if rows:
                yield self._job(source, rows, n_tokens)
            else:
                reason = "a chunk has no tokens that the model can read"
                yield FailedDocument(source.document.doc_id, reason, source.document.source_hash)

    def _job(self, source: ChunkedDocument, rows: list[Row], n_tokens: int) -> DocumentJob:
        return DocumentJob(source, rows, self._head, n_tokens, self.spec.blend)

    def _encode(self, jobs: Iterable[DocumentJob | FailedDocument]) -> Iterator[EncodedDocument | FailedDocument]:
        pool: list[Task[DocumentJob]] = []
        held, wanted = 0, 1  # the first batches need not wait until there is a choice of rows
        for job in jobs:
            if isinstance(job, FailedDocument):
                yield job
                continue
            for row in job.rows:
                pool.append(Task(job, row))
                held += row.length
                if held >= wanted * self._budget:
                    yield from self._run(pool)
                    pool, held, wanted = [], 0, min(2 * wanted, _POOL_BATCHES)
        yield from self._run(pool)

    def _run(self, pool: Sequence[Task[DocumentJob]]) -> Iterator[EncodedDocument | FailedDocument]:
        for task, values in self._through(pool):
            self._meter.tokens(task.row.content)
            if task.owner.add(task.row, values):
                yield task.owner.result()

    def _through(self, tasks: Sequence[Task[Waiting]]) -> Iterator[tuple[Task[Waiting], FloatArray | None]]:
        """Each task with what the model gives for its row (`_values`); None where memory is too short for even one.

        Where a batch does not fit in memory, batches are half as large from then on.
        """
        waiting = cut_batches(tasks, self._budget)[::-1]
        while waiting:
            batch = waiting.pop()
            try:
                values: Sequence[FloatArray | None] = self._values([task.row for task in batch])
            except MemoryError as error:
                if len(batch) > 1:
                    self._budget = max(1, min(self._budget, sum(task.length for task in batch)) // 2)
                    _log.warning("out of memory: batches have at most %d tokens from here on", self._budget)
                    rest = [task for part in (batch, *waiting[::-1]) for task in part]
                    waiting = cut_batches(rest, self._budget)[::-1]
                    continue
                _log.warning("a window of %d tokens does not fit in memory: %s", batch[0].length, error)
                values = [None]
            yield from zip(batch, values, strict=True)

    def _values(self, rows: Sequence[Row]) -> list[FloatArray]:
        """For each row the sums of its places, (places, width) float32."""
        sums = self.load().place_sums(rows)
        edges = list(accumulate((len(row.places) for row in rows), initial=0))
        return [sums[start:stop] for start, stop in pairwise(edges)]

    def load(self) -> Backbone:
        """Bring the model into memory now, instead of with the first batch.

        Raises:
            ModelError: the weights cannot be loaded.
            ConfigError: this machine has not the device asked for.
        """
        if self._backbone is None:
            self._backbone = self._open(TransformerBackbone)
        return self._backbone

    def _open(self, kind: Callable[..., Opened], **more: Any) -> Opened:
        """The model's transformer as a backbone of that kind, which may want to know `more`."""
        return kind(
            self._checkpoint.backbone,
            facts=self._checkpoint.facts,
            max_tokens=self.spec.max_tokens,
            pad_id=self.tokenizer.pad_id,
            dtype=self.spec.dtype,
            device=self._device,
            threads=self._threads,
            meter=self._meter,
            layers=self._checkpoint.token_layers,
            remote_code=self._checkpoint.facts.remote,
            **more,
        )

    def _frame(self, prefix: str) -> Frame:
        cls_id = self.tokenizer.cls_id
        ids, lead = self.tokenizer.prefix(prefix)
        # Sentence-Transformers measures a prompt alone, with the blank that in a row belongs to the first word.
        measured = len(self.tokenizer.ids([prefix])[0]) + (cls_id is not None) if prefix else 0
        frame = Frame(cls_id, self.tokenizer.sep_id, ids, self.spec.max_tokens, lead, measured, self.tokenizer.closes)
        if frame.room < _LEAST_ROOM:
            raise ConfigError(
                f"the prefix {prefix!r} leaves no room for text in windows of {self.spec.max_tokens} tokens: choose a "
                "larger --max-tokens"
            )
        return frame


def _weight(job: DocumentJob | FailedDocument) -> int:
    return job.weight if isinstance(job, DocumentJob) else 0
