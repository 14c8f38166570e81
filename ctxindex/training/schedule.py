"""How long, how fast and on how much at once a model is trained: what a user may choose about the optimisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from ctxindex.errors import ConfigError

Precision: TypeAlias = Literal["auto", "float32", "bfloat16", "float16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

_LEAST = {
    "steps": 1,
    "documents": 1,
    "windows": 1,
    "queries": 1,
    "clozes": 0,
    "mini_batch_tokens": 1,
    "lora": 1,
    "evaluate_every": 0,
    "patience": 0,
    "save_every": 1,
    "seed": 0,
}
"""The smallest value of each field that counts something."""

_CALLED = {"windows": "--document-windows", "max_norm": "max_norm"}
"""What fields are called where it is not the flag of their name."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """The optimisation: AdamW, a cosine schedule with a warm-up, whole batches of documents.

    Epochs, documents of a batch, the learning rate and its course are by default those of arXiv 2505.24782, section 4.
    `windows`, `queries` and `clozes` have no counterpart there; they and their defaults are ours.

    Attributes:
        epochs: times that each document is drawn, on average; `steps`, where given, says how many batches instead.
        documents: in a batch, on each device.
        windows: and `queries`: read of a document in a step at most.
        clozes: queries that are made of words of a document's own chunks, in a step (`ctxindex.training.clozes`).
        learning_rate: at its highest, after `warmup` (a share of the steps).
        weight_decay: of matrices; biases and norms have none.
        max_norm: what the norm of the gradient is cut to.
        mini_batch_tokens: reads a batch in parts of so many tokens, with a gradient cache; None reads it at once.
        gradient_checkpointing: keeps less of a pass, and computes it again.
        gather_negatives: takes the chunks of other devices as negatives, too.
        lora: rank of adapters that are trained in place of the weights; None trains the weights.
        freeze_embeddings: leaves the table of token embeddings as it is: half of a small model's weights.
        precision: of the passes; weights are float32. "auto" is what the device is fast in.
        evaluate_every: steps between evaluations on held-out documents, 0 for none before the end.
        patience: evaluations without a better result after which training stops, 0 for never.
        save_every: steps between checkpoints; where there are evaluations, each has one.
        seed: decides batches, windows, queries and new weights.

    Raises:
        ConfigError: a number out of its range.
    """

    epochs: float = 2.0
    steps: int | None = None
    documents: int = 4
    windows: int = 4
    queries: int = 16
    clozes: int = 2
    learning_rate: float = 5e-5
    warmup: float = 0.05
    weight_decay: float = 0.01
    max_norm: float = 1.0
    mini_batch_tokens: int | None = None
    gradient_checkpointing: bool = False
    gather_negatives: bool = False
    lora: int | None = None
    freeze_embeddings: bool = False
    precision: Precision = "auto"
    evaluate_every: int = 0
    patience: int = 0
    save_every: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        for name, smallest in _LEAST.items():
            value = getattr(self, name)
            if value is not None and value < smallest:
                raise ConfigError(f"{_called(name)} {value} must be {smallest} or more")
        for name in ("epochs", "learning_rate", "max_norm"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ConfigError(f"{_called(name)} {getattr(self, name)} must be a number above 0")
        if not 0 <= self.warmup < 1:
            raise ConfigError(f"--warmup {self.warmup} is a share of the steps, 0 to 1")
        if not 0 <= self.weight_decay < float("inf"):
            raise ConfigError(f"--weight-decay {self.weight_decay} must be 0 or more")
        if self.precision not in PRECISIONS:
            raise ConfigError(f"--precision {self.precision} is none of {', '.join(PRECISIONS)}")
        if self.patience and not self.evaluate_every:
            raise ConfigError("--patience counts evaluations: say how often there is one with --evaluate-every STEPS")

    def total_steps(self, documents: int, devices: int = 1) -> int:
        """Steps of the whole training on so many documents."""
        return self.steps or max(1, round(self.epochs * documents / (self.documents * devices)))


def _called(field: str) -> str:
    return _CALLED.get(field) or f"--{field.replace('_', '-')}"
