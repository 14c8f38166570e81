"""MPNet with a corpus context, whose attention cannot be replaced from outside as that of other models is.

It adds a learnt bias to scores by how far two tokens are from each other, so rows are read padded, each by itself, and
transformers offers no place to put another attention. The classes here are transformers' own with one difference: while
they read with a context, every token also meets the context's keys, with the layer's bias b - ln C in place of the one
by distance: a context is nowhere in the text. Context tokens all have one position, and a bias that is the same for all
scores changes no attention: they are read without. Scores are added up in float32, as `context` does it.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

import torch
from transformers import MPNetModel
from transformers.models.mpnet.modeling_mpnet import MPNetSelfAttention

from ctxindex.encoding.attention.context import AttentionContext, ContextRecorder

_reading: ContextVar[AttentionContext | ContextRecorder | None] = ContextVar("_reading", default=None)
"""What the pass that goes on in this thread reads with."""


class _SelfAttention(MPNetSelfAttention):
    """The attention of a layer."""

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_bias: torch.Tensor | None = None,
        *rest: Any,
        **more: Any,
    ) -> Any:
        """(rows, tokens, hidden) -> a tuple that begins with (rows, tokens, hidden)."""
        context = _reading.get()
        if context is None:
            return super().forward(hidden_states, attention_mask, position_bias, *rest, **more)  # type: ignore[no-untyped-call]
        query, key, value = (self._by_head(part(hidden_states)) for part in (self.q, self.k, self.v))
        query = query * self.attention_head_size**-0.5
        if isinstance(context, ContextRecorder):
            context.take(self, key[0], value[0])
            weights = _scores(query, key).softmax(dim=-1).to(value.dtype)
            return (self._mixed(weights @ value),)
        seen = context.of(self)
        near = _scores(query, key)
        for added in (position_bias, attention_mask):
            near = near if added is None else near + added
        apart = _scores(query, seen.key.to(query.dtype)) + seen.bias
        weights = torch.cat([near, apart], dim=-1).softmax(dim=-1).to(value.dtype)
        own, beside = self.dropout(weights).split([near.shape[-1], apart.shape[-1]], dim=-1)
        return (self._mixed(own @ value + beside @ seen.value.to(value.dtype)),)

    def _by_head(self, states: torch.Tensor) -> torch.Tensor:
        """(rows, tokens, hidden) -> (rows, heads, tokens, head size)."""
        return states.view(*states.shape[:2], -1, self.attention_head_size).transpose(1, 2)

    def _mixed(self, values: torch.Tensor) -> torch.Tensor:
        """(rows, heads, tokens, head size) -> (rows, tokens, hidden)."""
        mixed: torch.Tensor = self.o(values.transpose(1, 2).flatten(2))
        return mixed


def _scores(query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    """(…, tokens, head size) and (…, keys, head size) -> (…, tokens, keys), in float32 at the least."""
    scores = query @ key.transpose(-1, -2)
    return scores.float() if scores.element_size() < 4 else scores


class ContextualMPNet(MPNetModel):
    """MPNet that also takes a `context`, as the attention of other models does; without one it is MPNet."""

    def __init__(self, config: Any, add_pooling_layer: bool = True) -> None:
        super().__init__(config, add_pooling_layer)
        layers: Any = self.encoder.layer
        for layer in layers:
            layer.attention.attn = _SelfAttention(config)  # type: ignore[no-untyped-call]

    def forward(
        self,
        *inputs: Any,
        context: AttentionContext | ContextRecorder | None = None,
        packing: None = None,
        **more: Any,
    ) -> Any:
        """As of MPNet; rows are never packed."""
        token = _reading.set(context)
        try:
            return super().forward(*inputs, **more)
        finally:
            _reading.reset(token)
