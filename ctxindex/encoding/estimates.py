"""What a model costs: parameters, memory and time, worked out from its files. Estimates, and called so. No torch.

A forward pass does two operations a parameter and token in the linear layers, and four a layer, hidden number and token
of the window in attention. Time is these over the rate of this machine's own float32 matrix product, measured once with
numpy, which a forward pass about reaches: it loses to attention what it gains by better products.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from functools import cache

import numpy as np

from ctxindex.encoding.checkpoint import Checkpoint
from ctxindex.encoding.local import BATCH_TOKENS
from ctxindex.encoding.model_files import tensor_names, weight_files

TYPICAL_WINDOW = 512
_REACHED = 1.0
_BYTES = 4
_ACTIVATIONS = 12
"""Arrays of (tokens, hidden) that a layer holds at once, feed-forward and attention together."""

_NO_PARAMETERS = ("position_ids", "inv_freq")
"""Tables that older files hold beside the parameters."""

_SIDE = 768
_MEASURED = 0.06


@dataclass(frozen=True, slots=True)
class Estimates:
    """`parameters` is exact, the rest is not: bytes of memory, operations and tokens a second in float32 on a CPU.

    The window that attention is counted for has `window` tokens.
    """

    parameters: int
    weight_bytes: int
    memory_bytes: int
    window: int
    flops_per_token: int
    tokens_per_second: int


def estimate(checkpoint: Checkpoint) -> Estimates:
    """What a model costs in float32.

    Raises:
        ModelError: its weights are missing or damaged.
    """
    sizes = [shapes for file in weight_files(checkpoint.backbone) for shapes in tensor_names(file).items()]
    sizes = [(name, shape) for name, shape in sizes if not name.endswith(_NO_PARAMETERS)]
    parameters = sum(math.prod(shape) for _, shape in sizes)
    tables = sum(math.prod(shape) for name, shape in sizes if "embed" in name.lower() and len(shape) == 2)
    window = min(TYPICAL_WINDOW, checkpoint.max_tokens)
    facts = checkpoint.facts
    flops = 2 * (parameters - tables) + 4 * facts.layers * facts.hidden * window
    memory = parameters * _BYTES + BATCH_TOKENS * facts.hidden * _ACTIVATIONS * _BYTES
    rate = int(matrix_rate() * _REACHED / flops)
    return Estimates(parameters, parameters * _BYTES, memory, window, flops, rate)


@cache
def matrix_rate() -> float:
    """Operations a second of a float32 matrix product on this machine: the best of some, in a twentieth of a second."""
    left = np.ones((_SIDE, _SIDE), dtype=np.float32)
    left @ left  # the first starts the threads
    best, began = math.inf, time.perf_counter()
    while time.perf_counter() - began < _MEASURED:
        start = time.perf_counter()
        left @ left
        best = min(best, time.perf_counter() - start)
    return 2 * _SIDE**3 / best
