"""Attention of packed rows that also look at a corpus context: the same keys for every token of a batch.

A token meets the keys of its own row and, in each layer, those of the C context tokens, under one softmax:

    o = (sum of 2^s v  +  f sum of 2^c u) / (sum of 2^s  +  f sum of 2^c)        f = e^b / C

s are the scores of its row, c and u scores and values of the context. The bias b - ln C that context scores get is the
same for all of them, so it stands in front as f, and is never rounded to the precision of scores. The context knows no
rows, so that all tokens meet it in one product a head, without padding; what `attention_products` has made of the rows
is mixed with it afterwards by the sums of weights. Where a sum leaves the range of its type nothing is said, and the
layer is done in the way of other devices: `scaled_dot_product_attention` over both kinds of keys.

The gradient is that of `attention_products` with the common total t and result o: for the context, with
p = f 2^c / t and D the gradient of o,

    du = p^T D        dc = p (D u^T - sum of D o)        dq' = ln 2 dc k        dk = ln 2 dc^T q'        db = sum of dc

Context rows themselves are read in a pass of their own, in which every layer leaves its keys and values with a
`ContextRecorder` (`ctxindex.encoding.cde_model`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from ctxindex.encoding.attention_products import CACHED, ProductPass, in_range, places_by_head

if TYPE_CHECKING:
    import torch

    from ctxindex.encoding.packing import Packing

_LEAST_TOKENS = 256
"""Queries of a block, so that products stay large where a context is huge."""


@dataclass(frozen=True, slots=True)
class LayerContext:
    """What one layer sees of a context: `key` and `value` (heads, C, head size), and the `bias` b - ln C, a scalar."""

    key: torch.Tensor
    value: torch.Tensor
    bias: torch.Tensor


@dataclass(frozen=True, slots=True)
class AttentionContext:
    """A context as the layers of a model see it; any of its tensors may ask for a gradient.

    `numbers` gives the layer that a module belongs to, counted from 0. `layers` has for each the keys and the values,
    (heads, C, head size) each, and `bias`, (layers,), the learned b.
    """

    numbers: Mapping[torch.nn.Module, int]
    layers: tuple[tuple[torch.Tensor, torch.Tensor], ...]
    bias: torch.Tensor

    def of(self, module: torch.nn.Module) -> LayerContext:
        """What the layer that `module` belongs to sees."""
        number = self.numbers[module]
        key, value = self.layers[number]
        return LayerContext(key, value, self.bias[number] - math.log(key.shape[1]))


class ContextRecorder:
    """Takes from every layer its keys and values while a model reads context rows; `numbers` as above."""

    def __init__(self, numbers: Mapping[torch.nn.Module, int]) -> None:
        self._numbers = numbers
        self._taken: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def take(self, module: torch.nn.Module, key: torch.Tensor, value: torch.Tensor) -> None:
        """Keep what a layer makes of the context, (heads, C, head size) each."""
        self._taken[self._numbers[module]] = key, value

    @property
    def layers(self) -> tuple[tuple[torch.Tensor, torch.Tensor], ...]:
        """Keys and values of all layers, in order."""
        return tuple(self._taken[number] for number in sorted(self._taken))


class OutOfRangeError(Exception):
    """A sum of weights has left the range of its type; never leaves this room."""


def attend_in_context(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    packing: Packing,
    scale: float,
    reach: int | None,
    context: LayerContext,
) -> torch.Tensor | None:
    """(heads, tokens, head size) each -> (tokens, heads, head size), with a gradient where one is asked for.

    None where a sum of weights leaves the range of its type.
    """
    import torch

    parts = [part.transpose(0, 1) for part in (query, key, value)]
    seen = (context.key, context.value, context.bias)
    try:
        if torch.is_grad_enabled() and any(part.requires_grad for part in (*parts, *seen)):
            result: torch.Tensor = _differentiable().apply(*parts, *seen, packing, scale, reach)
            return result
        return _forward(ProductPass.of(parts, packing, scale), parts[0], context, reach)[0]
    except OutOfRangeError:
        return None


def _forward(
    own: ProductPass, query: torch.Tensor, context: LayerContext, reach: int | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The attention, (tokens, heads, head size), and the sum of all weights of a token, (tokens, heads, 1)."""
    import torch

    if not own.attend(reach):
        raise OutOfRangeError
    total, mixed = _meet(_scaled(query, own.factor), context)
    if not in_range(total):
        raise OutOfRangeError
    # Shares of the two in float32: the factor may be far smaller than what a sum of weights is rounded by.
    wide = torch.promote_types(query.dtype, torch.float32)
    share = context.bias.to(wide).exp()
    theirs, alone = total.transpose(0, 1).to(wide) * share, own.by_token(own.total).to(wide)
    alone[own.packing.tokens :] = 1
    together = alone + theirs
    result = own.by_token(own.result).mul_((alone / together).to(query.dtype))
    result.addcmul_(mixed.transpose(0, 1), (share / together).to(query.dtype))
    result[own.packing.tokens :] = 0
    return result, together


