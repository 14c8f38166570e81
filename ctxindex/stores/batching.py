"""Batches bounded by bytes and by count, for databases that limit a request. Knows nothing of what is in them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def batches(items: Iterable[T], *, max_items: int, max_bytes: int, size: Callable[[T], int]) -> Iterator[list[T]]:
    """Cut `items` into lists of at most `max_items` whose sizes sum to at most `max_bytes`; order is kept.

    An item that is larger than `max_bytes` goes alone: the database has the last word on it. `size` gives bytes.

    Raises:
        ValueError: a limit is below 1.
    """
    if max_items < 1 or max_bytes < 1:
        raise ValueError("a batch must have room for one item and one byte")
    batch: list[T] = []
    used = 0
    for item in items:
        cost = size(item)
        if batch and (len(batch) == max_items or used + cost > max_bytes):
            yield batch
            batch, used = [], 0
        batch.append(item)
        used += cost
    if batch:
        yield batch
