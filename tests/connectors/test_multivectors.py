"""What one backend promises of multivectors beyond the conformance suite."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
import pytest
import qdrant_edge

from ctxindex.errors import ConfigError, StoreError
from ctxindex.stores import StoreLocation, open_store
from ctxindex.stores.conformance.multivectors import MultivectorConformance, multivector_document
from ctxindex.stores.conformance.samples import unit_vectors
from ctxindex.types import VectorLayout
from ctxindex_qdrant import QdrantStore
from ctxindex_qdrant.server import ServerEngine
from tests.connectors.fake_qdrant import FakeQdrant

LAYOUT = VectorLayout(8, multivector=True)


def test_lance_keeps_a_list_of_float16_vectors(tmp_path: Path) -> None:
    store = open_store("lancedb", index="docs", path=tmp_path)
    store.create({}, LAYOUT)
    store.replace([multivector_document("a")])
    table: Any = lancedb.connect(tmp_path / "lancedb").open_table("docs__g1")
    assert table.schema.field("vector").type == pa.list_(pa.list_(pa.float16(), 8))


@pytest.mark.parametrize("options", ["", "?quantization=int8"])
def test_edge_keeps_a_named_multivector_without_a_graph(
    tmp_path: Path, options: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ctxindex_qdrant.edge._QUANTIZED_FROM_KB", 1)
    store = open_store(f"qdrant:{tmp_path}{options}", index="docs", path=tmp_path)
    store.create({}, LAYOUT)
    documents = [multivector_document(f"d{number}", lengths=(1, 60, 7)) for number in range(30)]
    store.replace(documents)
    store.maintain()
    query = unit_vectors(5, seed=3)
    MultivectorConformance().assert_max_sim(store.search(query, 6), documents, query, 6)
    store.close()
    shard = qdrant_edge.EdgeShard.load(str(tmp_path / "qdrant/docs/g1/chunks"))
    (point, *_), _ = shard.scroll(qdrant_edge.ScrollRequest(limit=1, with_vector=True))
    assert set(point.vector) == {"multi"}  # type: ignore[arg-type]
    shard.close()
    config = (tmp_path / "qdrant/docs/g1/chunks/edge_config.json").read_text()
    assert '"float16"' in config
    assert ("int8" in config) == bool(options)
    assert any("quantized" in file.name for file in (tmp_path / "qdrant").rglob("*")) == bool(options)


def test_int8_is_for_multivectors_and_nothing_else_is_known(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="for indexes of multivectors"):
        open_store("qdrant?quantization=int8", index="docs", path=tmp_path).create({}, VectorLayout(8))
    with pytest.raises(StoreError, match="quantization=int4"):
        open_store("qdrant?quantization=int4", index="docs", path=tmp_path)
    with pytest.raises(ConfigError, match=r"NAME\?KEY=VALUE"):
        open_store("qdrant?int8", index="docs", path=tmp_path)


def test_a_server_is_asked_for_max_sim_in_float16(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeQdrant()
    try:
        engine = ServerEngine.connect(fake.url, "docs")
        engine.create({}, LAYOUT, int8=True)
        bodies = fake.asked("PUT", "docs__g1")
        params = bodies[0]["vectors"]["multi"]
        assert params["multivector_config"] == {"comparator": "max_sim"}
        assert params["datatype"] == "float16"
        assert params["distance"] == "Dot"
        assert params["hnsw_config"]["m"] == 0
        assert params["quantization_config"]["scalar"]["type"] == "int8"
        store = QdrantStore(engine)
        store.write_chunks(multivector_document("a", lengths=(300,) * 120).chunks)
        sent = [body["points"] for body in fake.asked("PUT", "docs/points")]
        assert len(sent) > 1
        assert [len(point["vector"]["multi"]) for points in sent for point in points] == [300] * 120
        numbers = np.array(sent[0][0]["vector"]["multi"], dtype=np.float32)
        np.testing.assert_array_equal(numbers, numbers.astype(np.float16).astype(np.float32))
        engine.search(unit_vectors(4), 3, None)
        (asked,) = fake.asked("POST", "points/query")
        assert asked["using"] == "multi"
        assert np.shape(asked["query"]["nearest"]) == (4, 8)
        assert asked["params"]["quantization"] == {"rescore": True, "oversampling": 3.0}
        store.close()
    finally:
        fake.stop()


def test_the_layout_is_read_from_the_server() -> None:
    fake = FakeQdrant()
    try:
        assert ServerEngine.connect(fake.url, "docs").layout() == VectorLayout(8)
    finally:
        fake.stop()


def test_an_index_made_before_multivectors_is_read(tmp_path: Path) -> None:
    location = StoreLocation("docs", tmp_path, options={"embedded": "true"})
    store = QdrantStore.connect(location)
    store.create({}, VectorLayout(8))
    store.close()
    (tmp_path / "qdrant/docs/g1/spec.json").write_text('{"dim": 8, "spec": {}}')
    again = QdrantStore.connect(location)
    assert again.search(unit_vectors(1)[0], 3) == []
    again.close()