def _scaled(query: torch.Tensor, factor: float) -> torch.Tensor:
    """(tokens, heads, head size) -> (heads, tokens, head size), contiguous, multiplied."""
    return query.transpose(0, 1).contiguous().mul_(factor)


def _blocks(query: torch.Tensor, context: LayerContext) -> Iterator[tuple[slice, slice]]:
    """Heads and tokens of blocks with no more than `CACHED` bytes of scores."""
    heads, tokens, _ = query.shape
    scores = CACHED // query.element_size() // context.key.shape[1]
    asked = max(_LEAST_TOKENS, min(tokens, scores))
    count = max(1, scores // asked)
    for first in range(0, heads, count):
        for start in range(0, tokens, asked):
            yield slice(first, first + count), slice(start, start + asked)


def _meet(query: torch.Tensor, context: LayerContext) -> tuple[torch.Tensor, torch.Tensor]:
    """The sum of 2^c, (heads, tokens, 1), and that of 2^c u, (heads, tokens, head size), for scaled queries."""
    import torch

    mixed, total = torch.empty_like(query), query.new_empty(*query.shape[:2], 1)
    for heads, asked in _blocks(query, context):
        weights = torch.bmm(query[heads, asked], context.key[heads].transpose(1, 2)).exp2_()
        torch.sum(weights, dim=-1, keepdim=True, out=total[heads, asked])
        torch.bmm(weights, context.value[heads], out=mixed[heads, asked])
    return total, mixed


def _differentiate(
    query: torch.Tensor, context: LayerContext, given: torch.Tensor, result: torch.Tensor, together: torch.Tensor
) -> list[torch.Tensor]:
    """Gradients of scaled query, key, value and bias through the context's share; all by head, (heads, tokens, …)."""
    import torch

    of_query, of_key, of_value = torch.zeros_like(query), torch.zeros_like(context.key), torch.zeros_like(context.value)
    of_bias = together.new_zeros(())
    shares = (given * result).sum(dim=-1, keepdim=True)
    scale = (context.bias.to(together.dtype).exp() / together).to(query.dtype)
    for heads, asked in _blocks(query, context):
        weights = torch.bmm(query[heads, asked], context.key[heads].transpose(1, 2)).exp2_().mul_(scale[heads, asked])
        of_value[heads] += torch.bmm(weights.transpose(1, 2), given[heads, asked])
        of_scores = torch.bmm(given[heads, asked], context.value[heads].transpose(1, 2))
        of_scores.sub_(shares[heads, asked]).mul_(weights)
        of_query[heads, asked] += torch.bmm(of_scores, context.key[heads])
        of_key[heads] += torch.bmm(of_scores.transpose(1, 2), query[heads, asked])
        of_bias += of_scores.sum(dtype=of_bias.dtype)
    return [of_query, of_key, of_value, of_bias]


@cache
def _differentiable() -> Any:
    """The function that autograd knows; a class, which cannot be written down without torch."""
    import torch

    class ProductsInContext(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *inputs: Any) -> torch.Tensor:
            *parts, context_key, context_value, bias, packing, scale, reach = inputs
            context = LayerContext(context_key, context_value, bias)
            own = ProductPass.of(parts, packing, scale)
            result, together = _forward(own, parts[0], context, reach)
            ctx.save_for_backward(own.query, own.key, own.value, result, together, context_key, context_value, bias)
            ctx.made = packing, own.heads, own.factor, reach
            return result

        @staticmethod
        def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
            packing, heads, factor, reach = ctx.made
            query, key, value, result, together, context_key, context_value, bias = ctx.saved_tensors
            given = gradients[0].clone()
            given[packing.tokens :] = 0  # the filling belongs to no row
            # What rows got from themselves: as without a context, with the total and the result of both.
            cells, _ = places_by_head(packing, heads, query.device)
            laid_out, total = (
                part.to(query.dtype).reshape(-1, part.shape[2]).index_select(0, cells) for part in (result, together)
            )
            own = ProductPass(packing, heads, factor, query, key, value, laid_out, total, [False] * len(packing.groups))
            found = own.backward(given, reach)
            by_head = [part.transpose(0, 1).contiguous() for part in (own.by_token(query), given, result, together)]
            context = LayerContext(context_key, context_value, bias)
            theirs = _differentiate(by_head[0], context, *by_head[1:])
            found[0] = found[0] + theirs[0].mul_(math.log(2) * factor).transpose(0, 1)
            theirs[1].mul_(math.log(2))
            return (*found, theirs[1], theirs[2], theirs[3].to(bias.dtype), None, None, None)

    return ProductsInContext
