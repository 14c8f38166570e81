"""The best of every query: what sorting everything by score and name gives."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxindex.evaluation.ranking import best, by_document, rank_of, tie_order

NAMES = st.lists(st.text("ab_109é🙂\ue000", min_size=1, max_size=5), min_size=1, max_size=30, unique=True)
SCORES = st.sampled_from([-np.inf, -1.5, -0.0, 0.0, 1.0, 2.0, 3.0000002])


def matrix(draw: st.DrawFn, items: int, rows: int) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    row = st.lists(SCORES, min_size=items, max_size=items)
    return np.array(draw(st.lists(row, min_size=rows, max_size=rows)), dtype=np.float32).reshape(rows, items)


@st.composite
def ranked(draw: st.DrawFn) -> tuple[list[str], np.ndarray[tuple[int, int], np.dtype[np.float32]]]:
    names = draw(NAMES)
    return names, matrix(draw, len(names), draw(st.integers(1, 3)))


def sorted_plainly(names: Sequence[str], scores: Sequence[float]) -> list[int]:
    """Everything that was found: by score, and of equal ones the name that sorts last first."""
    found = [number for number in range(len(names)) if scores[number] != -np.inf]
    return sorted(sorted(found, key=lambda number: names[number], reverse=True), key=lambda number: -scores[number])


@given(given=ranked(), depth=st.integers(1, 40))
def test_the_best_are_those_of_a_plain_sort(
    given: tuple[list[str], np.ndarray[tuple[int, int], np.dtype[np.float32]]], depth: int
) -> None:
    names, scores = given
    numbers, values = best(scores, tie_order(names), depth)
    assert numbers.shape == values.shape == (len(scores), depth)
    assert (numbers.dtype, values.dtype) == (np.int64, np.float32)
    for row, plain in enumerate(scores.tolist()):
        expected = sorted_plainly(names, plain)[:depth]
        assert numbers[row].tolist() == expected + [-1] * (depth - len(expected))
        assert values[row].tolist() == [plain[number] for number in expected] + [-np.inf] * (depth - len(expected))


@given(given=ranked(), data=st.data())
def test_a_rank_is_the_place_in_the_whole_list(
    given: tuple[list[str], np.ndarray[tuple[int, int], np.dtype[np.float32]]], data: st.DataObject
) -> None:
    names, scores = given
    gold = data.draw(st.lists(st.integers(0, len(names) - 1), max_size=4))
    whole = sorted_plainly(names, scores[0].tolist())
    places = [whole.index(number) + 1 for number in gold if number in whole]
    assert rank_of(scores[0], tie_order(names), gold) == min(places, default=0)


@given(data=st.data(), lengths=st.lists(st.integers(1, 5), min_size=1, max_size=6))
def test_a_document_scores_as_its_best_chunk(data: st.DataObject, lengths: list[int]) -> None:
    scores = matrix(data.draw, sum(lengths), 2)
    starts = np.cumsum([0, *lengths])
    expected = [
        [max(row[starts[number] : starts[number + 1]]) for number in range(len(lengths))] for row in scores.tolist()
    ]
    assert by_document(scores, starts).tolist() == expected


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_of_equal_scores_the_name_that_sorts_last_is_first(depth: int) -> None:
    names = ["a_2", "a_10", "a_1"]
    numbers, _ = best(np.zeros((1, 3), dtype=np.float32), tie_order(names), depth)
    assert numbers[0].tolist() == [0, 1, 2][:depth]
    assert [rank_of(np.zeros(3, dtype=np.float32), tie_order(names), [number]) for number in range(3)] == [1, 2, 3]


def test_nothing_to_rank_gives_nothing() -> None:
    numbers, values = best(np.zeros((2, 0), dtype=np.float32), tie_order([]), 3)
    assert numbers.tolist() == [[-1] * 3] * 2
    assert (values == -np.inf).all()
    assert rank_of(np.array([-np.inf], dtype=np.float32), tie_order(["a"]), [0]) == 0
    assert rank_of(np.array([1.0], dtype=np.float32), tie_order(["a"]), []) == 0
