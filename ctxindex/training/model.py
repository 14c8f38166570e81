"""The network in training: rows of ids in, the vectors of chunks and queries out, with their graph.

Rows are those that the encoder reads at inference (`LocalEncoder.document_rows`), and the vectors are made of them in
the same way: sums of states over the places of a chunk, divided by their number, through the modules behind the
pooling. What differs is that all of it can be differentiated, and that weights stay in float32; the products run
in the precision of autocast around it. Dropout is off: the passes of a gradient cache must be the same, and on a few
hundred steps it does not help.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch.nn import functional

from ctxindex.encoding.attention.packed import NAME, register
from ctxindex.encoding.backbone import load_transformer
from ctxindex.encoding.modules import DenseLayer, Layer, LayerNormLayer
from ctxindex.encoding.rows import Row
from ctxindex.encoding.runtime import resolve_device
from ctxindex.encoding.token_states import TokenStates
from ctxindex.training.insent import Vectors
from ctxindex.training.readings import Reading, join

if TYPE_CHECKING:
    import numpy.typing as npt

    from ctxindex.encoding.attention.context import AttentionContext
    from ctxindex.encoding.checkpoint import Checkpoint
    from ctxindex.encoding.local import LocalEncoder
    from ctxindex.training.memory import Memory

    Numbers = npt.NDArray[np.int64]


MEMORY = "memory"
"""What begins the names of tensors that only a training's checkpoints have."""


class ContextualModel(torch.nn.Module):
    """The transformer of an encoder, with the modules behind it, for training.

    Args:
        encoder: whose rows are read, and whose spec says how vectors are made of them.
        checkpoint: its files.
        device: where it is trained.

    Raises:
        ModelError: the files cannot be loaded.
    """

    def __init__(self, encoder: LocalEncoder, checkpoint: Checkpoint, device: str = "auto") -> None:
        super().__init__()
        facts = checkpoint.facts
        if facts.packable:
            register()
        attention = NAME if facts.packable else None
        self.transformer = load_transformer(checkpoint.backbone, torch.float32, facts.remote, attention)
        for module in self.transformer.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
            elif isinstance(getattr(module, "attention_dropout", None), float):
                module.attention_dropout = 0.0  # a number, which the layer hands to its attention
        layers = checkpoint.colbert.dense if checkpoint.colbert else checkpoint.layers
        self.token_layers = torch.nn.ModuleList(map(trainable, checkpoint.token_layers))
        self.layers = torch.nn.ModuleList(map(trainable, layers))
        self.spec = encoder.spec
        # Not a module of this one, so that the transformer's parameters are not counted twice.
        self._read = TokenStates(self._states_of, facts, encoder.spec.max_tokens, encoder.tokenizer.pad_id)
        self.to(resolve_device(device))

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def remember(self, memory: Memory) -> None:
        """Take a memory of earlier steps along, so that checkpoints have it; it is no part of the model otherwise."""
        self.add_module(MEMORY, memory.to(self.device))

    def forward(self, readings: Sequence[Reading]) -> list[torch.Tensor]:
        """The unit vectors of each reading, in one pass of the transformer.

        Returns:
            (items, dim) float32 each; of a late-interaction model (pooled tokens, dim), item after item, in the order
            of the rows.
        """
        whole = join(readings)
        if self.spec.multivector:
            states, positions, owners = self._states(whole)
            order = np.argsort(owners, kind="stable")  # a chunk in several windows is put together again
            made = self._head(_taken(states, positions[order]))
            return list(torch.split(made, [sum(reading.lengths) for reading in readings]))
        return list(torch.split(self._head(self.means(whole)), [reading.items for reading in readings]))

    def means(self, reading: Reading, context: AttentionContext | None = None) -> torch.Tensor:
        """(items, width) float32: the mean state of each item, before the modules behind the pooling.

        Of a `context` all tokens of the reading take notice; see `TokenStates`.
        """
        states, positions, owners = self._states(reading, context)
        return _means(_taken(states, positions), owners, reading.items)

    def _states(
        self, reading: Reading, context: AttentionContext | None = None
    ) -> tuple[torch.Tensor, Numbers, Numbers]:
        """The states of all tokens, where those that are pooled are among them, and whose each is."""
        attended = [row.length if row.attended is None else row.attended for row in reading.rows]
        states, starts = self._read([row.ids for row in reading.rows], self.device, attended, context)
        for layer in self.token_layers:
            states = layer(states)
        return states, *_positions(reading.rows, starts)

    def packed(self, rows: torch.Tensor, reading: Reading) -> Vectors:
        """What `forward` gave for a reading, with which rows are whose."""
        return Vectors(rows, reading.lengths if self.spec.multivector else None)

    def _states_of(self, **inputs: object) -> object:
        return self.transformer(**inputs)

    def _head(self, values: torch.Tensor) -> torch.Tensor:
        """As `ctxindex.encoding.head.Head`: float32 under autocast, too."""
        with torch.autocast(values.device.type, enabled=False):
            for layer in self.layers:
                values = layer(values)
            return functional.normalize(values[:, : self.spec.dim], dim=1)


