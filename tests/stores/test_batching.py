from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxindex.stores.batching import batches


@given(st.lists(st.integers(0, 50)), st.integers(1, 7), st.integers(1, 60))
def test_batches_keep_order_and_limits_and_are_not_needlessly_small(
    sizes: list[int], max_items: int, max_bytes: int
) -> None:
    items = list(enumerate(sizes))
    found = list(batches(items, max_items=max_items, max_bytes=max_bytes, size=lambda item: item[1]))
    assert [item for batch in found for item in batch] == items
    for batch in found:
        assert 1 <= len(batch) <= max_items
        assert len(batch) == 1 or sum(size for _, size in batch) <= max_bytes
    for batch, following in itertools.pairwise(found):
        full = len(batch) == max_items
        assert full or sum(size for _, size in batch) + following[0][1] > max_bytes


def test_oversized_item_goes_alone() -> None:
    assert list(batches(["a", "bb" * 9, "c"], max_items=9, max_bytes=4, size=len)) == [["a"], ["bb" * 9], ["c"]]


def test_items_are_taken_as_they_come() -> None:
    taken = []

    def source() -> Iterator[int]:
        for number in range(10):
            taken.append(number)
            yield number

    next(batches(source(), max_items=2, max_bytes=99, size=lambda _: 1))
    assert len(taken) == 3


@pytest.mark.parametrize(("max_items", "max_bytes"), [(0, 1), (1, 0)])
def test_limits_below_one_are_refused(max_items: int, max_bytes: int) -> None:
    with pytest.raises(ValueError, match="room"):
        list(batches([1], max_items=max_items, max_bytes=max_bytes, size=lambda _: 1))
