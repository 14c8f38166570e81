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

# One document a batch, told when it is in the store, so that a kill can be timed to fall between any two writes.
RUN = """
import sys
from ctxindex import Index
from ctxindex.encoding import local
from ctxindex.indexing import writer
writer._DOCUMENTS = 1
local._POOL_BATCHES = 1
with Index.open("test", store=sys.argv[1], path=sys.argv[2], method="late", device="cpu") as index:
    replace = index.store.replace
    def told(documents):
        replace(documents)
        for document in documents:
            print("written", document.record.doc_id, flush=True)
    index.store.replace = told
    report = index.ingest(sys.argv[3])
    print("report", report.new, report.changed, report.unchanged, flush=True)
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
    return [int(number) for number in output.splitlines()[-1].split()[1:]]


def kill_after(documents: int, delay: float, store: str, path: Path, folder: Path) -> int:
    """Start a run, and kill it `delay` seconds after it has written `documents`; how many it said it wrote."""
    run = start(store, path, folder)
    assert run.stdout is not None
    for _ in range(documents):
        run.stdout.readline()
    time.sleep(delay)
    run.send_signal(signal.SIGKILL)
    rest, _ = run.communicate()
    return documents + rest.count("written")


def contents(store: str, path: Path) -> tuple[list[DocumentRecord], dict[str, list[StoredChunk]]]:
    with Index.open("test", store=store, path=path) as index:
        records = index.records()
        return records, {record.doc_id: index.chunks(record.doc_id, vectors=True) for record in records}


@pytest.mark.parametrize("store", ["lancedb", "qdrant"])
def test_a_killed_run_goes_on_to_the_same_index(store: str, folder: Path, tmp_path: Path) -> None:
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    assert finish(store, undisturbed, folder) == [DOCUMENTS, 0, 0]
    records, chunks = contents(store, undisturbed)

    chance = random.Random(store)
    written = 0
    for documents in (1, 7, 12):
        written += kill_after(documents, chance.uniform(0, 0.3), store, killed, folder)
        check_nothing_is_torn(store, killed)
    assert 20 <= written < DOCUMENTS, "the kills fell into the middle"
    new, changed, unchanged = finish(store, killed, folder)
    assert new + changed <= DOCUMENTS - written, "what was said to be written was not written again"
    assert unchanged >= written
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


@pytest.mark.parametrize("store", ["lancedb", "qdrant"])
def test_documents_that_change_are_old_or_new_and_never_both(store: str, folder: Path, tmp_path: Path) -> None:
    place, path = tmp_path / "docs", tmp_path / "db"
    place.mkdir()
    for file in sorted(folder.glob("*.txt"))[:20]:
        (place / file.name).write_bytes(file.read_bytes())
    finish(store, path, place)
    for file in place.glob("*.txt"):
        file.write_text(f"A new beginning.\n\n{file.read_text(encoding='utf-8')}", encoding="utf-8")
    written = kill_after(6, 0.05, store, path, place)
    check_nothing_is_torn(store, path)
    with Index.open("test", store=store, path=path) as index:
        beginnings = [index.chunks(record.doc_id)[0].text.startswith("A new beginning") for record in index.records()]
    assert written <= sum(beginnings) < 20
    new, changed, unchanged = finish(store, path, place)
    assert new == 0
    assert changed <= 20 - written
    assert changed + unchanged == 20


def check_nothing_is_torn(store: str, path: Path) -> None:
    """Before anything is mended: a reader sees each document whole, or not at all."""
    with Index.open("test", store=store, path=path) as index:
        if index.spec is None:
            return
        for record in index.records():
            found = index.chunks(record.doc_id)
            # LanceDB turns to the new revision when its chunks are committed, a moment before the record does.
            states = [(record.revision, record.n_chunks if record.revision else 0)]
            states += [(record.pending.revision, record.pending.n_chunks)] if record.pending else []
            assert any(
                len(found) == count and {chunk.revision for chunk in found} <= {revision} for revision, count in states
            )
