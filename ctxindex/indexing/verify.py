"""sources -> load -> chunk -> encode -> compare: whether what is stored is what the model gives, and has context.

Writes nothing. Every document is chunked and encoded as the index's own spec says and laid beside what the store has.
Its chunks then go through the same encoder once more, each as a document of its own and without title: the isolated
view, to which all methods that read chunks together have some distance. A document of one chunk has no context to lose,
and the method `independent` takes none.
"""

from __future__ import annotations

import os
import random
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from ctxindex.encoding import Encoder
from ctxindex.errors import DocumentError
from ctxindex.indexing.ingest import Load, Progress
from ctxindex.indexing.plan import Plan
from ctxindex.indexing.verification import (
    ContextCheck,
    DocumentCheck,
    DocumentVerdict,
    VerifyReport,
    compare_vectors,
    row_cosines,
)
from ctxindex.loading import Found, LoadOptions, SkippedSource, Source, find_sources, load_source
from ctxindex.metering import Meter
from ctxindex.spec import EncoderSpec, IndexSpec, chunk_id, revision
from ctxindex.stores import Store
from ctxindex.types import (
    Chunk,
    ChunkedDocument,
    Chunker,
    Document,
    DocumentRecord,
    EncodedDocument,
    FailedDocument,
    StoredChunk,
)

if TYPE_CHECKING:
    from ctxindex.types import FloatArray

DEFAULT_SAMPLE = 10
"""Documents."""

Entry: TypeAlias = Source | FailedDocument | SkippedSource
"""What was found under a doc_id."""

_CHANGED = "the source has changed since it was indexed"
_OWN_VECTORS = "with the method independent, every chunk is embedded alone"
_ALONE = "with --windows chunk, every chunk is embedded alone"
_CORPUS_ALONE = "with --windows chunk, every chunk is read in the context of its corpus alone"
_SPECIAL = "with this --pooling a chunk alone also has the vectors of special tokens"
_POOLED = "token vectors that were clustered (--pool-factor) have no counterparts in those of the chunk alone"
_NO_CHUNKS = "no document with more than one chunk was compared"


def live_records(store: Store) -> dict[str, DocumentRecord]:
    """By doc_id, the documents that no run has in flight and whose chunks are of the source that their record names."""
    return {
        record.doc_id: record
        for record in store.records()
        if record.status == "live" and record.revision and record.pending is None
    }


def sources_by_name(doc_ids: Sequence[str], folder: Path) -> list[str]:
    """The files in `folder` that the doc_ids would name if it were the root they are relative to."""
    # A doc_id may be anything that stood in a line of JSONL, and nothing outside of the folder is to be opened.
    inside = [name for name in doc_ids if not os.path.isabs(name) and ".." not in name.split("/") and "\0" not in name]
    return [path for path in (os.path.join(folder, name) for name in inside) if os.path.isfile(path)]


def find_again(paths: Sequence[str | Path], doc_ids: Sequence[str], options: LoadOptions) -> Found:
    """The sources in `paths`; where there are none, the files that the doc_ids name in the root or the current folder.

    Raises:
        UsageError: a path that does not exist, or two sources with one doc_id.
    """
    if paths:
        return find_sources(paths, options)
    folder = options.root or Path.cwd()
    return find_sources(sources_by_name(doc_ids, folder), replace(options, root=folder))


def draw_sample(found: Found, live: Mapping[str, DocumentRecord], size: int, seed: int) -> dict[str, Entry]:
    """`size` of the documents that the index has and that were found, or all; the same for the same seed."""
    entries = _entries(found)
    names = sorted(entries.keys() & live.keys())
    return {name: entries[name] for name in sorted(random.Random(seed).sample(names, min(size, len(names))))}


def missing_documents(found: Found, live: Mapping[str, DocumentRecord]) -> tuple[str, ...]:
    """The documents that the index has and that were not found, by doc_id."""
    return tuple(sorted(live.keys() - _entries(found).keys()))


def _entries(found: Found) -> dict[str, Entry]:
    entries: list[Entry] = [*found.skipped, *found.failures, *found.sources]
    return {entry.doc_id: entry for entry in entries}


@dataclass
class _Checked:
    """A document that is being encoded, and what is known of its vectors so far. `parts` are still in the model."""

    record: DocumentRecord
    stored: Sequence[StoredChunk]
    parts: int
    worst: tuple[float, int] | None = None
    wrong: list[tuple[float, str]] = field(default_factory=list)
    failure: str | None = None


