from __future__ import annotations

from itertools import pairwise

from hypothesis import example, given
from hypothesis import strategies as st

from ctxindex.encoding.windows import WindowPlan, cut_pieces, plan_windows

ROOMS = st.integers(min_value=4, max_value=64)


@st.composite
def pieces(draw: st.DrawFn) -> tuple[list[int], int, int]:
    room = draw(ROOMS)
    lengths = draw(st.lists(st.integers(min_value=1, max_value=room - 1), min_size=1, max_size=40))
    return lengths, room, draw(st.integers(min_value=0, max_value=12))


def size(lengths: list[int], plan: WindowPlan) -> int:
    """Tokens behind CLS and prefix, counted from what a window shows and not from how it was planned."""
    total = sum(length + 1 for length in lengths[plan.first : plan.last])
    for context, neighbours in (
        (plan.left, reversed(lengths[: plan.first])),
        (plan.right, lengths[plan.last :]),
    ):
        left = context
        for length in neighbours:
            if left <= 0:
                break
            total += min(left, length) + 1
            left -= length
        assert left <= 0, "context beyond the document"
    return total


@given(pieces())
def test_every_piece_is_owned_once_in_order(case: tuple[list[int], int, int]) -> None:
    lengths, room, overlap = case
    plans = plan_windows(lengths, room, overlap)
    owned = [piece for plan in plans for piece in range(plan.own_first, plan.own_last)]
    assert owned == list(range(len(lengths)))
    assert all(plan.first <= plan.own_first < plan.own_last <= plan.last for plan in plans)


@given(pieces())
def test_no_window_is_larger_than_the_room(case: tuple[list[int], int, int]) -> None:
    lengths, room, overlap = case
    assert all(size(lengths, plan) <= room for plan in plan_windows(lengths, room, overlap))


@given(pieces())
def test_neighbouring_windows_share_at_most_the_overlap_and_a_quarter(case: tuple[list[int], int, int]) -> None:
    lengths, room, overlap = case
    for before, after in pairwise(plan_windows(lengths, room, overlap)):
        shared = range(after.first, before.last)
        assert len(shared) <= overlap
        assert sum(lengths[piece] + 1 for piece in shared) <= room // 4
        assert after.last > before.last, "every window brings something new"


@given(pieces())
def test_what_fits_is_one_window(case: tuple[list[int], int, int]) -> None:
    lengths, room, overlap = case
    total = sum(length + 1 for length in lengths)
    plans = plan_windows(lengths, room, overlap)
    assert (len(plans) == 1) == (total <= room)
    assert plan_windows(lengths, total, overlap) == [WindowPlan(0, len(lengths), 0, len(lengths))]


@given(pieces())
def test_free_room_is_used_while_there_is_text_for_it(case: tuple[list[int], int, int]) -> None:
    lengths, room, overlap = case
    for plan in plan_windows(lengths, room, overlap):
        free = room - size(lengths, plan)
        everything = plan.left == sum(lengths[: plan.first]) and plan.right == sum(lengths[plan.last :])
        # Up to one separator a side can be too dear: a new neighbour costs two tokens for the first of its own.
        assert everything or free <= 2


def test_a_shared_piece_belongs_to_the_window_with_more_context_on_its_weaker_side() -> None:
    # Ten pieces of 9 tokens, 8 of them in a window of 80; a quarter of it is room for two shared pieces.
    plans = plan_windows([9] * 10, 80, 10)
    assert [(plan.first, plan.last) for plan in plans] == [(0, 8), (6, 10)]
    # Piece 6 has 54 tokens before it and 9 after in the first window, and in the second 27 after but fewer before.
    first, second = plans
    sides = {
        "first": (6 * 9, 9 + first.right),
        "second": (second.left, 27),
    }
    assert min(sides["second"]) > min(sides["first"])
    assert (second.own_first, first.own_last) == (6, 6)


def test_neighbours_that_do_not_fit_whole_show_their_nearest_tokens() -> None:
    middle = plan_windows([100, 100, 100], 160, 10)[1]
    assert (middle.first, middle.last) == (1, 2)
    assert (middle.left, middle.right) == (28, 29)


@given(st.lists(st.integers(min_value=1, max_value=300), min_size=1, max_size=20), st.integers(3, 64))
@example([1], 3)
def test_pieces_cover_every_chunk_and_fit(lengths: list[int], capacity: int) -> None:
    found = cut_pieces(lengths, capacity)
    assert all(0 < piece.length <= capacity for piece in found)
    covered = [(piece.chunk, token) for piece in found for token in range(piece.start, piece.end)]
    assert covered == [(chunk, token) for chunk, length in enumerate(lengths) for token in range(length)]
    whole = [piece.chunk for piece in found if piece.length == lengths[piece.chunk]]
    assert set(whole) == {chunk for chunk, length in enumerate(lengths) if length <= capacity}
