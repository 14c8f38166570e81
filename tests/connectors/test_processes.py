"""What only real processes show: SIGKILL, locks, readers beside writers."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from ctxindex.errors import StoreError
from ctxindex.stores import Counts, open_store
from ctxindex.stores.conformance.samples import assert_same_chunks, unit_vectors
from ctxindex.stores.protocol import Store
from tests.connectors.processes import writing
from tests.connectors.writer import BATCH, batch_of, n_chunks


def assert_whole(store: Store, numbers: range) -> None:
    """Each document shows all chunks of one revision, and search agrees."""
    hits = store.search(unit_vectors(1)[0], 100_000)
    seen: dict[str, set[str]] = {}
    for hit in hits:
        seen.setdefault(hit.doc_id, set()).add(hit.chunk_id)
    for number in numbers:
        for each in range(BATCH):
            chunks = store.chunks(f"{number}/{each}")
            assert {chunk.chunk_id for chunk in chunks} == seen.get(f"{number}/{each}", set())
            if chunks:
                assert {chunk.revision for chunk in chunks} == {chunks[0].revision}
                assert len(chunks) == n_chunks(chunks[0].revision)


@pytest.mark.parametrize("round_", range(3))
@pytest.mark.parametrize("uri", ["lancedb", "qdrant"])
def test_what_was_acknowledged_survives_sigkill(uri: str, round_: int, tmp_path: Path) -> None:
    pause = random.Random(f"{uri}{round_}").uniform(0.0, 0.03)
    acknowledged: dict[int, str] = {}

    def acknowledge(line: str) -> None:
        number, revision = line.split()
        acknowledged[int(number)] = revision

    with writing(uri, tmp_path, "grow") as (process, output):
        for _ in range(6 + 5 * round_):
            acknowledge(output.readline())
        time.sleep(pause)
        process.kill()
        for line in output:  # what it said before it died
            acknowledge(line)
    store = open_store(uri, index="docs", path=tmp_path)
    assert store.read_spec() == {"made": "by writer"}
    last = max(acknowledged) + 1  # the batch after may be there or not
    assert_whole(store, range(last + 1))
    rolled_back = store.recover()
    assert_whole(store, range(last + 1))
    assert all(record.pending is None for record in store.records())
    for number, revision in acknowledged.items():
        for each in batch_of(number, revision):
            found = store.chunks(each.record.doc_id, vectors=True)
            if found[0].revision == revision:
                assert_same_chunks(found, each.chunks)
            else:  # the change of the last batch was done, but not yet acknowledged
                assert number == max(acknowledged)
                assert revision == "r0"
    live = [record for record in store.records() if record.revision]
    assert store.counts() == Counts(len(live), sum(n_chunks(record.revision) for record in live), 0)
    assert len(store.search(unit_vectors(1)[0], 100_000)) == store.counts().chunks
    assert len(rolled_back) <= BATCH
    store.close()


def test_lance_reader_follows_a_writer_in_another_process(tmp_path: Path) -> None:
    with writing("lancedb", tmp_path, "flip") as (_, output):
        for _ in range(4):
            output.readline()
        reader = open_store("lancedb", index="docs", path=tmp_path)
        revisions: set[str] = set()
        end = time.monotonic() + 2
        while time.monotonic() < (end if len(revisions) > 1 else end + 58):  # on a busy machine writers take longer
            chunks = reader.chunks("0/3")
            revisions.add(chunks[0].revision)
            assert len(chunks) == n_chunks(chunks[0].revision)
            per_document: dict[str, set[str]] = {}
            hits = reader.search(unit_vectors(1)[0], 10_000)
            for hit in hits:
                per_document.setdefault(hit.doc_id, set()).add(hit.revision)
            assert len(per_document) == 2 * BATCH
            assert all(len(seen) == 1 for seen in per_document.values())
            assert len(hits) == sum(n_chunks(seen.copy().pop()) for seen in per_document.values())
        assert len(revisions) > 1
        reader.close()


def test_edge_says_that_another_process_has_it(tmp_path: Path) -> None:
    with writing("qdrant", tmp_path, "hold"):
        with pytest.raises(StoreError, match=r"is open elsewhere, in another process"):
            open_store("qdrant", index="docs", path=tmp_path)
        open_store("qdrant", index="other", path=tmp_path).close()
    store = open_store("qdrant", index="docs", path=tmp_path)
    assert store.counts() == Counts(0, 0, 0)
    store.close()
