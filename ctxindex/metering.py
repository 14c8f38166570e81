"""Where the time of a run goes: seconds by stage, and counts for progress bars.

One `Meter` goes with a run through its rooms. Each stage is timed by the one thread that does it, so stages may add up
to more than the total: they overlap, and are meant to.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, get_args

Stage: TypeAlias = Literal["model", "load", "chunk", "tokenise", "forward", "write"]
STAGES: tuple[Stage, ...] = get_args(Stage)


@dataclass
class Meter:
    """Seconds of wall time by stage, and the stretch from the first forward pass to the last.

    `on_tokens` is called with the number of content tokens whenever a batch is through the model.
    """

    seconds: dict[Stage, float] = field(default_factory=dict)
    first_forward: float | None = None
    last_forward: float = 0.0
    on_tokens: Callable[[int], None] | None = None

    @contextmanager
    def time(self, stage: Stage) -> Iterator[None]:
        """Adds the time spent inside to `stage`."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            end = time.perf_counter()
            self.seconds[stage] = self.seconds.get(stage, 0.0) + end - begin
            if stage == "forward":
                self.first_forward = begin if self.first_forward is None else self.first_forward
                self.last_forward = end

    def reset(self) -> None:
        """Back to zero, for the next run."""
        self.seconds.clear()
        self.first_forward, self.last_forward = None, 0.0

    def tokens(self, count: int) -> None:
        """`count` more content tokens have been through the model."""
        if self.on_tokens is not None:
            self.on_tokens(count)

    @property
    def idle(self) -> float:
        """The share of the time between the first and the last forward pass in which none was running."""
        if self.first_forward is None or self.last_forward <= self.first_forward:
            return 0.0
        return 1.0 - self.seconds["forward"] / (self.last_forward - self.first_forward)