class Verify:
    """One verification of documents of an index that exists."""

    def __init__(self, store: Store, spec: IndexSpec, meter: Meter, progress: Progress) -> None:
        self._store = store
        self._spec = spec
        self._meter = meter
        self._progress = progress
        self._parts: dict[str, tuple[_Checked, int | None]] = {}
        self._aside: deque[DocumentCheck] = deque()
        self._checks: list[DocumentCheck] = []
        self._cosines: list[float] = []
        self._context: list[float] = []

    def run(
        self,
        paths: Sequence[str | Path],
        loading: LoadOptions,
        tools: Callable[[], tuple[Encoder, Chunker]],
        size: int = DEFAULT_SAMPLE,
        seed: int | None = None,
    ) -> VerifyReport:
        """Compare a sample of the documents that the index has with their sources.

        Args:
            paths: where the sources are; see `find_again`.
            loading: how they are found and read.
            tools: gives the encoder and the chunker; called only if there is work for them.
            size: how many documents to draw.
            seed: of the draw; one is drawn if None.

        Returns:
            The report; how long it took is left to the caller.

        Raises:
            UsageError: a path that does not exist, or two sources with one doc_id.
            StoreError: the store does not answer.
            ModelError: the model cannot be loaded.
        """
        live = live_records(self._store)
        seed = random.randrange(2**32) if seed is None else seed
        with find_again(paths, list(live), loading) as found:
            missing = missing_documents(found, live)
            sources: list[Source] = []
            for name, entry in draw_sample(found, live, size, seed).items():
                if isinstance(entry, Source):
                    sources.append(entry)
                else:
                    self._checks.append(_not_compared(entry, live[name]))
            if sources:
                self._check(sources, live, partial(load_source, options=loading), *tools())
        return VerifyReport(
            documents=len(live),
            checks=tuple(sorted(self._checks, key=lambda check: check.doc_id)),
            missing=missing,
            seed=seed,
            vectors=len(self._cosines),
            min_cosine=min(self._cosines, default=None),
            mean_cosine=float(np.mean(self._cosines)) if self._cosines else None,
            context=self._context_check(),
            seconds={},
        )

    def _check(
        self,
        sources: Sequence[Source],
        live: Mapping[str, DocumentRecord],
        load: Load,
        encoder: Encoder,
        chunker: Chunker,
    ) -> None:
        self._progress.start(Plan(new=tuple(sources), changed=(), unchanged=0, skips=(), failures=()))
        self._meter.on_tokens = self._progress.advance
        for encoded in encoder.encode_documents(self._documents(sources, live, load, chunker)):
            self._take(encoded)
            self._take_aside()
        self._take_aside()

    def _documents(
        self, sources: Sequence[Source], live: Mapping[str, DocumentRecord], load: Load, chunker: Chunker
    ) -> Iterator[ChunkedDocument]:
        """Runs in the encoder's thread; what needs no encoding is kept in `_aside`."""
        for source in sources:
            record = live[source.doc_id]
            with self._meter.time("load"):
                outcome = load(source)
            if isinstance(outcome, Document) and outcome.source_hash == record.source_hash:
                yield from self._chunked(outcome, record, chunker)
            else:
                self._aside.append(_not_compared(outcome, record))

    def _chunked(self, document: Document, record: DocumentRecord, chunker: Chunker) -> Iterator[ChunkedDocument]:
        try:
            with self._meter.time("chunk"):
                chunks = chunker.chunk(document)
        except DocumentError as error:
            self._aside.append(DocumentCheck(record.doc_id, "failed", reason=error.reason))
            return
        stored = self._store.chunks(record.doc_id, vectors=True)
        wrong = _wrong_chunks(document, chunks, stored, revision(self._spec.fingerprint, document.content_hash))
        if wrong is not None:
            self._aside.append(DocumentCheck(record.doc_id, "differs", len(stored), reason=wrong))
            return
        alone = list(chunks) if len(chunks) > 1 and _why_no_context(self._spec.encoder) is None else []
        checked = _Checked(record, stored, 1 + len(alone))
        yield ChunkedDocument(replace(document, doc_id=self._name_part(checked, None)), chunks)
        for chunk in alone:
            text = chunk.text
            part = Document(self._name_part(checked, chunk.ordinal), text)
            yield ChunkedDocument(part, (Chunk(0, 0, len(text), text),))

    def _name_part(self, checked: _Checked, ordinal: int | None) -> str:
        """A doc_id under which the encoder gives back the document (None) or one of its chunks alone."""
        name = f"{len(self._parts)}"
        self._parts[name] = (checked, ordinal)
        return name

    def _take(self, encoded: EncodedDocument | FailedDocument) -> None:
        name = encoded.doc_id if isinstance(encoded, FailedDocument) else encoded.document.doc_id
        checked, ordinal = self._parts[name]
        if isinstance(encoded, FailedDocument):
            # A chunk that the model reads in its document only has no isolated view to be compared with.
            checked.failure = encoded.reason if ordinal is None else checked.failure
        elif ordinal is None:
            self._compare(checked, encoded.chunk_vectors())
        else:
            self._compare_alone(checked.stored[ordinal].vector, encoded.chunk_vectors()[0])
        checked.parts -= 1
        if not checked.parts:
            self._end(_verdict(checked))
            checked.stored = ()  # the vectors of a large sample need not be held until its end

    def _compare(self, checked: _Checked, vectors: Sequence[FloatArray]) -> None:
        for chunk, fresh in zip(checked.stored, vectors, strict=True):
            cosines, reason = compare_vectors(chunk.vector, fresh)
            self._cosines += cosines.tolist()
            least = min(cosines.tolist(), default=-1.0)
            if cosines.size and (checked.worst is None or least < checked.worst[0]):
                checked.worst = (least, chunk.ordinal)
            if reason is not None:
                checked.wrong.append((least, f"chunk {chunk.ordinal} [{chunk.start}:{chunk.end}] {reason}"))

    def _compare_alone(self, stored: FloatArray | None, alone: FloatArray) -> None:
        """Of a stored chunk and its isolated view; left out where they have not the same tokens."""
        if stored is not None and stored.shape == alone.shape:
            self._context.append(float(row_cosines(np.atleast_2d(stored), np.atleast_2d(alone)).mean()))

    def _take_aside(self) -> None:
        while self._aside:
            self._end(self._aside.popleft())

    def _end(self, check: DocumentCheck) -> None:
        self._checks.append(check)
        self._progress.done(check.doc_id, check.reason)

    def _context_check(self) -> ContextCheck:
        note = _why_no_context(self._spec.encoder)
        if note is not None or not self._context:
            return ContextCheck(note=note or _NO_CHUNKS)
        return ContextCheck(float(np.mean(self._context)), len(self._context))


