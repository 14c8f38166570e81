"""The network of a late-interaction model: rows of ids in, a unit vector for every token out. torch comes in when used.

The transformer's states go through the folder's chain of Dense layers and are divided by their L2 norm, in float32
whatever the transformer runs in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ctxindex.encoding.backbone import Backbone, TransformerBackbone
from ctxindex.errors import ModelError

if TYPE_CHECKING:
    import torch

    from ctxindex.encoding.colbert import ColbertLayout
    from ctxindex.encoding.modules import DenseLayer
    from ctxindex.encoding.tokenizer import Ids
    from ctxindex.metering import Meter
    from ctxindex.types import FloatArray


class TokenBackbone(Backbone, Protocol):
    """A network that gives every token a unit vector."""

    def token_vectors(self, rows: Sequence[Ids], attended: Sequence[int]) -> list[FloatArray]:
        """The vectors of each row, (its length, dim) float32 with unit rows, or not finite where the model failed.

        Args:
            rows: token ids, special tokens included; rows may differ in length.
            attended: how many tokens of each row, from its start, the others attend to: all, save in a query that is
                filled up with tokens that are scored and not read.
        """
        ...


class ColbertBackbone(TransformerBackbone):
    """The model of a `ColbertLayout`, loaded at construction.

    Raises:
        ModelError: its files cannot be loaded.
    """

    def __init__(self, layout: ColbertLayout, *, pad_id: int, dtype: str, device: str, meter: Meter) -> None:
        super().__init__(layout.backbone, pad_id=pad_id, dtype=dtype, device=device, meter=meter)
        with meter.time("model"):
            self._layers = [_dense(layer, self._device) for layer in layout.dense]

    def token_vectors(self, rows: Sequence[Ids], attended: Sequence[int]) -> list[FloatArray]:
        """See `TokenBackbone.token_vectors`."""
        import torch

        ids = np.full((len(rows), max(map(len, rows))), self._pad_id, dtype=np.int64)
        mask = np.zeros(ids.shape, dtype=np.int64)
        for number, row in enumerate(rows):
            ids[number, : len(row)] = row
            mask[number, : attended[number]] = 1
        with torch.inference_mode():
            states = self._forward(ids, mask).float()
            for layer in self._layers:
                states = layer(states)
            norms = states.norm(dim=-1, keepdim=True)
            vectors = (states / norms).cpu().numpy()
        return [vectors[number, : len(row)] for number, row in enumerate(rows)]


def _dense(layer: DenseLayer, device: torch.device) -> Callable[[torch.Tensor], torch.Tensor]:
    """`activation(x @ weight.T + bias)`, plus `x`, or its projection, where the layer has a residual."""
    import torch
    from safetensors import safe_open

    names = ["linear.weight"]
    names += ["linear.bias"] if layer.bias else []
    names += ["residual.weight"] if layer.residual and layer.in_features != layer.out_features else []
    try:
        opener: Any = safe_open  # its signature carries no types
        with opener(str(layer.weights), framework="pt") as file:
            tensors = {name: file.get_tensor(name).float().to(device) for name in names}
    except Exception as error:  # the library raises a type of its own, and OSError
        raise ModelError(f"cannot read {layer.weights}: {str(error).strip()}") from None
    activation = getattr(torch.nn, layer.activation)()

    def apply(states: torch.Tensor) -> torch.Tensor:
        projected: torch.Tensor = activation(
            torch.nn.functional.linear(states, tensors["linear.weight"], tensors.get("linear.bias"))
        )
        if not layer.residual:
            return projected
        short = tensors.get("residual.weight")
        return projected + (states if short is None else torch.nn.functional.linear(states, short))

    return apply
