"""Windows of many documents -> batches with little padding, in bounded memory.

Windows are collected until a *pool* of them is full, sorted by length, longest first, and cut into batches of at most
`budget` tokens, padding included (rows x longest row). Longest first, so that running out of memory shows at once.
Meanwhile a thread of its own loads, chunks and tokenises what comes next (`prefetch`), so that the forward pass need
not wait.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, TypeVar

_PATIENCE = 1.0
"""Seconds to wait for a reader that was told to stop. It writes nothing, so one busy with a long text may be left."""

Item = TypeVar("Item")


class HasLength(Protocol):
    """Something a batch is made of."""

    @property
    def length(self) -> int:
        """Tokens, special tokens included."""
        ...


Window = TypeVar("Window", bound=HasLength)


def cut_batches(windows: Sequence[Window], budget: int) -> list[list[Window]]:
    """Batches of windows, longest first; in each, rows x longest row <= `budget`, or it is a single window.

    Equal lengths keep their order, so that the batches of a pool are a function of the pool alone.
    """
    batches: list[list[Window]] = []
    for window in sorted(windows, key=lambda window: -window.length):
        if batches and (len(batches[-1]) + 1) * batches[-1][0].length <= budget:
            batches[-1].append(window)
        else:
            batches.append([window])
    return batches


class Buffer:
    """A queue between two threads that is full by weight, not by number."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0
        self._items: deque[tuple[int, object]] = deque()
        self._changed = threading.Condition()
        self._closed = False

    def put(self, item: object, weight: int) -> bool:
        """Wait for room and add; False where nobody takes any more. An item of any weight goes into an empty buffer."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or not self._items or self._held + weight <= self._limit)
            if self._closed:
                return False
            self._items.append((weight, item))
            self._held += weight
            self._changed.notify_all()
            return True

    def get(self, timeout: float | None = None) -> object:
        """Wait for an item and take it.

        Raises:
            TimeoutError: none has come within `timeout` seconds.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: bool(self._items), timeout):
                raise TimeoutError
            weight, item = self._items.popleft()
            self._held -= weight
            self._changed.notify_all()
            return item

    def close(self) -> None:
        """Let whoever waits to put go on, and take nothing more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class _End:
    def __init__(self, error: BaseException | None) -> None:
        self.error = error


@contextmanager
def prefetch(items: Iterable[Item], weight: Callable[[Item], int], limit: int) -> Generator[Iterator[Item]]:
    """Iterate over `items` in a thread of its own, at most `limit` of weight ahead of the reader.

    An error in `items` is raised where the reader would have got the next item. Leaving the context ends the thread,
    with its next item at the latest, and closes `items`, which is left to the thread alone.
    """
    buffer = Buffer(limit)

    def produce() -> None:
        error: BaseException | None = None
        try:
            for item in items:
                if not buffer.put(item, weight(item)):
                    return
        except BaseException as caught:  # handed on to the reader, whatever it is
            error = caught
        finally:
            close = getattr(items, "close", None)
            if close is not None:
                close()
        buffer.put(_End(error), 0)

    def consume() -> Iterator[Item]:
        while True:
            item = buffer.get()
            if isinstance(item, _End):
                if item.error is not None:
                    raise item.error
                return
            yield item  # type: ignore[misc]  # what went in as Item comes out as Item

    thread = threading.Thread(target=produce, name="ctxindex-prefetch", daemon=True)
    thread.start()
    try:
        yield consume()
    finally:
        buffer.close()
        thread.join(_PATIENCE)
