"""What a user may choose about contextual training. Importing it is cheap."""

from __future__ import annotations

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
        dropout: what is withheld of the context: slots of a step's context, and the whole of it from texts.
        first_stage: whether the first stage stays as it is (`frozen`), is the second one itself (`shared`), or is
            trained beside it (`trained`).
        insent: the weight of the InSeNT loss; 0 leaves it out.
        new_rate: by what the learning rate is multiplied for what the base does not have: the projection, the null
            vector, the bias and the output head.

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
        if not 0 < self.new_rate < float("inf"):
            raise ConfigError(f"new_rate {self.new_rate} must be a number above 0")
