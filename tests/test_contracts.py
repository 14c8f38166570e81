"""The main job on the shared evaluation data: real contracts, real questions, both stores."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ctxindex import Document, Index, load_documents
from ctxindex.config import DEFAULT_INDEX

FEW = 6


@pytest.fixture(scope="module")
def questions(contracts: Path) -> list[dict[str, str]]:
    """Ten questions about the first few contracts."""
    names = {file.stem for file in sorted(contracts.glob("*.txt"))[:FEW]}
    lines = (contracts / "queries.jsonl").read_text(encoding="utf-8").splitlines()
    return [row for row in map(json.loads, lines) if row["doc_id"] in names][::3][:10]


def test_the_texts_are_those_of_the_data_set(contracts: Path) -> None:
    lines = (contracts / "documents.jsonl").read_text(encoding="utf-8").splitlines()
    texts = {f"contracts/{row['doc_id']}.txt": row["text"] for row in map(json.loads, lines)}
    loaded = list(load_documents(contracts, include=["*.txt"]))
    assert {document.doc_id: document.text for document in loaded if isinstance(document, Document)} == texts


@pytest.mark.parametrize("store", ["lancedb", "qdrant"])
def test_contracts_are_indexed_and_answer_questions(
    store: str, contracts: Path, questions: list[dict[str, str]], tmp_path: Path
) -> None:
    files = sorted(contracts.glob("*.txt"))[:FEW]
    with Index.open(store=store, path=tmp_path, device="cpu", dtype="float32") as index:
        report = index.ingest(*files)
        assert (report.new, report.failures) == (FEW, ())
        # On free cores it is about a hundredth (benchmarks/ingest.py); a busy machine may be ten times worse.
        assert report.idle < 0.25
        assert DEFAULT_INDEX in index.store.location
        found = 0
        for question in questions:
            hits = index.search(question["query"], k=5)
            assert len(hits) == 5
            assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
            found += any(hit.doc_id == f"{question['doc_id']}.txt" for hit in hits)
        assert found > len(questions) // 2
