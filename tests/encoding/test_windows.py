from __future__ import annotations

from itertools import accumulate, pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ctxindex.encoding.windows import Span, WindowPlan, cut_pieces, plan_windows, token_windows

ROOMS = st.integers(min_value=4, max_value=64)


def joined(lengths: list[int]) -> list[Span]:
    """Pieces with one separator between any two."""
    ends = list(accumulate(length + 1 for length in lengths))
    return [(end - length - 1, end - 1) for length, end in zip(lengths, ends, strict=True)]


@st.composite
def pieces(draw: st.DrawFn) -> tuple[list[Span], int, int, int]:
    """Spans, total, room, overlap: joined by separators."""
    room = draw(ROOMS)
    lengths = draw(st.lists(st.integers(min_value=1, max_value=room - 1), min_size=1, max_size=40))
    return joined(lengths), sum(lengths) + len(lengths) - 1, room, draw(st.integers(min_value=0, max_value=12))


@st.composite
def scattered(draw: st.DrawFn) -> tuple[list[Span], int, int, int]:
    """Spans, total, room, overlap: with gaps, overlaps, and chunks in one another."""
    room = draw(ROOMS)
    steps = draw(st.lists(st.tuples(st.integers(0, 90), st.integers(1, room - 1)), min_size=1, max_size=40))
    starts = list(accumulate(step for step, _ in steps))
    spans = [(start, start + length) for start, (_, length) in zip(starts, steps, strict=True)]
    total = max(end for _, end in spans) + draw(st.integers(0, 90))
    return spans, total, room, draw(st.integers(min_value=0, max_value=12))


CASES = st.one_of(pieces(), scattered())
OWNERS = st.sampled_from(["centre", "first", "mean"])


@given(CASES, OWNERS)
def test_every_piece_is_owned_once_in_order(case: tuple[list[Span], int, int, int], owner: Any) -> None:
    spans, total, room, overlap = case
    plans = plan_windows(spans, total, room, overlap, owner=owner)
    owned = [piece for plan in plans for piece in range(plan.own_first, plan.own_last)]
    if owner == "mean":
        assert set(owned) == set(range(len(spans)))
    else:
        assert owned == list(range(len(spans)))
    assert all(plan.first <= plan.own_first < plan.own_last <= plan.last for plan in plans)


@given(CASES, OWNERS)
def test_no_window_is_larger_than_the_room_and_all_show_what_they_hold(
    case: tuple[list[Span], int, int, int], owner: Any
) -> None:
    spans, total, room, overlap = case
    for plan in plan_windows(spans, total, room, overlap, owner=owner):
        assert plan.end - plan.start + 1 <= room
        assert 0 <= plan.start <= plan.end <= total
        assert all(plan.start <= start and end <= plan.end for start, end in spans[plan.first : plan.last])


@given(CASES)
def test_neighbouring_windows_share_at_most_the_overlap_and_a_quarter(case: tuple[list[Span], int, int, int]) -> None:
    spans, total, room, overlap = case
    for before, after in pairwise(plan_windows(spans, total, room, overlap, owner="mean")):
        shared = range(after.first, before.last)
        assert len(shared) <= overlap
        assert not shared or spans[before.last][0] - spans[after.first][0] <= room // 4
        assert after.last > before.last, "every window brings something new"


@given(CASES)
def test_with_the_owner_centre_every_piece_sees_as_much_as_asked_for_or_all_there_is(
    case: tuple[list[Span], int, int, int],
) -> None:
    spans, total, room, overlap = case
    plans = plan_windows(spans, total, room, overlap)
    for plan in plans:
        start = spans[plan.first][0]
        end = max(end for _, end in spans[plan.first : plan.last])
        left, right = start - plan.start, plan.end - end
        assert (plan.first, plan.last) == (plan.own_first, plan.own_last)
        assert left <= overlap or len(plans) == 1
        assert right <= overlap or len(plans) == 1
        free = room - 1 - (plan.end - plan.start)
        whole = left >= min(overlap, start) and right >= min(overlap, total - end)
        assert whole or free == 0
        assert whole or plan.last - plan.first == 1, "only a piece that fills its window is left with less"


@given(pieces())
def test_no_other_window_shows_a_piece_with_more_on_its_weaker_side(case: tuple[list[Span], int, int, int]) -> None:
    spans, total, room, overlap = case
    plans = plan_windows(spans, total, room, overlap)
    if any(end - start > room - 1 - 2 * overlap for start, end in spans):
        return  # such a piece has less context than was asked for
    for owner in plans:
        for start, end in spans[owner.own_first : owner.own_last]:
            least = min(start - owner.start, owner.end - end)
            for plan in plans:
                if plan.start <= start and end <= plan.end and owner.start > 0 and owner.end < total:
                    assert min(start - plan.start, plan.end - end) <= least


@given(CASES)
def test_what_fits_is_one_window(case: tuple[list[Span], int, int, int]) -> None:
    spans, total, room, overlap = case
    whole = [WindowPlan(0, len(spans), 0, len(spans), 0, total)]
    assert (plan_windows(spans, total, room, overlap) == whole) == (total + 1 <= room)
    assert plan_windows(spans, total, total + 1, overlap) == whole


