"""`ctxindex verify` as a user has it: what it prints, and what it exits with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ctxindex import Index, VerifyReport
from ctxindex.cli.verify import _print
from ctxindex.indexing import ContextCheck, DocumentCheck
from ctxindex.types import DocumentRevision
from tests.cli.command_line import answer, run, run_process
from tests.encoding.tiny import save_sentence_transformer

TEXTS = {
    "napoleon.txt": "Napoleon was born in Corsica.\n\nHe became emperor in 1804.\n\nHe died in exile, on an island.",
    "lease.txt": "The lease may be ended by either party.\n\nIt is governed by the law of Delaware, and no other.",
}


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A folder with two texts in `texts` and an index of them in `.ctxindex`."""
    (tmp_path / "texts").mkdir()
    for name, text in TEXTS.items():
        (tmp_path / "texts" / name).write_text(text, encoding="utf-8")
    with Index.open(path=tmp_path / ".ctxindex", method="late", chunk_size=16, device="cpu") as index:
        assert index.ingest(tmp_path / "texts").new == 2
    return tmp_path


def test_all_is_well(work: Path) -> None:
    result = run("verify", "texts", "--json", cwd=work)
    assert result.returncode == 0, result.stderr
    assert result.stderr == "2 documents to encode again\n"
    found = answer(result)
    assert found["schema"] == "ctxindex.verify/1"
    counts = {"live": 2, "agrees": 2, "differs": 0, "changed": 0, "failed": 0, "missing": 0}
    assert found["documents"] == counts
    assert found["vectors"] == sum(check["chunks"] for check in found["checks"])
    assert 0.9999 < found["cosine"]["min"] <= found["cosine"]["mean"] <= 1
    assert set(found["checks"][0]) == {"doc_id", "verdict", "chunks", "cosine", "worst_chunk", "reason"}
    assert found["context"]["lost"] is False
    assert 0.3 < found["context"]["cosine"] < 0.98
    assert found["missing"] == []
    assert set(found["seconds"]) == {"total", "model", "load", "chunk", "tokenise", "forward", "write"}
    result = run("verify", "--seed", "7", "--sample", "1", "-q", cwd=work)
    assert result.returncode == 0
    assert result.stderr == ""
    assert "Compared 1 of 2 documents (--seed 7): 1 agree, 0 differ; 0 changed since, 0 failed." in result.stdout
    assert "Context: mean cosine 0." in result.stdout
    assert result.stdout.splitlines()[-1] == "Next: ctxindex search 'your question'"


def test_a_tampered_vector_fails_the_check(work: Path) -> None:
    with Index.open(path=work / ".ctxindex") as index:
        (record,) = index.store.records(["texts/lease.txt"])
        chunks = index.chunks("texts/lease.txt", vectors=True)
        chunks[1] = replace(chunks[1], vector=-np.asarray(chunks[1].vector))
        index.store.replace([DocumentRevision(record, tuple(chunks))])
    result = run("verify", "texts", "--seed", "7", "--quiet", cwd=work)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    first = result.stdout.splitlines()[1]
    assert first.startswith("differs  -1.000000  ")
    assert "texts/lease.txt: chunk 1 [41:93] is stored with another vector than the model gives" in first
    assert "Compared 2 of 2 documents" in result.stdout
    assert "build a new index: ctxindex ingest texts --index NEW_NAME" in result.stdout
    process = run_process("verify", "texts", "--seed", "7", "--quiet", cwd=work)
    assert (process.returncode, process.stdout, process.stderr) == (1, result.stdout, result.stderr)


def test_sources_that_changed_or_are_gone_come_with_what_to_do(work: Path) -> None:
    (work / "texts" / "lease.txt").write_text("Another text.", encoding="utf-8")
    result = run("verify", cwd=work)
    assert result.returncode == 0, result.stderr
    assert "texts/lease.txt: the source has changed since it was indexed" in result.stdout
    assert "Next: ctxindex ingest PATH  (encodes what has changed)" in result.stdout
    (work / "texts" / "napoleon.txt").unlink()
    result = run("verify", "texts", cwd=work)
    assert result.returncode == 3, "nothing was compared"
    assert "missing  texts/napoleon.txt" in result.stderr
    assert "1 document not found in the sources given" in result.stdout
    assert "Next: ctxindex ingest texts  (encodes what has changed)" in result.stdout
    result = run("verify", cwd=work / "texts")
    assert result.returncode == 4, "the index is looked for here, too"
    result = run("verify", "--path", "../.ctxindex", "--json", cwd=work / "texts")
    assert result.returncode == 3
    assert answer(result)["missing"] == ["texts/lease.txt", "texts/napoleon.txt"]


def test_lost_context_is_said_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    check = DocumentCheck("a.txt", "agrees", 2, 1.0, 0)
    _print(VerifyReport(1, (check,), (), 7, 2, 1.0, 1.0, ContextCheck(0.9999, 2), {}))
    said = capsys.readouterr()
    assert "Context: mean cosine 0.9999 of 2 stored chunks" in said.out
    assert said.err.startswith("Warning: the context is lost.")
    _print(VerifyReport(1, (check,), (), 7, 2, 1.0, 1.0, ContextCheck(note="no reason"), {}))
    said = capsys.readouterr()
    assert "Context: not measured; no reason." in said.out
    assert said.err == ""


def test_an_index_of_nothing_and_another_model(work: Path) -> None:
    other = save_sentence_transformer(work / "other")
    result = run("verify", "--model", other, cwd=work)
    assert result.returncode == 5
    assert "is not the one that built this index" in result.stderr
    with Index.open(path=work / ".ctxindex") as index:
        index.delete([f"texts/{name}" for name in TEXTS])
    result = run("verify", cwd=work)
    assert result.returncode == 0
    assert "The index holds no documents: ctxindex ingest PATH" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["verify", "--index", "nothing"], 4, "ctxindex ingest"),
        (["verify", "nowhere"], 2, "no such file or folder: nowhere"),
        (["verify", "--sample", "0"], 2, "--sample"),
        (["verify", "--device", "abacus"], 2, "--device abacus"),
        (["verify", "--model", "./no-model"], 4, "no model folder ./no-model"),
    ],
)
def test_errors_are_one_sentence_and_a_code(work: Path, arguments: list[str], code: int, message: str) -> None:
    result = run(*arguments, cwd=work)
    assert result.returncode == code, result.stderr
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
