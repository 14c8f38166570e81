"""What one backend promises beyond the seam."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lancedb
import pytest
import qdrant_edge
from qdrant_client import QdrantClient

from ctxindex.errors import StoreError
from ctxindex.stores import StoreLocation, open_store
from ctxindex.stores.conformance.samples import NASTY_DOC_IDS, assert_same_chunks, document, unit_vectors
from ctxindex.stores.filters import Condition
from ctxindex.stores.payload import OWN_KEYS, from_payload, to_payload
from ctxindex.types import VectorLayout
from ctxindex_lancedb import LanceStore
from ctxindex_qdrant import QdrantStore, edge


def test_payload_is_flat_for_other_readers_and_loses_nothing() -> None:
    metadata = {"page": 3, "text": "theirs", "doc_id": 5, "metadata": {"x": 1}, "ctx_facets": "theirs"}
    chunk = document("a/b.md", texts=["hello"], title="T", metadata=metadata).chunks[0]
    payload = to_payload(chunk)
    assert payload["page"] == 3
    assert payload["text"] == "hello"
    assert payload["doc_id"] == payload["ref_doc_id"] == payload["document_id"] == "a/b.md"
    assert payload["metadata"] == metadata
    assert set(OWN_KEYS) <= set(payload)
    assert dict(from_payload(payload).metadata) == metadata


def test_lance_tables_are_plain_tables(tmp_path: Path) -> None:
    """Named by generation, readable without us, metadata as JSON."""
    store = open_store("lancedb", index="docs", path=tmp_path)
    store.create({}, VectorLayout(8))
    store.replace([document("a", metadata={"page": 2, "lang": "de"})])
    database = lancedb.connect(tmp_path / "lancedb")
    assert sorted(database.list_tables().tables) == ["docs__g1", "docs__g1_docs"]
    found = database.open_table("docs__g1").search().where("json_get_int(metadata, 'page') = 2").to_list()
    assert len(found) == 3


def test_lance_create_replaces_what_a_killed_create_left(tmp_path: Path) -> None:
    store = LanceStore.connect(StoreLocation("docs", tmp_path))
    store.create({}, VectorLayout(8))
    lancedb.connect(tmp_path / "lancedb").drop_table("docs__g1_docs")
    again = LanceStore.connect(StoreLocation("docs", tmp_path))
    assert again.read_spec() is None
    again.create({}, VectorLayout(4))
    again.replace([document("a", dim=4)])
    assert len(again.search(unit_vectors(1, 4)[0], 9)) == 3


def test_lance_maintain_folds_small_writes_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctxindex_lancedb.database.SMALL_FRAGMENTS", 8)
    store = LanceStore.connect(StoreLocation("docs", tmp_path))
    store.create({}, VectorLayout(8))
    for number in range(12):
        store.replace([document(str(number))])
    table: Any = lancedb.connect(tmp_path / "lancedb").open_table("docs__g1")
    assert table.stats()["fragment_stats"]["num_fragments"] == 12
    store.maintain()
    table.checkout_latest()
    assert table.stats()["fragment_stats"]["num_fragments"] == 1
    version = table.version
    store.maintain()
    table.checkout_latest()
    assert table.version == version, "nothing was due"


def test_lance_long_runs_keep_house_by_themselves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctxindex_lancedb.store._REPLACES_BETWEEN_UPKEEP", 10)
    monkeypatch.setattr("ctxindex_lancedb.database.SMALL_FRAGMENTS", 8)
    store = LanceStore.connect(StoreLocation("docs", tmp_path))
    store.create({}, VectorLayout(8))
    for number in range(21):
        store.replace([document(str(number))])
    table: Any = lancedb.connect(tmp_path / "lancedb").open_table("docs__g1")
    assert table.stats()["fragment_stats"]["num_fragments"] < 10
    assert store.counts().chunks == 63


def test_lance_index_on_doc_id_changes_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctxindex_lancedb.database.INDEX_FROM_ROWS", 1)
    store = LanceStore.connect(StoreLocation("docs", tmp_path))
    store.create({}, VectorLayout(8))
    store.replace([document(name, "r1", 4) for name in NASTY_DOC_IDS])
    store.maintain()
    table: Any = lancedb.connect(tmp_path / "lancedb").open_table("docs__g1")
    assert [index.columns for index in table.list_indices()] == [["doc_id"]]
    version = table.version
    store.maintain()
    table.checkout_latest()
    assert table.version == version, "the index was made once"
    for _ in range(2):
        changed = [document(name, "r2", 2) for name in NASTY_DOC_IDS[:4]]
        store.replace([*changed, document("new", "r1", 3)])
        store.delete(NASTY_DOC_IDS[4:6])
        for each in changed:
            assert_same_chunks(store.chunks(each.record.doc_id, vectors=True), each.chunks)
            found = store.search(unit_vectors(1)[0], 99, Condition("doc_id", "eq", each.record.doc_id))
            assert {hit.chunk_id for hit in found} == {chunk.chunk_id for chunk in each.chunks}
            others = store.search(unit_vectors(1)[0], 99, Condition("doc_id", "ne", each.record.doc_id))
            assert len(others) == len(store.search(unit_vectors(1)[0], 99)) - 2
        assert store.chunks(NASTY_DOC_IDS[4]) == []
        assert len(store.chunks("new")) == 3
        for number in range(9):
            store.replace([document(f"more{number}")])
        store.maintain()


def test_lance_folder_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "lancedb").write_text("a file")
    store = LanceStore.connect(StoreLocation("docs", tmp_path))
    with pytest.raises(StoreError, match="LanceDB refused"):
        store.create({}, VectorLayout(8))


def test_edge_create_is_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    location = StoreLocation("docs", tmp_path, options={"embedded": "true"})
    written: list[Path] = []

    def write(path: Path, text: str) -> None:
        written.append(path)
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(edge, "_write_atomically", write)
        store = QdrantStore.connect(location)
        with pytest.raises(StoreError, match="disk full"):
            store.create({}, VectorLayout(8))
        assert store.read_spec() is None
        store.close()
    again = QdrantStore.connect(location)
    assert again.read_spec() is None
    again.create({"second": True}, VectorLayout(4))
    assert again.read_spec() == {"second": True}
    assert (tmp_path / "qdrant/docs/CURRENT").read_text() == "g1"
    again.close()


def test_edge_damage_is_reported(tmp_path: Path) -> None:
    location = StoreLocation("docs", tmp_path, options={"embedded": "true"})
    store = QdrantStore.connect(location)
    store.create({}, VectorLayout(8))
    store.close()
    (tmp_path / "qdrant/docs/g1/spec.json").write_text("{")
    with pytest.raises(StoreError, match="refused"):
        QdrantStore.connect(location)


def test_edge_shard_is_readable_without_us(tmp_path: Path) -> None:
    store = QdrantStore.connect(StoreLocation("docs", tmp_path, options={"embedded": "true"}))
    store.create({}, VectorLayout(8))
    store.replace([document("a", metadata={"page": 2})])
    store.close()
    shard = qdrant_edge.EdgeShard.load(str(tmp_path / "qdrant/docs/g1/chunks"))
    records, _ = shard.scroll(qdrant_edge.ScrollRequest(limit=10, with_payload=True))
    assert [(record.payload or {})["page"] for record in records] == [2, 2, 2]
    shard.close()


@pytest.fixture
def overtaken(tmp_path: Path) -> QdrantStore:
    """A store whose next look at chunks happens just before a writer replaces the document."""
    store = QdrantStore.connect(StoreLocation("docs", tmp_path, url=":memory:"))
    store.create({}, VectorLayout(8))
    store.replace([document("a", "r1", 6), document("b", "r1", 1)])
    return store


def test_qdrant_search_overtaken_by_a_writer_looks_again(
    overtaken: QdrantStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = overtaken._engine.search
    coming = [document("a", "r2", 4)]

    def slow_search(*arguments: Any, **options: Any) -> Any:
        found = search(*arguments, **options)
        if coming:
            overtaken.replace([coming.pop()])
        return found

    monkeypatch.setattr(overtaken._engine, "search", slow_search)
    hits = overtaken.search(unit_vectors(1)[0], 99)
    assert sorted((hit.doc_id, hit.revision) for hit in hits) == [("a", "r2")] * 4 + [("b", "r1")]


def test_qdrant_chunks_overtaken_by_a_writer_looks_again(
    overtaken: QdrantStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    scroll = overtaken._engine.scroll
    coming = [document("a", "r2", 4)]

    def late_scroll(*arguments: Any, **options: Any) -> Any:
        if coming:
            overtaken.replace([coming.pop()])
        return scroll(*arguments, **options)

    monkeypatch.setattr(overtaken._engine, "scroll", late_scroll)
    assert [chunk.revision for chunk in overtaken.chunks("a")] == ["r2"] * 4


def test_llama_index_style_payload_in_a_collection(tmp_path: Path) -> None:
    """Through the alias, as another client would ask."""
    from ctxindex_qdrant import server

    store = QdrantStore.connect(StoreLocation("docs", tmp_path, url=":memory:"))
    store.create({}, VectorLayout(8))
    store.replace([document("a", metadata={"page": 2})])
    client: QdrantClient = server._in_memory[str(tmp_path)]
    points = client.query_points("docs", query=unit_vectors(1)[0].tolist(), using="dense", limit=9).points
    assert {(point.payload or {})["document_id"] for point in points} == {"a"}
    assert client.collection_exists("docs__g1")
