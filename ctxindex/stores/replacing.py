"""The write order of a replace, once, for every store.

    0  (the encoder made the vectors: nothing is written before they exist)
    1  intent      put_records: the record keeps its live revision and carries the coming one as `pending`
    2  chunks      write_chunks: all chunks of the new revisions; without transactions, count_chunks: are all there?
    3  flip        put_records: the coming record takes over, still marked pending
    4  old chunks  delete_chunks: everything of these documents that is not of the live revision
    5  done        put_records: the mark goes

A store with transactions drops the old chunks in the commit of step 2 (`atomic`), and then 3 to 5 are one write.
A run killed between two steps leaves a pending record, and `recover_documents` needs no vectors to end it: if
every chunk of the pending revision is there, roll forward (3 to 5); otherwise roll back: drop the chunks of the pending
revision and clear the intent. Readers look at live revisions only: the old document until 3, the new one from then on.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Protocol

from ctxindex.errors import StoreError
from ctxindex.types import DocumentRecord, DocumentRevision, StoredChunk


class ReplaceSteps(Protocol):
    """The primitives a connector gives to `replace_documents` and `recover_documents`; each is durable on return."""

    def records(self, doc_ids: Collection[str] | None = None) -> Iterator[DocumentRecord]:
        """The records of the documents named (those that exist), or of all."""
        ...

    def put_records(self, records: Sequence[DocumentRecord]) -> None:
        """Insert or overwrite records by doc_id."""
        ...

    def delete_records(self, doc_ids: Collection[str]) -> None:
        """Remove records only."""
        ...

    def write_chunks(self, chunks: Sequence[StoredChunk]) -> None:
        """Insert or overwrite chunks by chunk_id; may drop other revisions of the same documents in the same commit."""
        ...

    def delete_chunks(self, live: Mapping[str, str]) -> None:
        """For each doc_id -> revision, remove that document's chunks of every other revision ("" removes all)."""
        ...

    def count_chunks(self, doc_id: str, revision: str) -> int:
        """How many chunks of that revision are stored."""
        ...


def replace_documents(store: ReplaceSteps, documents: Sequence[DocumentRevision], *, atomic: bool) -> None:
    """Steps 1 to 5 for a batch of distinct documents; `atomic` says that `write_chunks` drops other revisions."""
    if not documents:
        return
    now = datetime.now(UTC).isoformat(timespec="seconds")
    coming = [replace(document.record, pending=None, updated_at=now) for document in documents]
    present = {record.doc_id: record for record in store.records([record.doc_id for record in coming])}
    store.put_records([_with_intent(present.get(record.doc_id), record) for record in coming])
    store.write_chunks([chunk for document in documents for chunk in document.chunks])
    if not atomic:  # a store with transactions has a lock as well, or a database that does what it says
        _require_all(store, coming)
    _finish(store, coming, atomic=atomic)


def recover_documents(store: ReplaceSteps, *, atomic: bool) -> list[str]:
    """End every replace in flight; returns the doc_ids rolled back, whose new revision has to be encoded again."""
    forward: list[DocumentRecord] = []
    back: list[DocumentRecord] = []
    for record in store.records():
        if record.pending is None:
            continue
        complete = store.count_chunks(record.doc_id, record.pending.revision) == record.pending.n_chunks
        (forward if complete else back).append(record)
    _finish(store, [record.flipped() for record in forward], atomic=atomic)
    if back:
        store.delete_chunks({record.doc_id: record.revision for record in back})
        store.put_records([replace(record, pending=None) for record in back if _worth_keeping(record)])
        store.delete_records([record.doc_id for record in back if not _worth_keeping(record)])
    return [record.doc_id for record in back]


def _require_all(store: ReplaceSteps, records: Sequence[DocumentRecord]) -> None:
    """Before the flip: a second writer may have taken our intents for wreckage, or written the same chunks."""
    for record in records:
        found = store.count_chunks(record.doc_id, record.revision)
        if found != record.n_chunks:
            raise StoreError(
                f"{found} of {record.n_chunks} chunks of {record.doc_id} are stored: another run is writing to this "
                "index; let one finish, then run this one again"
            )


def _finish(store: ReplaceSteps, records: Sequence[DocumentRecord], *, atomic: bool) -> None:
    if not records:
        return
    if not atomic:
        store.put_records([replace(record, pending=record) for record in records])
    # An atomic write drops the old chunks of documents whose new ones it gets. It heard nothing of one without any.
    stale = {record.doc_id: record.revision for record in records if not atomic or record.n_chunks == 0}
    if stale:
        store.delete_chunks(stale)
    store.put_records(records)


def _with_intent(present: DocumentRecord | None, coming: DocumentRecord) -> DocumentRecord:
    if present is None:
        return DocumentRecord(coming.doc_id, "", "", 0, 0, updated_at=coming.updated_at, pending=coming)
    return replace(present, pending=coming, updated_at=coming.updated_at)


def _worth_keeping(record: DocumentRecord) -> bool:
    """Whether the record said anything before the intent was noted on it."""
    return bool(record.revision) or record.status != "live"
