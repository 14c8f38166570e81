"""What a user may choose about the loss, and about what batches leave out. Importing it is cheap.

The formulas whose names these are stand in `insent` and `objective`; how long and how fast is said in `schedule`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias, get_args

from ctxindex.errors import ConfigError
from ctxindex.spec import Isolated

Average: TypeAlias = Literal["macro", "micro"]
AVERAGES: tuple[Average, ...] = get_args(Average)

Mode: TypeAlias = Literal["insent", "joint"]
MODES: tuple[Mode, ...] = get_args(Mode)

ANCHOR = 64
"""Tokens of a document's head that windows are read behind where nobody says otherwise."""

BLEND = 0.6
ISOLATED: Isolated = "opening"
"""The weight of the vector of the chunk alone, and what that is read behind, where nobody says otherwise."""


@dataclass(frozen=True, slots=True)
class InsentOptions:
    """What may be chosen about the loss of `insent`: the names of its formulas.

    `mask_positives` leaves out of the sums the chunks that are known to answer a query besides its golds; without it
    they count as negatives like all others. Golds of one query are never negatives of each other. `query_mean` divides
    MaxSim by the number of the query's vectors; where a chunk has one vector it changes nothing.

    Raises:
        ConfigError: a value out of its range.
    """

    lambda_seq: float = 0.1
    tau: float = 0.05
    average: Average = "macro"
    mode: Mode = "insent"
    mask_positives: bool = True
    query_mean: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.lambda_seq <= 1:
            raise ConfigError(f"lambda_seq {self.lambda_seq} must be 0 to 1")
        if not 0 < self.tau < float("inf"):
            raise ConfigError(f"--tau {self.tau} must be more than 0")
        if self.average not in AVERAGES:
            raise ConfigError(f"average {self.average} is none of {', '.join(AVERAGES)}")
        if self.mode not in MODES:
            raise ConfigError(f"mode {self.mode} is none of {', '.join(MODES)}")


@dataclass(frozen=True, slots=True)
class ObjectiveOptions:
    """The loss of a step, see `objective`: `hold` and `distil` are the weights of its further terms.

    `cross_batch_memory` is how many chunks of earlier steps each source has as further negatives (see
    `ctxindex.training.memory`).

    Raises:
        ConfigError: a weight or a number below 0.
    """

    insent: InsentOptions = field(default_factory=InsentOptions)
    hold: float = 0.0
    distil: float = 0.0
    cross_batch_memory: int = 0

    def __post_init__(self) -> None:
        for name in ("hold", "distil"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ConfigError(f"--{name} {getattr(self, name)} is a weight, 0 or more")
        if self.cross_batch_memory < 0:
            raise ConfigError(f"--cross-batch-memory {self.cross_batch_memory} counts chunks, 0 or more")


@dataclass(frozen=True, slots=True)
class Shares:
    """In what share of the steps something is left out.

    It is the `titles` of documents, the `contextual` view of chunks (so that the isolated one learns to do alone), or
    the `isolated` one. Views matter only where the encoder blends them.

    Raises:
        ConfigError: a share that is none, or views that leave nothing.
    """

    titles: float = 0.0
    contextual: float = 0.0
    isolated: float = 0.0

    def __post_init__(self) -> None:
        if not (0 <= self.titles <= 1 and min(self.contextual, self.isolated) >= 0):
            raise ConfigError("a share of the steps is 0 to 1")
        if self.contextual + self.isolated > 1:
            raise ConfigError(
                f"{self.contextual:g} of the steps without the contextual view and {self.isolated:g} without the "
                "isolated one are more than all steps"
            )
