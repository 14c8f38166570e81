"""A late-interaction model from ingest to search: the command line, both stores, the LlamaIndex retriever."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llama_index.core.schema import QueryBundle

from ctxindex import Index
from ctxindex.encoding.maxsim import max_sim
from ctxindex.errors import MismatchError, ModelError
from tests.cli.command_line import answer, run
from tests.encoding.test_colbert import PYLATE, pylate

FILES = {
    "napoleon.txt": "Napoleon was born in Corsica, in the year 1769.\n\nHe became emperor in 1804; he died in exile!",
    "lease.txt": "The agreement may be terminated early by either party.\n\nThe law of Delaware governs the agreement.",
    "law.txt": "Which law governs? " * 40,
}
STORES = ("lancedb", "qdrant", "qdrant?quantization=int8")
QUESTION = "who died in exile?"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pylate(tmp_path_factory.mktemp("model") / "colbert", PYLATE)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files") / "texts"
    folder.mkdir()
    for name, text in FILES.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="module", params=STORES)
def index(request: pytest.FixtureRequest, model: Path, files: Path, tmp_path_factory: Any) -> Iterator[Index]:
    settings: dict[str, Any] = {"store": request.param, "path": tmp_path_factory.mktemp("db"), "device": "cpu"}
    with Index.open("texts", model=str(model), chunk_size=16, **settings) as opened:
        report = opened.ingest(files)
        assert (report.new, report.failures) == (3, ())
        yield opened


def test_every_token_of_every_chunk_is_stored(index: Index) -> None:
    spec = index.spec
    assert spec is not None
    assert (spec.encoder.method, spec.encoder.multivector, spec.encoder.storage) == (
        "late-interaction",
        True,
        "float16",
    )
    tokenizer = index.searcher().encoder.tokenizer
    for record in index.records():
        chunks = index.chunks(record.doc_id, vectors=True)
        lengths = [0 if chunk.vector is None else len(chunk.vector) for chunk in chunks]
        assert lengths == tokenizer.count([chunk.text for chunk in chunks])
        assert sum(lengths) == record.n_tokens


def test_hits_are_ranked_by_max_sim_over_the_whole_index(index: Index) -> None:
    query = index.searcher().vector(QUESTION)
    assert query.shape == (24, 16)
    chunks = [chunk for record in index.records() for chunk in index.chunks(record.doc_id, vectors=True)]
    exact = {chunk.chunk_id: float(max_sim(query[None], np.asarray(chunk.vector)[None])[0, 0]) for chunk in chunks}
    hits = index.search(QUESTION, k=6)
    assert [hit.score for hit in hits] == pytest.approx(sorted(exact.values(), reverse=True)[:6], rel=1e-5)
    assert [hit.score for hit in hits] == pytest.approx([exact[hit.chunk_id] for hit in hits], rel=1e-5)
    only = index.search(QUESTION, k=3, where={"doc_id": "texts/law.txt"})
    assert {hit.doc_id for hit in only} == {"texts/law.txt"}
    assert len(only) == 3


def test_the_llama_index_retriever_asks_with_all_vectors(index: Index) -> None:
    retriever = index.as_retriever(similarity_top_k=4)
    nodes = retriever.retrieve(QUESTION)
    hits = index.search(QUESTION, k=4)
    assert [node.node_id for node in nodes] == [hit.chunk_id for hit in hits]
    assert [node.score for node in nodes] == pytest.approx([hit.score for hit in hits])
    both = retriever.retrieve(QueryBundle(QUESTION, custom_embedding_strs=[QUESTION, QUESTION]))
    assert [node.score for node in both] == pytest.approx([2 * hit.score for hit in hits], rel=1e-4)


def test_a_second_run_writes_nothing_and_settings_must_agree(index: Index, files: Path, model: Path) -> None:
    report = index.ingest(files)
    assert (report.new, report.changed, report.unchanged) == (0, 0, 3)
    other = Index(index.store, index.options.__class__(model=str(model), pool_factor=2))
    with pytest.raises(MismatchError, match="pool_factor"):
        other.ingest(files)


@pytest.mark.parametrize("store", ["lancedb", "qdrant"])
def test_a_blended_index_holds_as_many_vectors(store: str, model: Path, files: Path, tmp_path: Path) -> None:
    place: dict[str, Any] = {"store": store, "path": tmp_path, "device": "cpu"}
    settings: dict[str, Any] = {"blend": 0.4, "isolated": "opening", "chunk_size": 16}
    with Index.open("texts", model=str(model), **settings, **place) as opened:
        opened.ingest(files)
        assert opened.spec is not None
        assert (opened.spec.encoder.blend, opened.spec.encoder.isolated) == (0.4, "opening")
        counted = opened.searcher().encoder.tokenizer.count
        for record in opened.records():
            chunks = opened.chunks(record.doc_id, vectors=True)
            lengths = [0 if chunk.vector is None else len(chunk.vector) for chunk in chunks]
            assert lengths == counted([chunk.text for chunk in chunks])
        checked = opened.verify(files)
        assert checked.agrees
        assert checked.compared == 3
    with Index.open("texts", **place) as again:
        assert again.ingest(files).unchanged == 3


def test_stores_agree(model: Path, files: Path, tmp_path: Path) -> None:
    scores = []
    for store in ("lancedb", "qdrant"):
        with Index.open("texts", model=str(model), store=store, path=tmp_path, pool_factor=2, device="cpu") as opened:
            opened.ingest(files)
            scores.append([(hit.chunk_id, hit.score) for hit in opened.search(QUESTION, k=8)])
    assert [name for name, _ in scores[0]] == [name for name, _ in scores[1]]
    assert [score for _, score in scores[0]] == pytest.approx([score for _, score in scores[1]], rel=1e-5)


def test_the_command_line(model: Path, files: Path, tmp_path: Path) -> None:
    result = run("ingest", files, "--model", model, "--pool-factor", "2", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "method late-interaction" in result.stdout
    hits = answer(run("search", QUESTION, "--json", cwd=tmp_path))["hits"]
    assert len(hits) == 4
    assert hits[0]["score"] > 1
    refused = run("ingest", files, "--model", model, "--method", "late", "--index", "other", cwd=tmp_path)
    assert refused.returncode == 4
    assert "late-interaction model" in refused.stderr


def test_methods_that_do_not_fit_the_model_are_refused(model: Path, files: Path, tmp_path: Path) -> None:
    for method in ("late", "independent"):
        with (
            Index.open(model=str(model), method=method, path=tmp_path) as opened,
            pytest.raises(ModelError, match="is a late-interaction model"),
        ):
            opened.ingest(files)
    with (
        Index.open(method="late-interaction", path=tmp_path) as opened,
        pytest.raises(ModelError, match="gives one vector a text"),
    ):
        opened.ingest(files)
    with Index.open(path=tmp_path) as opened:
        assert opened.spec is None
