"""plan -> load -> chunk -> encode -> replace: one run of an ingest over an index that exists.

Three threads work at once: one loads, chunks and tokenises ahead, the caller's runs the model, one writes. A document
is recorded as live only when all of its chunks are in the store, so a run that is killed loses what was in flight and
nothing else, and the next run finds the rest unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol, TypeAlias

from ctxindex.encoding import Encoder
from ctxindex.errors import DocumentError
from ctxindex.indexing.plan import Plan
from ctxindex.indexing.writer import Writer
from ctxindex.loading import SkippedSource, Source
from ctxindex.metering import Meter
from ctxindex.spec import chunk_id, revision
from ctxindex.stores import Store
from ctxindex.types import (
    Chunk,
    ChunkedDocument,
    Chunker,
    Document,
    DocumentRecord,
    DocumentRevision,
    EncodedDocument,
    FailedDocument,
    StoredChunk,
)

if TYPE_CHECKING:
    from ctxindex.types import FloatArray

Load: TypeAlias = Callable[[Source], Document | FailedDocument | SkippedSource]


class Progress(Protocol):
    """Who is told how far a run is. Called from the thread that runs the model."""

    def start(self, plan: Plan) -> None:
        """The plan is made; work begins."""
        ...

    def advance(self, tokens: int) -> None:
        """That many content tokens more are through the model."""
        ...

    def done(self, doc_id: str, failure: str | None) -> None:
        """A document is encoded, or has failed for the reason given."""
        ...


@dataclass(slots=True)
class Outcome:
    """What a run did: documents by what became of them; chunks and content tokens of those encoded."""

    new: int = 0
    changed: int = 0
    skipped: int = 0
    chunks: int = 0
    tokens: int = 0
    failures: list[FailedDocument] = field(default_factory=list)


class Ingest:
    """One run over one index, whose records at its start are `records`."""

    def __init__(
        self, store: Store, records: Mapping[str, DocumentRecord], fingerprint: str, meter: Meter, progress: Progress
    ) -> None:
        self._store = store
        self._records = records
        self._fingerprint = fingerprint
        self._meter = meter
        self._progress = progress

    def run(self, plan: Plan, load: Load, tools: Callable[[], tuple[Encoder, Chunker]]) -> Outcome:
        """Carry out `plan`.

        Args:
            plan: what to do.
            load: reads one source.
            tools: gives the encoder and the chunker; called only if there is work for them.

        Raises:
            StoreError: the store refused a write; what was written stays, and the next run goes on from there.
            ModelError: the model cannot be loaded.
        """
        self._progress.start(plan)
        outcome = Outcome(skipped=plan.skipped)
        with Writer(self._store, self._meter) as writer:
            for failure in plan.failures:
                self._fail(writer, outcome, failure)
            if plan.work:
                encoder, chunker = tools()
                self._encode(writer, outcome, plan, encoder, _Stream(load, chunker, self._meter))
        return outcome

    def _encode(self, writer: Writer, outcome: Outcome, plan: Plan, encoder: Encoder, stream: _Stream) -> None:
        new = {source.doc_id for source in plan.new}
        for encoded in encoder.encode_documents(stream.documents(plan.work)):
            if isinstance(encoded, FailedDocument):
                self._fail(writer, outcome, encoded)
                continue
            doc_id = encoded.document.doc_id
            writer.put(stored_revision(encoded, self._fingerprint))
            if doc_id in new:
                outcome.new += 1
            else:
                outcome.changed += 1
            outcome.chunks += len(encoded.chunks)
            outcome.tokens += encoded.n_tokens
            self._progress.done(doc_id, None)
        for failure in stream.failures:
            self._fail(writer, outcome, failure)
        outcome.skipped += stream.skipped

    def _fail(self, writer: Writer, outcome: Outcome, failure: FailedDocument) -> None:
        outcome.failures.append(failure)
        before = self._records.get(failure.doc_id)
        record = failed_record(before, failure)
        if record != before:
            writer.put(record)
        self._progress.done(failure.doc_id, failure.reason)


class _Stream:
    """Sources -> chunked documents, in the thread that runs ahead; what gives none is kept aside, with the reason."""

    def __init__(self, load: Load, chunker: Chunker, meter: Meter) -> None:
        self._load = load
        self._chunker = chunker
        self._meter = meter
        self.failures: list[FailedDocument] = []
        self.skipped = 0

    def documents(self, sources: Sequence[Source]) -> Iterator[ChunkedDocument]:
        for source in sources:
            with self._meter.time("load"):
                document = self._load(source)
            if isinstance(document, SkippedSource):
                self.skipped += 1
            elif isinstance(document, FailedDocument):
                self.failures.append(document)
            elif chunks := self._chunks(document):
                yield ChunkedDocument(document, chunks)

    def _chunks(self, document: Document) -> tuple[Chunk, ...]:
        try:
            with self._meter.time("chunk"):
                return self._chunker.chunk(document)
        except DocumentError as error:
            self.failures.append(FailedDocument(document.doc_id, error.reason, document.source_hash))
            return ()


def stored_revision(encoded: EncodedDocument, fingerprint: str) -> DocumentRevision:
    """An encoded document in the form that a store takes."""
    document = encoded.document
    document_revision = revision(fingerprint, document.content_hash)
    record = DocumentRecord(
        doc_id=document.doc_id,
        revision=document_revision,
        source_hash=document.source_hash,
        n_chunks=len(encoded.chunks),
        n_tokens=encoded.n_tokens,
        title=document.title,
    )
    chunks = tuple(
        _stored_chunk(encoded, chunk, vector, document_revision)
        for chunk, vector in zip(encoded.chunks, encoded.chunk_vectors(), strict=True)
    )
    return DocumentRevision(record, chunks)


def _stored_chunk(encoded: EncodedDocument, chunk: Chunk, vector: FloatArray, document_revision: str) -> StoredChunk:
    document = encoded.document
    return StoredChunk(
        chunk_id=chunk_id(document.doc_id, document_revision, chunk.ordinal),
        doc_id=document.doc_id,
        revision=document_revision,
        ordinal=chunk.ordinal,
        start=chunk.start,
        end=chunk.end,
        text=chunk.text,
        title=document.title,
        metadata={**document.metadata, **chunk.metadata},
        window=encoded.windows[chunk.ordinal],
        context_tokens=encoded.context_tokens[chunk.ordinal],
        vector=vector,
    )


def failed_record(before: DocumentRecord | None, failure: FailedDocument) -> DocumentRecord:
    """The record of a document that failed: chunks of an earlier revision stay, and the error is told."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    known = before or DocumentRecord(failure.doc_id, "", "", 0, 0)
    return replace(known, status="failed", error=failure.reason, source_hash=failure.source_hash, updated_at=now)
