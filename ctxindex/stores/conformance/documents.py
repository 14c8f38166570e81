"""Conformance: documents go in whole, come back exactly, are replaced and deleted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ctxindex.stores.conformance.samples import (
    NASTY_DOC_IDS,
    Connecting,
    assert_same_chunks,
    document,
    indexed,
    unit_vectors,
)
from ctxindex.stores.protocol import Counts, Store
from ctxindex.types import DocumentRecord, DocumentRevision

HARD_TEXTS = (
    "emoji 👩‍👩‍👧 and flags 🇩🇪",
    "right to left: שלום \u202e abc \u202c",
    "CRLF\r\nand\rCR\u2028line\u0085next",
    "controls \x01\x07\x1b\x7f\x0c tab\t",
    "back\\slash \\n \\u0041 'single' \"double\" `tick` ${x} %s {0}",
    " ",
    "\ufeffbyte order mark, \ufffd replaced, \U0010ffff last",
    "combining e\u0301 against \u00e9",
)
HARD_METADATA = {
    "string": "x",
    "empty": "",
    "unicode ü 漢": "🙂\r\n",
    "int": 1,
    "negative": -7,
    "big": 2**53 + 1,
    "float": 0.1,
    "whole float": 2.0,
    "tiny": 5e-324,
    "true": True,
    "false": False,
    "null": None,
    "list": ["a", 1, 1.5, True, None],
    "empty list": [],
    "dotted.key": 1,
    'quo"ted': "a",
    "single'quoted": "b",
    "back\\slash": "c",
    "[0]": "d",
    "": "empty key",
    "text": "not ours",
    "doc_id": "not ours",
    "chunk_id": 3,
    "revision": "not ours",
    "vector": [1, 2],
    "metadata": "not ours",
    "start": "not ours",
    "title": "not ours",
}


class DocumentsConformance(Connecting):
    """Replace, chunks, delete, counts. A store that is slow by design may lower `many_documents`."""

    many_documents = 300

    def test_chunks_come_back_exactly(self, tmp_path: Path) -> None:
        """Field by field, with and without vectors, for hard texts and any doc_id."""
        documents = [document(name, texts=HARD_TEXTS, title=f"title of {name}") for name in NASTY_DOC_IDS]
        with self.created(tmp_path) as store:
            store.replace(documents)
            for each in documents:
                assert_same_chunks(store.chunks(each.record.doc_id, vectors=True), each.chunks)
                assert_same_chunks(store.chunks(each.record.doc_id), each.chunks, vectors=False)
            assert indexed(store) == {each.record.doc_id: each.record for each in documents}
            assert all(record.updated_at for record in store.records())
        with self.opened(tmp_path) as store:
            assert_same_chunks(store.chunks(NASTY_DOC_IDS[1], vectors=True), documents[1].chunks)

    def test_metadata_keeps_its_types(self, tmp_path: Path) -> None:
        """Also keys that look like ours, and no metadata at all."""
        hard = document("hard", metadata=HARD_METADATA, title=None)
        with self.created(tmp_path) as store:
            store.replace([hard, document("none", title="")])
            assert_same_chunks(store.chunks("hard", vectors=True), hard.chunks)
            assert [chunk.metadata for chunk in store.chunks("none")] == [{}, {}, {}]
            assert [chunk.title for chunk in store.chunks("none")] == [""] * 3

    def test_replace_leaves_exactly_the_new_chunks(self, tmp_path: Path) -> None:
        """Fewer, more, none, the same again; neighbours untouched."""
        with self.created(tmp_path) as store:
            store.replace([document("a", "r1", 5), document("b", "r1", 2)])
            for revision, n_chunks in (("r2", 2), ("r3", 9), ("r3", 9), ("r4", 0), ("r5", 1)):
                new = document("a", revision, n_chunks)
                store.replace([new])
                assert_same_chunks(store.chunks("a", vectors=True), new.chunks)
                assert_same_chunks(store.chunks("b", vectors=True), document("b", "r1", 2).chunks)
                assert_only(store, [new, document("b", "r1", 2)])

    def test_one_batch_may_mix_everything(self, tmp_path: Path) -> None:
        """New, changed, unchanged, emptied; two documents with the same revision."""
        with self.created(tmp_path) as store:
            store.replace([document("a", "x", 2), document("b", "y", 3), document("c", "z", 4)])
            batch = [document("a", "y", 3), document("b", "x", 2), document("c", "w", 0), document("d", "x", 2)]
            store.replace(batch)
            assert_only(store, batch)

    def test_failed_record_keeps_its_chunks(self, tmp_path: Path) -> None:
        """A document that failed lately is searched in its last good revision."""
        good = document("a", "r1", 3)
        failed = replace(good.record, status="failed", error="encrypted now", source_hash="new")
        with self.created(tmp_path) as store:
            store.replace([good])
            store.put_records([failed, DocumentRecord("never", "", "", 0, 0, status="failed", error="x")])
            assert_same_chunks(store.chunks("a", vectors=True), good.chunks)
            assert len(store.search(unit_vectors(1)[0], 10)) == 3
            assert store.counts() == Counts(documents=0, chunks=3, failed=2)
            assert store.recover() == []
            again = document("a", "r2", 2)
            store.replace([again])
            assert_only(store, [again], failed=1)

    def test_delete_removes_records_and_chunks(self, tmp_path: Path) -> None:
        """Only of the documents named."""
        with self.created(tmp_path) as store:
            store.replace([document(name) for name in NASTY_DOC_IDS])
            gone = list(NASTY_DOC_IDS[1::2])
            store.delete([*gone, "unknown"])
            store.delete([])
            assert_only(store, [document(name) for name in NASTY_DOC_IDS[0::2]])
            assert store.chunks(gone[0]) == []
            assert list(store.records(gone)) == []

    def test_large_batch(self, tmp_path: Path) -> None:
        """Hundreds of documents in one call, then all of them anew."""
        many = self.many_documents
        with self.created(tmp_path, dim=16) as store:
            for revision, n_chunks in (("r1", 5), ("r2", 4)):
                batch = [document(f"{number:03}", revision, n_chunks, dim=16) for number in range(many)]
                store.replace(batch)
                assert store.counts() == Counts(many, many * n_chunks, 0)
                assert_same_chunks(store.chunks("037", vectors=True), batch[37].chunks)
            names = [each.record.doc_id for each in batch]
            assert len(list(store.records(names))) == many
            store.delete(names[1:])
            assert store.counts() == Counts(1, 4, 0)

    def test_big_chunk(self, tmp_path: Path) -> None:
        """A megabyte of text in one chunk, ten in a document."""
        big = document("big", texts=[f"{number} " + "wörd " * 200_000 for number in range(10)])
        with self.created(tmp_path) as store:
            store.replace([big])
            assert_same_chunks(store.chunks("big", vectors=True), big.chunks)

    def test_maintain_keeps_everything(self, tmp_path: Path) -> None:
        """After many small writes."""
        with self.created(tmp_path) as store:
            documents = [document(f"d{number}", "r2", 2) for number in range(12)]
            for each in documents:
                store.replace([document(each.record.doc_id, "r1", 3)])
                store.replace([each])
            for _ in range(2):
                store.maintain()
                assert_only(store, documents)
            store.replace([document("d0", "r3", 4)])
            assert_only(store, [document("d0", "r3", 4), *documents[1:]])
        with self.opened(tmp_path) as store:
            assert store.counts() == Counts(12, 26, 0)


def assert_only(store: Store, documents: list[DocumentRevision], *, failed: int = 0) -> None:
    """These documents' chunks are what a search finds, no more and no less, and the counts agree."""
    expected = {chunk.chunk_id for each in documents for chunk in each.chunks}
    hits = store.search(unit_vectors(1)[0], 10_000)
    assert len(hits) == len(expected)
    assert {hit.chunk_id for hit in hits} == expected
    assert store.counts() == Counts(len(documents), len(expected), failed)
