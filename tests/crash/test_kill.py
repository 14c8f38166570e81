"""`kill -9` in the middle of an ingest, then the same command: the index of an undisturbed run."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from ctxindex import Index
from ctxindex.types import DocumentRecord, StoredChunk

# One document a batch, so that a kill finds a run between any two of many writes; small batches through the model.
RUN = """
import sys
from ctxindex import Index
from ctxindex.indexing import writer
writer._DOCUMENTS = 1
with Index.open("test", store=sys.argv[1], path=sys.argv[2], method="late", device="cpu") as index:
    print("begin", flush=True)
    report = index.ingest(sys.argv[3])
    print(report.new, report.changed, report.unchanged, flush=True)
"""
DOCUMENTS = 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("corpus") / "docs"
    place.mkdir()
    chance = random.Random(5)
    words = ["party", "shall", "indemnify", "agreement", "notice", "term", "breach", "license", "royalty", "audit"]
    for number in range(DOCUMENTS):
        text = "\n\n".join(" ".join(chance.choices(words, k=60)) for _ in range(chance.randint(1, 12)))
        (place / f"{number}.txt").write_text(text, encoding="utf-8")
    return place


def start(store: str, path: Path, folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", RUN, store, str(path), str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def finish(store: str, path: Path, folder: Path) -> list[int]:
    run = start(store, path, folder)
    output, _ = run.communicate(timeout=300)
    assert run.returncode == 0
    return [int(number) for number in output.split()[1:]]


def contents(store: str, path: Path) -> tuple[list[DocumentRecord], dict[str, list[StoredChunk]]]:
    with Index.open("test", store=store, path=path) as index:
        records = index.records()
        return records, {record.doc_id: index.chunks(record.doc_id, vectors=True) for record in records}


@pytest.mark.parametrize("store", ["lancedb", "qdrant"])
def test_a_killed_run_goes_on_to_the_same_index(store: str, folder: Path, tmp_path: Path) -> None:
    undisturbed = tmp_path / "undisturbed"
    began = time.monotonic()
    assert finish(store, undisturbed, folder) == [DOCUMENTS, 0, 0]
    length = time.monotonic() - began
    records, chunks = contents(store, undisturbed)

    chance = random.Random(store)
    killed = tmp_path / "killed"
    for _ in range(4):
        run = start(store, killed, folder)
        assert run.stdout is not None
        run.stdout.readline()
        time.sleep(chance.uniform(0.1, 0.8) * length)
        run.send_signal(signal.SIGKILL)
        run.communicate()
        if (killed / store).exists() or any(killed.rglob("*")):
            check_nothing_is_torn(store, killed)
    new, changed, unchanged = finish(store, killed, folder)
    assert new + changed + unchanged == DOCUMENTS
    after_records, after = contents(store, killed)
    assert after_records == records
    assert all(record.pending is None for record in after_records)
    for doc_id, expected in chunks.items():
        found = after[doc_id]
        assert [(chunk.chunk_id, chunk.start, chunk.end, chunk.revision, chunk.text) for chunk in found] == [
            (chunk.chunk_id, chunk.start, chunk.end, chunk.revision, chunk.text) for chunk in expected
        ]
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(np.asarray(one.vector), np.asarray(other.vector), atol=1e-5)
    assert finish(store, killed, folder) == [0, 0, DOCUMENTS]


def check_nothing_is_torn(store: str, path: Path) -> None:
    """Before anything is mended: a reader sees each document whole, or not at all."""
    with Index.open("test", store=store, path=path) as index:
        if index.spec is None:
            return
        for record in index.records():
            found = index.chunks(record.doc_id)
            assert len(found) == (record.n_chunks if record.revision else 0)
            assert {chunk.revision for chunk in found} <= {record.revision}
