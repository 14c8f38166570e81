"""The second stage of a native CDE model: context tokens, the pass that reads them, and text read in their presence.

All that a CDE model has besides its two transformers are the tensors of `ContextParts`. They and the functions here are
plain torch with gradients, so that training goes the same way as inference: `ContextParts.tokens`, `read_layers`, and
`TokenStates` with the context that comes out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctxindex.encoding.attention.context import AttentionContext, ContextRecorder
from ctxindex.encoding.backbone import TransformerBackbone, out_of_memory_told
from ctxindex.encoding.backbones import BackboneFacts
from ctxindex.encoding.cde.settings import LAYERS
from ctxindex.encoding.rows import Row
from ctxindex.errors import ModelError

if TYPE_CHECKING:
    import torch

    from ctxindex.types import FloatArray

    Numbers = Mapping[torch.nn.Module, int]

_HEAD = ("head.0.weight", "head.0.bias", "head.2.weight", "head.2.bias")
_NAMES = ("projection.weight", "projection.bias", "null", "bias")


@dataclass(frozen=True, slots=True)
class ContextParts:
    """The tensors of a CDE model that none of its transformers has, float32.

    `projection` makes context tokens of first-stage vectors: weight (hidden, width) and bias (hidden,). `null` is the
    context token that stands for no context, (hidden,). `bias` is b, one number a layer, (layers,). `head` has the
    weights and biases of two linear layers over the pooled state, (inner, hidden), (inner,), (hidden, inner) and
    (hidden,), or nothing.
    """

    projection: tuple[torch.Tensor, torch.Tensor]
    null: torch.Tensor
    bias: torch.Tensor
    head: tuple[torch.Tensor, ...] = ()

    def tensors(self) -> dict[str, torch.Tensor]:
        """All of them by the names they are stored under."""
        own = dict(zip(_NAMES, (*self.projection, self.null, self.bias), strict=True))
        return own | (dict(zip(_HEAD, self.head, strict=True)) if self.head else {})

    @classmethod
    def of(cls, tensors: Mapping[str, torch.Tensor]) -> ContextParts:
        """The inverse of `tensors`.

        Raises:
            KeyError: one is missing.
        """
        weight, shift, null, bias = (tensors[name] for name in _NAMES)
        head = tuple(tensors[name] for name in _HEAD) if _HEAD[0] in tensors else ()
        return cls((weight, shift), null, bias, head)

    def to(self, device: torch.device) -> ContextParts:
        """The same on another device."""
        return ContextParts.of({name: tensor.to(device) for name, tensor in self.tensors().items()})

    def tokens(self, vectors: torch.Tensor | None) -> torch.Tensor:
        """Context tokens, (C, hidden), of first-stage vectors, (C, width); without any, the one of the null context."""
        import torch

        return self.null[None] if vectors is None else torch.nn.functional.linear(vectors, *self.projection)

    def finish(self, pooled: torch.Tensor) -> torch.Tensor:
        """The output head: pooled states (rows, hidden) -> (rows, hidden)."""
        from torch.nn.functional import gelu, linear

        if not self.head:
            return pooled
        first, first_bias, second, second_bias = self.head
        return pooled + linear(gelu(linear(pooled, first, first_bias)), second, second_bias)


def load_parts(file: Path, facts: BackboneFacts, *, head: bool) -> ContextParts:
    """The parts in a safetensors file, which must fit a second stage of these facts.

    Raises:
        ModelError: the file cannot be read, its tensors do not fit, or they have values that are not numbers.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        parts = ContextParts.of(load_file(file))
    except (OSError, SafetensorError) as error:
        raise ModelError(f"cannot read {file}: {error}") from None
    except KeyError as error:
        raise ModelError(f"{file} has no tensor {error}") from None
    if not _fit(parts, facts) or bool(parts.head) != head:
        raise ModelError(
            f"{file} was made for another model: its tensors do not fit {facts.layers} layers of {facts.hidden} numbers"
            f"{' with' if head else ' without'} an output head"
        )
    # A bias of minus infinity is a layer that looks at no context.
    numbers = {**parts.tensors(), "bias": parts.bias.clamp(min=torch.finfo(parts.bias.dtype).min)}
    for name, tensor in numbers.items():
        if not bool(tensor.isfinite().all()):
            raise ModelError(f"{file} is damaged: {name} has values that are not numbers; train or copy the model anew")
    return parts