@given(CASES)
def test_context_takes_at_most_a_quarter_a_side_and_free_room_is_used_up_to_it(
    case: tuple[list[Span], int, int, int],
) -> None:
    spans, total, room, overlap = case
    plans = plan_windows(spans, total, room, overlap, owner="mean")
    for number, plan in enumerate(plans):
        if len(plans) == 1:
            break
        start = spans[plan.first][0]
        end = max(end for _, end in spans[plan.first : plan.last])
        new = spans[plans[number - 1].last][0] if number else start
        shared = number + 1 < len(plans) and plans[number + 1].first < plan.last
        again = spans[plans[number + 1].first][0] if shared else end
        left, right = new - plan.start, plan.end - min(end, again)
        filled_left, filled_right = start - plan.start, plan.end - end
        assert left <= room // 4 or filled_left == 0
        assert right <= room // 4 or filled_right == 0
        free = room - 1 - (plan.end - plan.start)
        done_left = left >= room // 4 or plan.start == 0
        done_right = right >= room // 4 or plan.end == total
        assert free == 0 or (done_left and done_right)


def test_windows_own_their_pieces_and_read_a_little_beyond_them() -> None:
    # Room for 79 tokens: seven pieces of nine with their separators are 69 tokens, and ten are kept free for context.
    first, second = plan_windows(joined([9] * 12), 119, 80, 10)
    assert (first.first, first.last, second.first, second.last) == (0, 7, 7, 12)
    assert (first.start, first.end) == (0, 69 + 10)
    assert (second.start, second.end) == (70 - 10, 119), "and no longer than it needs to be"


def test_windows_that_share_pieces() -> None:
    # Eight pieces of nine tokens are in a window of 80; a quarter of it is room for two shared pieces.
    spans = joined([9] * 12)
    first, second = plan_windows(spans, 119, 80, 10, owner="first")
    assert (first.own_first, first.own_last, second.own_first, second.own_last) == (0, 8, 8, 12)
    assert (first.first, first.last, second.first, second.last) == (0, 8, 6, 12)
    assert [plan.own_first for plan in plan_windows(spans, 119, 80, 10, owner="mean")] == [0, 6]


def test_a_last_window_is_as_short_as_it_can_be() -> None:
    plans = plan_windows(joined([9] * 11), 109, 80, 10, owner="mean")
    assert [(plan.first, plan.last) for plan in plans] == [(0, 8), (6, 11)]
    # Room for 79 tokens, of which 20 are shared and 30 are new: nothing is added to the 20 that make a quarter.
    assert (plans[-1].start, plans[-1].end) == (60, 109)
    alone = plan_windows(joined([60, 9]), 70, 64, 0, owner="first")
    assert (alone[-1].start, alone[-1].end) == (70 - 9 - 16, 70), "one small chunk and a quarter before it"


def test_a_piece_that_fills_its_window_shares_out_what_is_left() -> None:
    middle = plan_windows(joined([100, 100, 100]), 302, 160, 40)[1]
    assert (middle.first, middle.last) == (1, 2)
    # 59 tokens are free: a separator and 28 tokens before, a separator and 29 after.
    assert (101 - middle.start, middle.end - 201) == (29, 30)


def test_a_window_may_begin_with_more_than_the_first() -> None:
    plans = plan_windows(joined([10] * 30), 329, 100, 10, later_room=60)
    assert (plans[0].last, plans[0].end - plans[0].start) == (8, 97)
    assert all(plan.end - plan.start < 60 for plan in plans[1:])


@given(st.lists(st.integers(min_value=1, max_value=300), min_size=1, max_size=20), st.integers(3, 64))
@example([1], 3)
def test_pieces_cover_every_chunk_and_fit(lengths: list[int], capacity: int) -> None:
    spans = joined(lengths)
    found = cut_pieces(spans, capacity)
    assert all(0 < piece.length <= capacity for piece in found)
    covered = [(piece.chunk, token) for piece in found for token in range(piece.start, piece.end)]
    assert covered == [(chunk, token) for chunk, span in enumerate(spans) for token in range(*span)]
    whole = [piece.chunk for piece in found if piece.length == lengths[piece.chunk]]
    assert set(whole) == {chunk for chunk, length in enumerate(lengths) if length <= capacity}


@given(st.integers(1, 400), st.integers(1, 90), st.data())
def test_windows_of_tokens_keep_one_state_a_token(total: int, size: int, data: st.DataObject) -> None:
    overlap = data.draw(st.integers(0, size - 1))
    windows = token_windows(total, size, overlap)
    assert [token for _, kept, end in windows for token in range(kept, end)] == list(range(total))
    assert all(end - start <= size for start, _, end in windows)
    for number, (start, kept, _) in enumerate(windows):
        assert start == number * (size - overlap)
        assert kept - start == (overlap if number else 0), "every later window loses its first states"


@pytest.mark.parametrize(("total", "count"), [(10, 1), (11, 2), (16, 2), (17, 3)])
def test_a_tail_that_adds_nothing_is_no_window(total: int, count: int) -> None:
    assert len(token_windows(total, 10, 4)) == count
