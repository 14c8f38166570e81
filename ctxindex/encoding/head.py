"""From the mean of token states to the vector that is stored: the model's own last modules, truncation, unit length.

    mean -> Dense, LayerNorm, Normalize in the order of the model -> the first `dim` numbers -> divided by the L2 norm

All of it is float32, whatever the forward pass runs in. Truncation comes before the last L2 norm, as Matryoshka models
are trained (arXiv 2205.13147).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias

from ctxindex.encoding.modules import DenseLayer, Layer, LayerNormLayer
from ctxindex.encoding.pooling import unit_rows

if TYPE_CHECKING:
    import torch

    from ctxindex.types import FloatArray

Step: TypeAlias = "Callable[[torch.Tensor], torch.Tensor]"


class Head:
    """What stands behind the pooling of a model. Weights are read with the first vectors.

    Args:
        layers: the modules after the pooling, in order.
        dim: numbers of a vector to keep.
    """

    def __init__(self, layers: Sequence[Layer], dim: int) -> None:
        self._layers = tuple(layers)
        self._dim = dim
        self._steps: list[Step] | None = None

    def __call__(self, pooled: FloatArray) -> FloatArray:
        """Pooled states (rows, width) float32 -> (rows, dim) float32 with unit rows.

        Raises:
            DocumentError: a result whose norm is zero or not finite.
        """
        if self._layers:
            pooled = self._apply(pooled)
        return unit_rows(pooled[:, : self._dim])

    def _apply(self, pooled: FloatArray) -> FloatArray:
        import torch

        if self._steps is None:
            self._steps = build_steps(self._layers, torch.device("cpu"), torch.float32)
        with torch.inference_mode():
            values = torch.from_numpy(pooled)
            for step in self._steps:
                values = step(values)
            result: FloatArray = values.numpy()
        return result


def build_steps(layers: Sequence[Layer], device: torch.device, dtype: torch.dtype) -> list[Step]:
    """The layers as functions on tensors (…, in) -> (…, out), with their weights on `device` in `dtype`."""
    return [_step(layer, device, dtype) for layer in layers]


def _step(layer: Layer, device: torch.device, dtype: torch.dtype) -> Step:
    from safetensors.torch import load_file
    from torch.nn import functional

    if not isinstance(layer, DenseLayer | LayerNormLayer):
        return lambda values: functional.normalize(values, dim=-1)
    held = load_file(layer.weights)
    weights = {
        name: tensor.to(device=device, dtype=dtype)
        for name, tensor in held.items()
        if name in ("linear.weight", "linear.bias", "residual.weight", "norm.weight", "norm.bias")
    }
    if isinstance(layer, LayerNormLayer):
        scale, shift = weights["norm.weight"], weights["norm.bias"]
        return lambda values: functional.layer_norm(values, (layer.dim,), scale, shift)
    return _dense(layer, weights)


def _dense(layer: DenseLayer, weights: dict[str, torch.Tensor]) -> Step:
    import torch
    from torch.nn import functional

    activation: Step = getattr(torch.nn, layer.activation)()
    bias = weights["linear.bias"] if layer.bias else None
    bypass = weights.get("residual.weight")

    def step(values: torch.Tensor) -> torch.Tensor:
        result = activation(functional.linear(values, weights["linear.weight"], bias))
        if not layer.residual:
            return result
        return result + (values if bypass is None else functional.linear(values, bypass))

    return step