def _fit(parts: ContextParts, facts: BackboneFacts) -> bool:
    """Whether all shapes are those that a second stage of these facts has, and all dtypes floating."""
    hidden = facts.hidden
    weight = parts.projection[0]
    wanted = [(hidden, weight.shape[-1] if weight.ndim else 0), (hidden,), (hidden,), (facts.layers,)]
    if parts.head:
        inner = parts.head[0].shape[0] if parts.head[0].ndim else 0
        wanted += [(inner, hidden), (inner,), (hidden, inner), (hidden,)]
    tensors = parts.tensors().values()
    return [tuple(one.shape) for one in tensors] == wanted and all(one.is_floating_point() for one in tensors)


def layer_numbers(model: torch.nn.Module, facts: BackboneFacts) -> Numbers:
    """Every module that belongs to a layer -> the number of that layer, from 0."""
    layers: Any = model.get_submodule(LAYERS[facts.kind])
    return {module: number for number, layer in enumerate(layers) for module in layer.modules()}


def read_layers(
    model: Callable[..., Any], numbers: Numbers, facts: BackboneFacts, tokens: torch.Tensor
) -> tuple[tuple[torch.Tensor, torch.Tensor], ...]:
    """What each layer makes of context tokens: its keys and its values, (heads, C, head size) each.

    The tokens all have the first position of the model and look only at each other, so that neither their order nor the
    text read afterwards changes anything. `model` is a transformers model with the attention of ctxindex; `tokens`,
    (C, hidden), take the place of word embeddings.
    """
    import torch

    recorder = ContextRecorder(numbers)
    first = 0 if facts.padding is None else facts.padding + 1
    positions = torch.full((1, len(tokens)), first, device=tokens.device)
    model(inputs_embeds=tokens[None], position_ids=positions, packing=None, context=recorder)
    return recorder.layers


class SecondStage(TransformerBackbone):
    """A transformer that reads texts in the presence of a context. Also a `Backbone`: then without any.

    Args:
        folder: the model's files.
        parts: what else it has.
        facts: what its configuration says.
        more: as of `TransformerBackbone`.
    """

    def __init__(self, folder: Path, *, parts: ContextParts, facts: BackboneFacts, **more: Any) -> None:
        super().__init__(folder, facts=facts, **more)
        self._facts = facts
        self._parts = parts.to(self._device)
        self._numbers = layer_numbers(self._model, facts)

    def read_context(self, vectors: FloatArray | None) -> FloatArray:
        """Keys and values of all layers, (layers, 2, heads, C, head size) float32, of vectors (C, width) float32.

        None stands for no context at all. Raises MemoryError where they do not fit.
        """
        import torch

        with torch.inference_mode(), out_of_memory_told(self._device), self._meter.time("forward"):
            given = None if vectors is None else torch.from_numpy(vectors).to(self._device)
            tokens = self._parts.tokens(given).to(self._model.dtype)
            layers = read_layers(self._model, self._numbers, self._facts, tokens)
            found: FloatArray = torch.stack([torch.stack(layer) for layer in layers]).float().cpu().numpy()
        return found

    def bind(self, layers: FloatArray) -> InContext:
        """The backbone that reads with the context of which `read_context` has made `layers`."""
        import torch

        held = torch.from_numpy(layers).to(self._device, self._model.dtype)
        pairs = tuple((key.contiguous(), value.contiguous()) for key, value in held)
        return InContext(self, AttentionContext(self._numbers, pairs, self._parts.bias))


class InContext:
    """Implements `Backbone`: a second stage, and the context that it reads with."""

    def __init__(self, stage: SecondStage, context: AttentionContext) -> None:
        self._stage = stage
        self._context = context

    def place_sums(self, rows: Sequence[Row]) -> FloatArray:
        """See `Backbone.place_sums`."""
        return self._stage.place_sums(rows, self._context)
