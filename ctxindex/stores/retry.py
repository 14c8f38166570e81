"""Try again, later and later, for calls to a database that may be busy. What is worth a retry, the caller decides."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Backoff:
    """How often and how long to wait: `first` seconds, times `factor` after each try, never above `longest`.

    A wait is drawn between half of that and all of it, so that clients that failed together don't return together.
    Where the server says how long to wait, that is waited at least, up to `longest_asked`.
    """

    tries: int = 6
    first: float = 0.5
    factor: float = 2.0
    longest: float = 20.0
    longest_asked: float = 120.0

    def wait(self, failures: int, asked: float | None, draw: float) -> float:
        """Seconds to sleep after that many failures (1 at the first); `draw` is uniform in [0, 1)."""
        ceiling = min(self.longest, self.first * self.factor ** (failures - 1))
        seconds = ceiling * (0.5 + draw / 2)
        return seconds if asked is None else max(seconds, min(asked, self.longest_asked))


def _no_wish(error: Exception) -> float | None:
    return None


def retrying(
    call: Callable[[], T],
    *,
    retryable: Callable[[Exception], bool],
    backoff: Backoff | None = None,
    retry_after: Callable[[Exception], float | None] = _no_wish,
    sleep: Callable[[float], None] = time.sleep,
    draw: Callable[[], float] = random.random,
) -> T:
    """The result of `call`, tried again while it fails with errors that `retryable` accepts.

    Args:
        call: must be safe to repeat.
        retryable: whether an error may pass by itself.
        backoff: tries and waits; `Backoff()` where not given.
        retry_after: the seconds an error asks to wait, or None.
        sleep: waits that many seconds.
        draw: uniform in [0, 1).

    Raises:
        Exception: the last error of `call`, once it is not retryable or the tries are used up.
    """
    plan = backoff or Backoff()
    for failures in range(1, plan.tries):
        try:
            return call()
        except Exception as error:
            if not retryable(error):
                raise
            asked = retry_after(error)
        sleep(plan.wait(failures, asked, draw()))
    return call()
