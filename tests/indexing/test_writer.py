from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from ctxindex.errors import StoreError
from ctxindex.indexing import writer as writing
from ctxindex.indexing.writer import Writer
from ctxindex.metering import Meter
from ctxindex.stores import StoreLocation
from ctxindex.stores.memory import MemoryStore
from ctxindex.types import DocumentRecord, DocumentRevision, VectorLayout


class Recording(MemoryStore):
    """A memory store that remembers the sizes of its batches."""

    batches: list[int]

    def replace(self, documents: Sequence[DocumentRevision]) -> None:
        self.batches.append(len(documents))
        super().replace(documents)


@pytest.fixture
def store(tmp_path: Path) -> Recording:
    found = Recording.connect(StoreLocation("a", tmp_path))
    assert isinstance(found, Recording)
    found.batches = []
    found.create({}, VectorLayout(2))
    return found


def document(number: int) -> DocumentRevision:
    return DocumentRevision(DocumentRecord(f"d{number}", "r", "h", 0, 0), ())


def test_everything_put_is_in_the_store_when_the_context_ends(store: Recording) -> None:
    with Writer(store, Meter()) as writer:
        for number in range(10):
            writer.put(document(number))
        writer.put(DocumentRecord("failed", "", "", 0, 0, status="failed", error="why"))
    assert {record.doc_id for record in store.records()} == {*(f"d{number}" for number in range(10)), "failed"}
    assert len(store.batches) == 1, "one commit, not ten"


def test_what_was_put_before_an_exception_is_written_too(store: Recording) -> None:
    def interrupted() -> None:
        with Writer(store, Meter()) as writer:
            writer.put(document(1))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [record.doc_id for record in store.records()] == ["d1"]


def test_a_full_batch_goes_out_at_once(store: Recording, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "_DOCUMENTS", 3)
    with Writer(store, Meter()) as writer:
        for number in range(7):
            writer.put(document(number))
    assert store.batches == [3, 3, 1]


def test_a_document_does_not_wait_for_others_for_ever(store: Recording, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "_SECONDS", 0.05)
    with Writer(store, Meter()) as writer:
        writer.put(document(1))
        deadline = time.monotonic() + 5
        while not store.batches and time.monotonic() < deadline:
            time.sleep(0.01)
        assert store.batches == [1]


def test_an_error_of_the_store_reaches_who_puts_and_ends_the_thread(
    store: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(documents: Sequence[DocumentRevision]) -> None:
        raise StoreError("the disk is full")

    monkeypatch.setattr(store, "replace", refuse)
    monkeypatch.setattr(writing, "_DOCUMENTS", 1)
    before = threading.active_count()

    def put_many() -> None:
        with Writer(store, Meter()) as writer:
            for number in range(1000):
                writer.put(document(number))
                time.sleep(0.001)

    with pytest.raises(StoreError, match="disk is full"):
        put_many()
    assert threading.active_count() == before
