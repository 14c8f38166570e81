"""What a model costs: parameters, memory and time, worked out from its files. Estimates, and called so. No torch.

A forward pass does two operations a parameter and token in the linear layers, and four a layer, hidden number and token
of the window in attention. Time is these over the rate of this machine's own float32 matrix product, measured once with
numpy, which a forward pass about reaches: it loses to attention what it gains by better products.

Of a CDE model that is its second stage, which reads every text; the first is run once a corpus. Native models look at
keys of the corpus context in addition, published ones read all of it anew in front of every window. A model that says
of itself that the vector of a chunk is blended with that of the chunk alone reads everything twice.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeAlias

import numpy as np

from ctxindex.encoding.cde.published.layout import FIRST, SECOND
from ctxindex.encoding.cde.settings import TENSORS
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

_FIRST_STAGE = FIRST.partition(".")[0] + "."
"""What the names of the first stage begin with in the file of a published CDE model."""

Shapes: TypeAlias = Mapping[str, tuple[int, ...]]
"""Name -> shape of tensors."""

_SIDE = 768
_MEASURED = 0.06


@dataclass(frozen=True, slots=True)
class Estimates:
    """`parameters` is exact, the rest is not: bytes of memory, operations and tokens a second in float32 on a CPU.

    `first_stage` of the parameters belong to the first stage of a CDE model alone. The window that attention is counted
    for has `window` tokens, and `context` positions of a corpus context besides.
    """

    parameters: int
    weight_bytes: int
    memory_bytes: int
    window: int
    flops_per_token: int
    tokens_per_second: int
    first_stage: int = 0
    context: int = 0


def estimate(checkpoint: Checkpoint) -> Estimates:
    """What a model costs in float32.

    Raises:
        ModelError: its weights are missing or damaged.
    """
    parts = _parts(checkpoint)
    first, transformer, other = (_count(shapes) for shapes in (parts.first_stage, parts.transformer, parts.other))
    parameters = first + transformer + other
    tables = {name: shape for name, shape in parts.transformer.items() if "embed" in name.lower() and len(shape) == 2}
    facts, window, context = checkpoint.facts, min(TYPICAL_WINDOW, checkpoint.max_tokens), _context(checkpoint)
    flops = 2 * (transformer - _count(tables)) + 4 * facts.layers * facts.hidden * (window + context)
    memory = parameters * _BYTES + BATCH_TOKENS * facts.hidden * _ACTIVATIONS * _BYTES
    if checkpoint.published is not None:  # the context is read with every window
        flops = flops * (window + context) // window
    elif checkpoint.cde is not None:  # its keys and values are kept
        memory += 2 * facts.layers * facts.hidden * context * _BYTES
    if checkpoint.trained is not None and checkpoint.trained.blend:
        flops *= 2
    rate = int(matrix_rate() * _REACHED / flops)
    return Estimates(parameters, parameters * _BYTES, memory, window, flops, rate, first, context)


@dataclass(frozen=True, slots=True)
class _Parts:
    """The tensors of a model: of what reads every token, of the first stage of a CDE model alone, and any others."""

    transformer: Shapes
    first_stage: Shapes
    other: Shapes


def _parts(checkpoint: Checkpoint) -> _Parts:
    files = weight_files(checkpoint.backbone)
    if checkpoint.published is not None:
        held = _shapes(files)
        first = {name: shape for name, shape in held.items() if name.startswith(_FIRST_STAGE)}
        second = {name.removeprefix(SECOND): shape for name, shape in held.items() if name.startswith(SECOND)}
        other = {name: shape for name, shape in held.items() if not name.startswith((_FIRST_STAGE, SECOND))}
        return _Parts(second, first, other)
    if checkpoint.cde is None:
        return _Parts(_shapes(files), {}, {})
    own, stage = checkpoint.folder / TENSORS, checkpoint.first_stage
    first = {} if stage is None else _shapes(file for file in weight_files(stage.backbone) if file.name != TENSORS)
    return _Parts(_shapes(file for file in files if file != own), first, _shapes([own]))


def _shapes(files: Iterable[Path]) -> dict[str, tuple[int, ...]]:
    named = (each for file in files for each in tensor_names(file).items())
    return {name: shape for name, shape in named if not name.endswith(_NO_PARAMETERS)}


def _count(shapes: Shapes) -> int:
    return sum(math.prod(shape) for shape in shapes.values())


def _context(checkpoint: Checkpoint) -> int:
    """Positions of the corpus context that every token looks at, where it is as large as in training."""
    if checkpoint.published is not None:
        return checkpoint.published.lead
    return 0 if checkpoint.cde is None else checkpoint.cde.context_size


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
