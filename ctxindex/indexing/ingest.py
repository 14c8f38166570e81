"""plan -> load -> chunk -> encode -> replace: one run of an ingest over an index that exists.

Three threads work at once: one loads, chunks and tokenises ahead, the caller's runs the model, one writes. A document
is recorded as live only when all of its chunks are in the store, so a run that is killed loses what was in flight and
nothing else, and the next run finds the rest unchanged.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol, TypeAlias

from ctxindex.encoding import Encoder
from ctxindex.errors import DocumentError
from ctxindex.indexing.plan import Plan, lost_document
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


class Quiet(Progress):
    """Progress that nobody watches."""

    def start(self, plan: Plan) -> None:
        """Nothing."""

    def advance(self, tokens: int) -> None:
        """Nothing."""

    def done(self, doc_id: str, failure: str | None) -> None:
        """Nothing."""


@dataclass(slots=True)
class Totals:
    """What a run did: documents by what became of them; chunks and content tokens of those encoded."""

    new: int = 0
    changed: int = 0
    unchanged: int = 0
    chunks: int = 0
    tokens: int = 0
    skips: list[SkippedSource] = field(default_factory=list)
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
        self._totals = Totals()

    def run(self, plan: Plan, load: Load, tools: Callable[[], tuple[Encoder, Chunker]]) -> Totals:
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
        self._totals = Totals(unchanged=plan.unchanged, skips=list(plan.skips))
        with Writer(self._store, self._meter) as writer:
            for failure in plan.failures:
                self._fail(writer, failure)
            if plan.work:
                encoder, chunker = tools()
                self._encode(writer, plan, encoder, chunker, load)
        return self._totals

    def _encode(self, writer: Writer, plan: Plan, encoder: Encoder, chunker: Chunker, load: Load) -> None:
        new = {source.doc_id for source in plan.new}
        stream = _Stream(load, chunker, self._meter, self._is_unchanged)
        for encoded in encoder.encode_documents(stream.documents(plan.work)):
            if isinstance(encoded, FailedDocument):
                self._fail(writer, encoded)
                self._progress.done(encoded.doc_id, encoded.reason)
            else:
                self._replace(writer, encoded, is_new=encoded.document.doc_id in new)
            self._take_aside(writer, stream)
        self._take_aside(writer, stream)

    def _replace(self, writer: Writer, encoded: EncodedDocument, *, is_new: bool) -> None:
        writer.put(stored_revision(encoded, self._fingerprint))
        if is_new:
            self._totals.new += 1
        else:
            self._totals.changed += 1
        self._totals.chunks += len(encoded.chunks)
        self._totals.tokens += encoded.n_tokens
        self._progress.done(encoded.document.doc_id, None)

    def _take_aside(self, writer: Writer, stream: _Stream) -> None:
        """Deal with what the stream has kept aside so far."""
        while stream.aside:
            result = stream.aside.popleft()
            record = self._records.get(result.doc_id)
            if isinstance(result, Document):
                assert record is not None, "only a document that the index has can be unchanged"
                writer.put(
                    replace(record, status="live", error=None, source_hash=result.source_hash, updated_at=_now())
                )
                self._totals.unchanged += 1
                self._progress.done(result.doc_id, None)
                continue
            failure = lost_document(result, record) if isinstance(result, SkippedSource) else result
            if failure is not None:
                self._fail(writer, failure)
            elif isinstance(result, SkippedSource):
                self._totals.skips.append(result)
                writer.put(skipped_record(result))
            self._progress.done(result.doc_id, failure.reason if failure else None)

    def _is_unchanged(self, document: Document) -> bool:
        """Whether other bytes gave the document that the index has: its chunks need not be made again."""
        record = self._records.get(document.doc_id)
        return record is not None and record.revision == revision(self._fingerprint, document.content_hash)

    def _fail(self, writer: Writer, failure: FailedDocument) -> None:
        self._totals.failures.append(failure)
        before = self._records.get(failure.doc_id)
        record = failed_record(before, failure)
        if record != before:
            writer.put(record)


class _Stream:
    """Sources -> chunked documents, in the thread that runs ahead.

    What needs no encoding is kept in `aside`: failures, skips, and documents that the index has already.
    """

    def __init__(self, load: Load, chunker: Chunker, meter: Meter, is_unchanged: Callable[[Document], bool]) -> None:
        self._load = load
        self._chunker = chunker
        self._meter = meter
        self._is_unchanged = is_unchanged
        self.aside: deque[Document | FailedDocument | SkippedSource] = deque()

    def documents(self, sources: Sequence[Source]) -> Iterator[ChunkedDocument]:
        for source in sources:
            with self._meter.time("load"):
                document = self._load(source)
            if not isinstance(document, Document) or self._is_unchanged(document):
                self.aside.append(document)
            elif chunks := self._chunks(document):
                yield ChunkedDocument(document, chunks)

    def _chunks(self, document: Document) -> tuple[Chunk, ...]:
        try:
            with self._meter.time("chunk"):
                return self._chunker.chunk(document)
        except DocumentError as error:
            self.aside.append(FailedDocument(document.doc_id, error.reason, document.source_hash))
            return ()


def settled_records(store: Store, *, dry_run: bool) -> dict[str, DocumentRecord]:
    """The records by doc_id, once what a killed run left in flight has been ended; a dry run ends nothing."""
    records = {record.doc_id: record for record in store.records()}
    if dry_run or all(record.pending is None for record in records.values()):
        return records
    with store.writing():
        store.recover()
    return {record.doc_id: record for record in store.records()}


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
    known = before or DocumentRecord(failure.doc_id, "", "", 0, 0)
    return replace(known, status="failed", error=failure.reason, source_hash=failure.source_hash, updated_at=_now())


def skipped_record(skipped: SkippedSource) -> DocumentRecord:
    """The record of a source that turned out to be no document."""
    return DocumentRecord(
        skipped.doc_id, "", skipped.source_hash, 0, 0, status="skipped", error=skipped.reason, updated_at=_now()
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
