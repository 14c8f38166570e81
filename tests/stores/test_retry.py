from __future__ import annotations

from collections.abc import Callable

import pytest

from ctxindex.stores.retry import Backoff, retrying


class Busy(Exception):
    def __init__(self, after: float | None = None) -> None:
        self.after = after


def failing(*errors: Exception) -> tuple[Callable[[], str], list[int]]:
    left, calls = list(errors), [0]

    def call() -> str:
        calls[0] += 1
        if left:
            raise left.pop(0)
        return "done"

    return call, calls


def is_busy(error: Exception) -> bool:
    return isinstance(error, Busy)


def test_waits_grow_up_to_a_ceiling() -> None:
    waits: list[float] = []
    call, _ = failing(*[Busy()] * 5)
    plan = Backoff(tries=6, first=1, factor=2, longest=5)
    assert retrying(call, retryable=is_busy, backoff=plan, sleep=waits.append, draw=lambda: 1.0) == "done"
    assert waits == [1, 2, 4, 5, 5]


@pytest.mark.parametrize(("draw", "seconds"), [(0.0, 1.0), (0.5, 1.5), (1.0, 2.0)])
def test_jitter_takes_up_to_half(draw: float, seconds: float) -> None:
    assert Backoff(first=2).wait(1, None, draw) == seconds


def test_tries_are_bounded_and_the_last_error_comes_out() -> None:
    call, calls = failing(*[Busy(number) for number in range(9)])
    with pytest.raises(Busy) as caught:
        retrying(call, retryable=is_busy, backoff=Backoff(tries=3), sleep=lambda _: None)
    assert calls == [3]
    assert caught.value.after == 2


def test_other_errors_come_out_at_once() -> None:
    call, calls = failing(Busy(), ValueError("no"), Busy())
    with pytest.raises(ValueError, match="no"):
        retrying(call, retryable=is_busy, sleep=lambda _: None)
    assert calls == [2]


def test_a_wish_to_wait_is_honoured_within_reason() -> None:
    waits: list[float] = []
    call, _ = failing(Busy(7), Busy(9999), Busy(0.001))
    retrying(
        call,
        retryable=is_busy,
        backoff=Backoff(first=0.5, longest_asked=60),
        retry_after=lambda error: error.after if isinstance(error, Busy) else None,
        sleep=waits.append,
        draw=lambda: 0.0,
    )
    assert waits == [7, 60, 1.0]
