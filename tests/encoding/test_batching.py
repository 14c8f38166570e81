from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxindex.encoding.batching import cut_batches, prefetch


@dataclass(frozen=True)
class Row:
    length: int


@given(st.lists(st.integers(1, 50).map(Row)), st.integers(1, 120))
def test_batches_hold_everything_within_the_padded_budget(rows: list[Row], budget: int) -> None:
    batches = cut_batches(rows, budget)
    assert sorted(row.length for batch in batches for row in batch) == sorted(row.length for row in rows)
    assert all(len(batch) == 1 or len(batch) * max(row.length for row in batch) <= budget for batch in batches)
    firsts = [batch[0].length for batch in batches]
    assert firsts == sorted(firsts, reverse=True), "longest first, so that running out of memory shows at once"


@given(st.lists(st.integers()), st.integers(1, 5))
def test_prefetching_changes_nothing(items: list[int], limit: int) -> None:
    with prefetch(items, lambda _: 1, limit) as ahead:
        assert list(ahead) == items


def test_prefetching_stays_within_its_limit() -> None:
    produced: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(100):
            produced.append(number)
            yield number

    with prefetch(numbers(), lambda _: 10, limit=30) as ahead:
        assert next(ahead) == 0
        deadline = time.monotonic() + 5
        while len(produced) < 5 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.05)
        assert len(produced) == 5  # one read, three waiting, one in the hand of the thread


def test_an_error_arrives_where_the_item_would_have() -> None:
    def numbers() -> Iterator[int]:
        yield 1
        raise ValueError("no more")

    with prefetch(numbers(), lambda _: 1, 10) as ahead:
        assert next(ahead) == 1
        with pytest.raises(ValueError, match="no more"):
            next(ahead)


def test_leaving_early_ends_the_thread_and_closes_the_source() -> None:
    closed = threading.Event()

    def numbers() -> Iterator[int]:
        try:
            yield from range(1000)
        finally:
            closed.set()

    before = threading.active_count()
    with prefetch(numbers(), lambda _: 1, 2) as ahead:
        next(ahead)
    assert closed.is_set()
    assert threading.active_count() == before
