"""Conformance: the life of an index, its spec and its records."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ctxindex.errors import IndexNotFoundError, StoreError
from ctxindex.stores.conformance.samples import (
    DIM,
    NASTY_DOC_IDS,
    Connecting,
    assert_same_json,
    document,
    indexed,
    raises,
    unit_vectors,
)
from ctxindex.stores.protocol import Counts
from ctxindex.types import DocumentRecord, VectorLayout

SPEC = {
    "format": 1,
    "model": {"name": "minilm", "digest": "ab" * 32, "title'": 'quo"te\\n', "nothing": None},
    "ünïcode 漢": ["🙂", 1, 2.5, True, None, {"deep": [[], {}]}],
}


class BasicsConformance(Connecting):
    """Spec, creation, records, closing."""

    def test_nothing_is_there_before_create(self, tmp_path: Path) -> None:
        """No spec, and the error that says so."""
        with self.opened(tmp_path / "fresh") as store:
            assert store.read_spec() is None
            calls = [
                lambda: list(store.records()),
                lambda: store.put_records([DocumentRecord("a", "r", "", 0, 0)]),
                lambda: store.replace([document("a")]),
                store.recover,
                store.read_context,
                lambda: store.delete(["a"]),
                lambda: store.search(unit_vectors(1)[0], 3),
                lambda: store.chunks("a"),
                store.counts,
                store.maintain,
            ]
            for call in calls:
                raises(IndexNotFoundError, call)
            assert store.read_spec() is None
        assert not (tmp_path / "fresh").exists() or not any((tmp_path / "fresh").iterdir())

    def test_the_corpus_context_comes_back(self, tmp_path: Path) -> None:
        """It is opaque bytes, of a few megabytes, and no document."""
        content = bytes(range(256)) * 10_000 + b"end"
        with self.opened(tmp_path) as store:
            store.create(SPEC, VectorLayout(DIM), content)
            assert store.read_context() == content
            store.replace([document("a")])
            store.maintain()
        with self.opened(tmp_path) as store:
            assert store.read_context() == content
            assert_same_json(store.read_spec(), SPEC)
            assert [record.doc_id for record in store.records()] == ["a"]
            store.delete(["a"])
            assert store.read_context() == content

    def test_without_a_corpus_context_there_is_none(self, tmp_path: Path) -> None:
        """Also not that of another index."""
        with self.opened(tmp_path, "with") as store:
            store.create(SPEC, VectorLayout(DIM), b"something")
        with self.opened(tmp_path, "without") as store:
            store.create(SPEC, VectorLayout(DIM))
            assert store.read_context() is None

    def test_spec_comes_back(self, tmp_path: Path) -> None:
        """The spec is opaque JSON."""
        with self.opened(tmp_path) as store:
            store.create(SPEC, VectorLayout(DIM))
            assert_same_json(store.read_spec(), SPEC)
            store.replace([document("a")])
            store.maintain()
        with self.opened(tmp_path) as store:
            assert_same_json(store.read_spec(), SPEC)

    def test_create_twice_is_an_error(self, tmp_path: Path) -> None:
        """The index that is there stays."""
        with self.created(tmp_path) as store:
            store.replace([document("a")])
            raises(StoreError, store.create, {"format": 2}, VectorLayout(DIM))
            assert store.read_spec() == {"format": 1}
            assert len(store.chunks("a")) == 3

    def test_new_index_is_empty(self, tmp_path: Path) -> None:
        """All reads work on it."""
        with self.created(tmp_path) as store:
            assert list(store.records()) == []
            assert list(store.records(["a"])) == []
            assert store.counts() == Counts(0, 0, 0)
            assert store.search(unit_vectors(1)[0], 5) == []
            assert store.chunks("a") == []
            assert store.recover() == []
            store.delete(["a"])
            store.replace([])
            store.put_records([])
            store.maintain()

    def test_indexes_of_one_database_are_independent(self, tmp_path: Path) -> None:
        """Even when one name begins with the other."""
        names = ("docs", "docs-2", "docs.old", "docs_g1")
        for number, name in enumerate(names):
            with self.opened(tmp_path, name) as store:
                store.create({"number": number}, VectorLayout(DIM + number))
                store.replace([document("same", n_chunks=number + 1, dim=DIM + number)])
        for number, name in enumerate(names):
            with self.opened(tmp_path, name) as store:
                assert store.read_spec() == {"number": number}
                assert store.counts() == Counts(1, number + 1, 0)
        with self.opened(tmp_path, "docs") as store:
            store.delete(["same"])
        with self.opened(tmp_path, "docs-2") as store:
            assert len(store.chunks("same")) == 2

    def test_location_is_for_people(self, tmp_path: Path) -> None:
        """It names the index."""
        with self.opened(tmp_path, "my-index") as store:
            assert "my-index" in store.location

    def test_records_round_trip(self, tmp_path: Path) -> None:
        """Every field, every status, `pending` nested, any doc_id."""
        records = [DocumentRecord(name, "r1", "s" * 64, 3, 99, title="T'\"") for name in NASTY_DOC_IDS]
        records.append(DocumentRecord("failed", "", "s1", 0, 0, status="failed", error='can\'t\nread "it" ü'))
        records.append(DocumentRecord("stale", "r0", "s2", 2, 5, status="failed", error="was fine", title=""))
        coming = DocumentRecord("pending", "r2", "s3", 4, 9, title="new", updated_at="2026-01-02T03:04:05+00:00")
        records.append(DocumentRecord("pending", "r1", "s0", 3, 8, title="old", updated_at="2026", pending=coming))
        with self.created(tmp_path) as store:
            store.put_records(records)
            found = indexed(store)
            assert found == {record.doc_id: record for record in records}
            assert found["pending"].updated_at == "2026"
            assert found["pending"].pending is not None
            assert found["pending"].pending.updated_at == coming.updated_at
            for name in NASTY_DOC_IDS:
                assert [record.doc_id for record in store.records([name, "unknown"])] == [name]
            assert {record.doc_id for record in store.records(list(NASTY_DOC_IDS))} == set(NASTY_DOC_IDS)
            assert list(store.records([])) == []

    def test_put_overwrites_by_doc_id(self, tmp_path: Path) -> None:
        """One record a document."""
        first = DocumentRecord("a", "r1", "s1", 3, 9, title="one")
        with self.created(tmp_path) as store:
            store.put_records([first, DocumentRecord("b", "r1", "s1", 0, 0)])
            store.put_records([replace(first, revision="r2", title=None)])
            assert indexed(store)["a"] == replace(first, revision="r2", title=None)
            assert len(indexed(store)) == 2

    def test_close_twice(self, tmp_path: Path) -> None:
        """Harmless, and the index can be opened again."""
        with self.created(tmp_path) as store:
            store.replace([document("a")])
            store.close()
            store.close()
        with self.opened(tmp_path) as store:
            assert len(store.chunks("a")) == 3

    def test_a_run_of_writes_may_be_followed_by_another(self, tmp_path: Path) -> None:
        """`writing` surrounds a run, also the first, and lets go at its end."""
        with self.opened(tmp_path) as store:
            with store.writing():
                store.create({}, VectorLayout(DIM))
                store.replace([document("a")])
            with store.writing():
                store.replace([document("b")])
                assert len(store.chunks("a")) == 3
            assert store.counts().documents == 2
