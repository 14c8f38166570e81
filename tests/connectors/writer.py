"""Run as a process of its own: writes documents without end and says what is done. Killed by the tests.

    python writer.py STORE FOLDER MODE

MODE `grow` writes batches of new and changed documents; after each it prints `batch revision`. MODE `flip` rewrites
the same few documents. MODE `hold` opens the index and waits.
"""

from __future__ import annotations

import itertools
import sys
import time
from pathlib import Path

from ctxindex.stores import open_store
from ctxindex.stores.conformance.samples import DIM, document
from ctxindex.types import DocumentRevision, VectorLayout

BATCH = 16


def n_chunks(revision: str) -> int:
    return 5 + 7 * (int(revision[1:]) % 2)


def batch_of(number: int, revision: str) -> list[DocumentRevision]:
    return [document(f"{number}/{each}", revision, n_chunks(revision)) for each in range(BATCH)]


def main(uri: str, folder: str, mode: str) -> None:
    store = open_store(uri, index="docs", path=Path(folder))
    if store.read_spec() is None:
        store.create({"made": "by writer"}, VectorLayout(DIM))
    print("ready", flush=True)  # noqa: T201
    if mode == "hold":
        time.sleep(60)
    for step in itertools.count():
        number, revision = (step % 2, f"r{step // 2}") if mode == "flip" else (step // 2, f"r{step % 2}")
        store.replace(batch_of(number, revision))
        print(number, revision, flush=True)  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
