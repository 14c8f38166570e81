"""What a user may choose about contextual training. Importing it is cheap."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, get_args

from ctxindex.errors import ConfigError
from ctxindex.training.contextual.context import ContextDropout
from ctxindex.training.contextual.filtering import FalseNegativeFilter

Batches: TypeAlias = Literal["clusters", "random"]
BATCHES: tuple[Batches, ...] = get_args(Batches)

FirstStageTraining: TypeAlias = Literal["frozen", "shared", "trained"]
FIRST_STAGES: tuple[FirstStageTraining, ...] = get_args(FirstStageTraining)

PAIRS = 32
"""Of a batch where nobody says otherwise."""

CONTEXT_BIAS = 0.0
"""Where the bias of context scores begins in training, unless somebody says otherwise.

At the -2 of a model that nobody trains, the vectors are its base's and hardly move with the context; a training of some
hundred steps would end before the context counts. At 0 it counts for seven times as much, and the vectors are still
near the base's (MiniLM: a cosine of 0.985; 0.88 at 2).
"""

WINDOWS = 1
"""That are read of a document in a step where nobody says otherwise."""


@dataclass(frozen=True, slots=True)
class ContextualOptions:
    """What decides batches, contexts and loss of a contextual training.

    Attributes:
        batches: of pairs that are about the same (`clusters`), or of any pairs of a source (`random`).
        cluster_size: pairs in a cluster, on average; None takes those of a batch.
        filter: what counts as a false negative.
        context_size: the fewest and the most texts of a step's context; how many is drawn anew in each step.
        dropout: what is withheld of the context: slots of a step's context, and the whole of it from a step.
        first_stage: whether the first stage stays as it is (`frozen`), is the second one itself (`shared`), or is
            trained beside it (`trained`).
        insent: the weight of the InSeNT loss; 0 leaves it out.
        new_rate: by what the learning rate is multiplied for what the base does not have: the projection, the null
            vector and the output head.
        context_bias_init: what the bias of context scores begins with in a model that is made of an ordinary base;
            None takes `CONTEXT_BIAS`. A CDE model that is trained on has biases of its own.
        bias_rate: the learning rate of that bias, which the schedule scales as all others. It is no multiple of
            theirs: the bias is the logarithm of how much the context counts, on whatever scale the weights are.

    Raises:
        ConfigError: a value out of its range.
    """

    batches: Batches = "clusters"
    cluster_size: int | None = None
    filter: FalseNegativeFilter = field(default_factory=FalseNegativeFilter)
    context_size: tuple[int, int] = (8, 64)
    dropout: ContextDropout = field(default_factory=ContextDropout)
    first_stage: FirstStageTraining = "frozen"
    insent: float = 0.0
    new_rate: float = 10.0
    context_bias_init: float | None = None
    bias_rate: float = 0.01

    def __post_init__(self) -> None:
        for name, known in (("batches", BATCHES), ("first_stage", FIRST_STAGES)):
            if getattr(self, name) not in known:
                raise ConfigError(f"--{name.replace('_', '-')} {getattr(self, name)} is none of {', '.join(known)}")
        if self.cluster_size is not None and self.cluster_size < 1:
            raise ConfigError(f"--cluster-size {self.cluster_size} must be 1 or more")
        least, most = self.context_size
        if not 1 <= least <= most:
            raise ConfigError(f"--context-size {least}-{most}: texts of a context at least and at most, as in 8-64")
        if not 0 <= self.insent <= 1:
            raise ConfigError(f"--insent {self.insent} is the weight of a part of the loss, 0 to 1")
        for name in ("new_rate", "bias_rate"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ConfigError(f"{name} {getattr(self, name)} must be a number above 0")
        if not math.isfinite(self.context_bias):
            raise ConfigError(f"--context-bias {self.context_bias} must be a number; -2 is next to no context")

    @property
    def context_bias(self) -> float:
        """What the bias of a model that is made begins with."""
        return CONTEXT_BIAS if self.context_bias_init is None else self.context_bias_init