def _why_no_context(spec: EncoderSpec) -> str | None:
    if spec.method == "independent":
        return _OWN_VECTORS
    if spec.windows == "chunk":
        return _CORPUS_ALONE if spec.method == "cde" else _ALONE
    if spec.multivector and spec.pooling != "strict":
        return _SPECIAL
    return _POOLED if spec.pool_factor > 1 else None


def _not_compared(outcome: Document | FailedDocument | SkippedSource, record: DocumentRecord) -> DocumentCheck:
    verdict: DocumentVerdict = "changed"
    reason = _CHANGED
    if isinstance(outcome, SkippedSource):
        reason = f"no document any more: {outcome.reason}"
    elif isinstance(outcome, FailedDocument):
        if outcome.source_hash in ("", record.source_hash):
            verdict, reason = "failed", outcome.reason
        else:
            reason = f"{_CHANGED}, and cannot be indexed now: {outcome.reason}"
    return DocumentCheck(record.doc_id, verdict, reason=reason)


def _wrong_chunks(
    document: Document, chunks: Sequence[Chunk], stored: Sequence[StoredChunk], document_revision: str
) -> str | None:
    """How the chunks in the store differ from those of the source; None where they do not."""
    if len(chunks) != len(stored):
        return f"the index has {len(stored):,} of its chunks, and the source gives {len(chunks):,}"
    for number, (mine, theirs) in enumerate(zip(chunks, stored, strict=True)):
        if (mine.start, mine.end) != (theirs.start, theirs.end):
            return f"chunk {number} is [{theirs.start}:{theirs.end}] in the index, and [{mine.start}:{mine.end}] now"
        if mine.text != theirs.text:
            return f"chunk {number} [{mine.start}:{mine.end}] has another text in the index than in the source"
        if theirs.chunk_id != chunk_id(document.doc_id, document_revision, mine.ordinal):
            return "the index has another revision of it: title, structure or metadata are read otherwise now"
    return None


def _verdict(checked: _Checked) -> DocumentCheck:
    doc_id, count = checked.record.doc_id, len(checked.stored)
    if checked.failure is not None:
        return DocumentCheck(doc_id, "failed", reason=checked.failure)
    cosine, worst_chunk = checked.worst or (None, None)
    if not checked.wrong:
        return DocumentCheck(doc_id, "agrees", count, cosine, worst_chunk)
    others = f", and {len(checked.wrong) - 1} more like it" if len(checked.wrong) > 1 else ""
    return DocumentCheck(doc_id, "differs", count, cosine, worst_chunk, f"{min(checked.wrong)[1]}{others}")
