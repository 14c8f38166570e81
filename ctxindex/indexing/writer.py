"""The end of the street: finished documents are replaced in the store, in batches, in a thread of its own.

A batch goes out when it is large, or when its first document has waited a few seconds: many small commits cost far more
than one, and what waits here is what a crash would cost. An error in the store is raised to whoever puts the next
document.
"""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import TypeAlias

from ctxindex.encoding.batching import Buffer
from ctxindex.metering import Meter
from ctxindex.stores import Store
from ctxindex.types import DocumentRecord, DocumentRevision

_CHUNKS = 2048
_NUMBERS = 4096
"""Numbers of vectors that count as a chunk: a batch has 32 MB of them at most, in whatever form they come."""

_DOCUMENTS = 256
_SECONDS = 5.0
_QUEUED = 4096
"""Chunks that wait for the store before the model has to."""

_NOTHING = object()

Item: TypeAlias = DocumentRevision | DocumentRecord
"""A document to replace, or a record to put (of a document that failed)."""


class Writer:
    """A context: what is put inside is in the store when the context ends, also when it ends with an exception."""

    def __init__(self, store: Store, meter: Meter) -> None:
        self._store = store
        self._meter = meter
        self._queue = Buffer(_QUEUED)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="ctxindex-writer", daemon=True)

    def __enter__(self) -> Writer:
        self._thread.start()
        return self

    def put(self, item: Item) -> None:
        """Queue a document or record; waits while the store is behind.

        Raises:
            StoreError: an earlier batch could not be written.
        """
        self._raise()
        self._queue.put(item, _weight(item))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._queue.put(None, 0)
        self._thread.join()
        if error is None:
            self._raise()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        batch: list[Item] = []
        since = 0.0
        ended = False
        while not ended:
            try:
                item = self._queue.get(max(0.0, since + _SECONDS - time.monotonic()) if batch else None)
            except TimeoutError:
                item = _NOTHING
            ended = item is None
            if isinstance(item, DocumentRevision | DocumentRecord):
                since = since if batch else time.monotonic()
                batch.append(item)
            if batch and (ended or _full(batch) or time.monotonic() - since >= _SECONDS):
                self._write(batch)
                batch = []

    def _write(self, batch: list[Item]) -> None:
        if self._error is not None:
            return  # the run is over; what is left was not written, and the next run does it again
        try:
            with self._meter.time("write"):
                self._store.replace([item for item in batch if isinstance(item, DocumentRevision)])
                self._store.put_records([item for item in batch if isinstance(item, DocumentRecord)])
        except BaseException as error:  # handed to the thread that puts
            self._error = error


def _full(batch: list[Item]) -> bool:
    return sum(map(_weight, batch)) >= _CHUNKS or len(batch) >= _DOCUMENTS


def _weight(item: Item) -> int:
    """How many chunks the item counts as: a chunk with a large multivector counts as several."""
    if isinstance(item, DocumentRecord):
        return 0
    numbers = sum(chunk.vector.size for chunk in item.chunks if chunk.vector is not None)
    return max(len(item.chunks), numbers // _NUMBERS)
