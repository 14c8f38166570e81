"""The write order itself, on a store that writes down what it is asked to do."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

import pytest

from ctxindex.errors import StoreError
from ctxindex.stores.conformance.samples import document
from ctxindex.stores.replacing import recover_documents, replace_documents
from ctxindex.types import DocumentRecord, StoredChunk


class Ledger:
    def __init__(self, *records: DocumentRecord, stored: Mapping[tuple[str, str], int] | None = None) -> None:
        self.log: list[tuple[str, object]] = []
        self.kept = {record.doc_id: record for record in records}
        self.stored = dict(stored or {})

    def records(self, doc_ids: Collection[str] | None = None) -> Iterator[DocumentRecord]:
        names = self.kept if doc_ids is None else doc_ids
        return iter([self.kept[name] for name in names if name in self.kept])

    def put_records(self, records: Sequence[DocumentRecord]) -> None:
        state = [(record.doc_id, record.revision, record.pending and record.pending.revision) for record in records]
        self.log.append(("put", state))
        self.kept.update((record.doc_id, record) for record in records)

    def delete_records(self, doc_ids: Collection[str]) -> None:
        self.log.append(("forget", list(doc_ids)))
        for doc_id in doc_ids:
            self.kept.pop(doc_id)

    def write_chunks(self, chunks: Sequence[StoredChunk]) -> None:
        self.log.append(("write", len(chunks)))
        for chunk in chunks:
            key = (chunk.doc_id, chunk.revision)
            self.stored[key] = self.stored.get(key, 0) + 1

    def delete_chunks(self, live: Mapping[str, str]) -> None:
        self.log.append(("drop", dict(live)))

    def count_chunks(self, doc_id: str, revision: str) -> int:
        return self.stored.get((doc_id, revision), 0)


OLD = document("a", "r1", 2).record
NEW = document("a", "r2", 3)


def test_the_long_way() -> None:
    store = Ledger(OLD)
    replace_documents(store, [NEW, document("b", "r1", 1)], atomic=False)
    assert store.log == [
        ("put", [("a", "r1", "r2"), ("b", "", "r1")]),
        ("write", 4),
        ("put", [("a", "r2", "r2"), ("b", "r1", "r1")]),
        ("drop", {"a": "r2", "b": "r1"}),
        ("put", [("a", "r2", None), ("b", "r1", None)]),
    ]


def test_the_short_way() -> None:
    store = Ledger(OLD)
    replace_documents(store, [NEW], atomic=True)
    assert store.log == [("put", [("a", "r1", "r2")]), ("write", 3), ("put", [("a", "r2", None)])]


def test_the_short_way_drops_what_an_empty_write_cannot() -> None:
    store = Ledger(OLD)
    replace_documents(store, [document("a", "r2", 0), document("b", "r1", 1)], atomic=True)
    assert ("drop", {"a": "r2"}) in store.log


def test_a_flip_waits_for_every_chunk() -> None:
    """What a second writer does that takes our intents for wreckage: chunks vanish between writing and flipping."""

    class Robbed(Ledger):
        def write_chunks(self, chunks: Sequence[StoredChunk]) -> None:
            super().write_chunks(chunks[1:])

    store = Robbed(OLD)
    with pytest.raises(StoreError, match="2 of 3 chunks of a are stored: another run"):
        replace_documents(store, [NEW], atomic=False)
    assert store.kept["a"].revision == "r1"


def test_nothing_to_do_writes_nothing() -> None:
    store = Ledger(OLD)
    replace_documents(store, [], atomic=False)
    assert recover_documents(store, atomic=False) == []
    assert store.log == []


def test_recovery_rolls_forward_where_all_chunks_are_there() -> None:
    store = Ledger(replace(OLD, pending=NEW.record), stored={("a", "r2"): 3})
    assert recover_documents(store, atomic=False) == []
    assert store.kept["a"] == NEW.record
    assert ("drop", {"a": "r2"}) in store.log


def test_recovery_rolls_back_where_chunks_are_missing() -> None:
    store = Ledger(replace(OLD, pending=NEW.record), stored={("a", "r2"): 2})
    assert recover_documents(store, atomic=False) == ["a"]
    assert store.kept["a"] == OLD
    assert ("drop", {"a": "r1"}) in store.log


def test_recovery_forgets_a_document_that_never_was() -> None:
    store = Ledger(DocumentRecord("a", "", "", 0, 0, pending=NEW.record))
    assert recover_documents(store, atomic=False) == ["a"]
    assert store.kept == {}


def test_recovery_keeps_an_earlier_failure() -> None:
    failed = DocumentRecord("a", "", "s", 0, 0, status="failed", error="why")
    store = Ledger(replace(failed, pending=NEW.record))
    assert recover_documents(store, atomic=True) == ["a"]
    assert store.kept == {"a": failed}