def trainable(layer: Layer) -> torch.nn.Module:
    """A module of a Sentence-Transformers folder with weights that learn."""
    if isinstance(layer, DenseLayer):
        return TrainableDense(layer)
    return TrainableNorm(layer) if isinstance(layer, LayerNormLayer) else _Normalize()


class _Saved(torch.nn.Module):
    """Weights by the names that they have in the file of a module, with an underscore for the point."""

    def __init__(self, layer: DenseLayer | LayerNormLayer, names: Sequence[str]) -> None:
        from safetensors.torch import load_file

        super().__init__()
        self.layer = layer
        held = load_file(layer.weights)
        self.weights = torch.nn.ParameterDict(
            {name.replace(".", "_"): held[name].float() for name in names if name in held}
        )


class TrainableDense(_Saved):
    """See `DenseLayer`: (…, in_features) -> (…, out_features)."""

    def __init__(self, layer: DenseLayer) -> None:
        super().__init__(layer, ["linear.weight", *(["linear.bias"] if layer.bias else []), "residual.weight"])
        self.activation: torch.nn.Module = getattr(torch.nn, layer.activation)()

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """The layer's formula."""
        weights = self.weights
        bias = weights.get("linear_bias", None)
        result: torch.Tensor = self.activation(functional.linear(values, weights["linear_weight"], bias))
        if not cast("DenseLayer", self.layer).residual:
            return result
        bypass = weights.get("residual_weight", None)
        return result + (values if bypass is None else functional.linear(values, bypass))


class TrainableNorm(_Saved):
    """See `LayerNormLayer`: (…, dim) -> (…, dim)."""

    def __init__(self, layer: LayerNormLayer) -> None:
        super().__init__(layer, ["norm.weight", "norm.bias"])

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """The layer's formula."""
        weights = self.weights
        return functional.layer_norm(values, (values.shape[-1],), weights["norm_weight"], weights["norm_bias"])


class _Normalize(torch.nn.Module):
    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Rows of unit length."""
        return functional.normalize(values, dim=-1)


def _positions(rows: Sequence[Row], starts: Sequence[int]) -> tuple[Numbers, Numbers]:
    """(pooled tokens,) int64 each: where they are among all states, and the number of the chunk that each is of."""
    placed = [
        (start + place.start, start + place.end, place.chunk)
        for row, start in zip(rows, starts, strict=True)
        for place in row.places
    ]
    positions = np.concatenate([np.arange(start, end) for start, end, _ in placed])
    owners = np.repeat([chunk for _, _, chunk in placed], [end - start for start, end, _ in placed])
    return positions, owners


def _taken(states: torch.Tensor, positions: Numbers) -> torch.Tensor:
    """The states at these positions, float32."""
    return states[torch.from_numpy(positions).to(states.device)].float()


def _means(states: torch.Tensor, owners: Numbers, total: int) -> torch.Tensor:
    """(total, width) float32: the mean of the states, (tokens, width), of each item."""
    counts = np.bincount(owners, minlength=total).astype(np.float32)
    if not counts.all():
        raise ValueError(f"item {int(np.flatnonzero(counts == 0)[0])} has no tokens in these rows")
    sums = states.new_zeros(total, states.shape[1]).index_add(0, torch.from_numpy(owners).to(states.device), states)
    return sums / torch.from_numpy(counts).to(states.device)[:, None]
