"""Readings that are joined and split: whatever rows chunks stand in, nothing that is pooled is lost or moved."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ctxindex.encoding.rows import Place, Row
from ctxindex.training.readings import Reading, join, split


@st.composite
def readings(draw: st.DrawFn) -> Reading:
    """Windows in which chunks stand one behind the other, some in parts and some in two windows; in any order."""
    flags = st.booleans()
    items = draw(st.integers(1, 8))
    windows: list[list[int]] = [[]]
    for chunk in range(items):
        begins, goes_on = draw(flags), draw(flags)  # a window, and with the last chunk of the one before
        if windows[-1] and begins:
            windows.append([windows[-1][-1]] if goes_on else [])
        windows[-1].append(chunk)
    rows = []
    for number, chunks in enumerate(windows):
        lengths = [draw(st.integers(1, 3)) for _ in chunks]
        ends = np.cumsum([1, *lengths]).tolist()
        places = [Place(chunk, start, end) for chunk, start, end in zip(chunks, ends, ends[1:], strict=False)]
        ids = np.full(ends[-1] + 1, number, dtype=np.int32)
        rows.append(Row(ids, tuple(places), sum(lengths), (0,) * len(places)))
    return Reading(tuple(draw(st.permutations(rows))), items)


def pooled(reading: Reading) -> set[tuple[int, int, int, int]]:
    """What is pooled: the window (its ids are all its number), and the chunk with its positions there."""
    return {(int(row.ids[0]), one.chunk, one.start, one.end) for row in reading.rows for one in row.places}


@given(readings())
def test_parts_joined_again_read_the_same(whole: Reading) -> None:
    parts = split(whole)
    again = join(parts)
    assert pooled(again) == pooled(whole)
    assert (again.items, again.tokens, again.lengths) == (whole.items, whole.tokens, whole.lengths)


@given(readings())
def test_a_part_is_no_larger_than_its_chunks_need(whole: Reading) -> None:
    for part in split(whole):
        assert {place.chunk for row in part.rows for place in row.places} == set(range(part.items))
        assert split(part) == [part]


@given(st.lists(readings(), min_size=1, max_size=4))
def test_items_of_a_reading_are_numbered_behind_those_before_it(several: list[Reading]) -> None:
    joined = join(several)
    assert joined.lengths == tuple(length for one in several for length in one.lengths)
    assert joined.tokens == sum(one.tokens for one in several)


def test_nothing_is_split_of_nothing() -> None:
    assert split(Reading((), 0)) == [Reading((), 0)]
    assert join([]) == Reading((), 0)
