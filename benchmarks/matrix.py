"""What a forward pass costs in floating-point operations, and what this machine does of them in matrix products.

The first is counted from the lengths of the rows that went through the model, padding left out: time spent on padding
counts against us. The second is measured: `torch.matmul` on the shapes of the model's own linear layers.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

ROWS = 4096
"""Rows of the left matrix: as many tokens as a batch of ours."""

_SECONDS = 0.5
_LEAST_RUNS = 10


@dataclass(frozen=True, slots=True)
class ModelShape:
    """The numbers of a BERT that its cost follows from."""

    layers: int
    hidden: int
    intermediate: int

    @classmethod
    def read(cls, folder: Path) -> ModelShape:
        """The shape that the `config.json` of a model's folder tells."""
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return cls(config["num_hidden_layers"], config["hidden_size"], config["intermediate_size"])

    @property
    def linear_shapes(self) -> list[tuple[int, int, int]]:
        """(outputs, inputs, how many in the model): query, key, value and output; up; down."""
        hidden, wide = self.hidden, self.intermediate
        return [(hidden, hidden, 4 * self.layers), (wide, hidden, self.layers), (hidden, wide, self.layers)]


def linear_flops(shape: ModelShape, tokens: int) -> int:
    """Operations of all linear layers for that many tokens: a multiplication and an addition for every weight."""
    return 2 * tokens * sum(outputs * inputs * count for outputs, inputs, count in shape.linear_shapes)


def attention_flops(shape: ModelShape, lengths: Iterable[int]) -> int:
    """Operations of the two products of attention, scores and mixing, for rows of these lengths."""
    return 4 * shape.layers * shape.hidden * sum(length * length for length in lengths)


def forward_flops(shape: ModelShape, lengths: Sequence[int]) -> int:
    """Operations of one pass over rows of these lengths, special tokens included."""
    return linear_flops(shape, sum(lengths)) + attention_flops(shape, lengths)


def weighted_rate(work: Sequence[tuple[float, float]]) -> float:
    """The rate of all parts done one after the other, from (operations, rate) of each."""
    return sum(flops for flops, _ in work) / sum(flops / rate for flops, rate in work)


def matmul_rates(shape: ModelShape, dtype: str) -> dict[str, float]:
    """Operations per second of `torch.matmul` on each linear shape, and `all` weighted by FLOPs.

    The median of many runs: a short burst at a higher clock is no rate that seconds of work can hold.
    """
    rates: dict[str, float] = {}
    work = []
    for outputs, inputs, count in shape.linear_shapes:
        rate = _matmul_rate(outputs, inputs, dtype)
        rates[f"{inputs}x{outputs}"] = rate
        work.append((2.0 * outputs * inputs * count, rate))
    return {**rates, "all": weighted_rate(work)}


def _matmul_rate(outputs: int, inputs: int, dtype: str) -> float:
    import torch

    kind = {"float32": torch.float32, "bfloat16": torch.bfloat16}[dtype]
    with torch.inference_mode():
        left, weight = torch.randn(ROWS, inputs).to(kind), torch.randn(outputs, inputs).to(kind)
        taken: list[float] = []
        stop = time.perf_counter() + _SECONDS
        while len(taken) < _LEAST_RUNS or time.perf_counter() < stop:
            began = time.perf_counter()
            torch.matmul(left, weight.T)
            taken.append(time.perf_counter() - began)
    return 2.0 * ROWS * outputs * inputs / statistics.median(taken)
