"""Attention of packed rows that also look at a corpus context: the same keys for every token of a batch.

A token meets the keys of its own row and, in each layer, those of the C context tokens, under one softmax:

    o = (sum of 2^s v  +  f sum of 2^c u) / (sum of 2^s  +  f sum of 2^c)        f = e^b / C

s are the scores of its row, c and u scores and values of the context. The bias b - ln C that context scores get is the
same for all of them, so it stands in front as f, and is never rounded to the precision of scores; neither is it where
`scaled_dot_product_attention` works out the same (`packed`). The context knows no rows, so that
all tokens meet it in one product a head, without padding. It is mixed afterwards with what `products` has
made of the rows: with m and n for the maxima that may have been taken off s and c, r and t for the sums of weights that
are left, and o and o' for the weighted means of v and u,

    o'' = (1 - g) o + g o'        g = 1 / (1 + 2^-d)        d = n - m + log2 (f t / r)

The gradient is that of `products` with p less by what the other side has, and the common result: for the
context, with p = g 2^(c - n) / t and D the gradient of o'',

    du = p^T D       dc = p (D u^T - sum of D o'')       dq' = ln 2 dc k       dk = ln 2 dc^T q'       db = sum of dc

Context rows themselves are read in a pass of their own, in which every layer leaves its keys and values with a
`ContextRecorder` (`ctxindex.encoding.cde.model`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from ctxindex.encoding.attention.products import ProductPass, in_range, places_by_head

if TYPE_CHECKING:
    import torch

    from ctxindex.encoding.packing import Packing

_CACHED = 2**20
"""Bytes of a block of scores, so that they are used before they leave the cache of a core, keys and values beside them.

Of the time that a context takes, a tenth less than with blocks of four times as much (two megabytes a core).
"""

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


def attend_in_context(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    packing: Packing,
    scale: float,
    reach: int | None,
    context: LayerContext,
) -> torch.Tensor:
    """(heads, tokens, head size) each -> (tokens, heads, head size), with a gradient where one is asked for."""
    import torch

    parts = [part.transpose(0, 1) for part in (query, key, value)]
    seen = (context.key, context.value, context.bias)
    if torch.is_grad_enabled() and any(part.requires_grad for part in (*parts, *seen)):
        result: torch.Tensor = _differentiable().apply(*parts, *seen, packing, scale, reach)
        return result
    return _forward(ProductPass.of(parts, packing, scale), _Meeting.of(parts[0], context, scale), reach)[0]


@dataclass(frozen=True, slots=True)
class _Meeting:
    """The tokens of a batch and a context: `query`, `mixed` are (heads, tokens, head size), `total` and `peak` with 1.

    Queries are scaled for powers of 2. `mixed` is the sum of 2^(c - peak) u, `total` that of 2^(c - peak); the peak is
    0 where nothing had to be taken off the scores.
    """

    context: LayerContext
    query: torch.Tensor
    mixed: torch.Tensor
    total: torch.Tensor
    peak: torch.Tensor

    @classmethod
    def of(cls, query: torch.Tensor, context: LayerContext, scale: float) -> _Meeting:
        """Queries (tokens, heads, head size) laid out by head; nothing is filled in."""
        scaled = query.transpose(0, 1).contiguous().mul_(scale * math.log2(math.e))
        return cls.again(scaled, context, scaled.new_zeros(*scaled.shape[:2], 1))

    @classmethod
    def again(cls, scaled: torch.Tensor, context: LayerContext, peak: torch.Tensor) -> _Meeting:
        """Queries that are laid out already, and what is taken off their scores."""
        import torch

        return cls(context, scaled, torch.empty_like(scaled), torch.empty_like(peak), peak)

    def blocks(self) -> Iterator[tuple[slice, slice]]:
        """Heads and tokens of blocks with no more than `_CACHED` bytes of scores."""
        heads, tokens, _ = self.query.shape
        scores = _CACHED // self.query.element_size() // self.context.key.shape[1]
        asked = max(_LEAST_TOKENS, min(tokens, scores))
        count = max(1, scores // asked)
        for first in range(0, heads, count):
            for start in range(0, tokens, asked):
                yield slice(first, first + count), slice(start, start + asked)

    def scores(self, heads: slice, asked: slice, room: torch.Tensor | None = None) -> torch.Tensor:
        """The scores c of a block, (heads, tokens, C); in `room` where it has their shape."""
        import torch

        query, key = self.query[heads, asked], self.context.key[heads].transpose(1, 2)
        fits = room is not None and room.shape == (*query.shape[:2], key.shape[2])
        return torch.bmm(query, key, out=room if fits else None)

    def attend(self) -> None:
        """Fill in `mixed`, `total` and `peak`."""
        room = None  # one for all blocks: it is in the cache already
        for block in self.blocks():
            room = self._attend(block, room, shifted=False)
        if not in_range(self.total):
            for block in self.blocks():
                if not in_range(self.total[block]):
                    self._attend(block, room, shifted=True)

    def _attend(self, block: tuple[slice, slice], room: torch.Tensor | None, *, shifted: bool) -> torch.Tensor:
        """A block, with the maximum taken off where it is `shifted`; its weights, (heads, tokens, C)."""
        import torch

        weights = self.scores(*block, room)
        if shifted:
            weights.sub_(torch.amax(weights, dim=-1, keepdim=True, out=self.peak[block]))
        weights.exp2_()
        torch.sum(weights, dim=-1, keepdim=True, out=self.total[block])
        torch.bmm(weights, self.context.value[block[0]], out=self.mixed[block])
        return weights

    def differentiate(self, given: torch.Tensor, shares: torch.Tensor, scale: torch.Tensor) -> list[torch.Tensor]:
        """Gradients of scaled query (less the factor ln 2), key (likewise), value and bias.

        Args:
            given: that of the attention, (heads, tokens, head size).
            shares: the sum of its product with the attention, (heads, tokens, 1).
            scale: what makes p of 2^(c - peak), (heads, tokens, 1).
        """
        import torch

        context = self.context
        of_query, of_key, of_value = (torch.zeros_like(part) for part in (self.query, context.key, context.value))
        of_bias = torch.zeros_like(context.bias)
        shifted = bool(self.peak.any())
        for block in self.blocks():
            heads, _ = block
            scores = self.scores(*block)
            weights = (scores.sub_(self.peak[block]) if shifted else scores).exp2_().mul_(scale[block])
            of_value[heads] += torch.bmm(weights.transpose(1, 2), given[block])
            of_scores = torch.bmm(given[block], context.value[heads].transpose(1, 2))
            of_scores.sub_(shares[block]).mul_(weights)
            of_query[block] += torch.bmm(of_scores, context.key[heads])
            of_key[heads] += torch.bmm(of_scores.transpose(1, 2), self.query[block])
            of_bias += of_scores.sum(dtype=of_bias.dtype)
        return [of_query, of_key, of_value, of_bias]


def _forward(own: ProductPass, theirs: _Meeting, reach: int | None) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The attention, (tokens, heads, head size), and what makes it of the two: factors of own result and of `mixed`.

    The factors are (tokens, heads, 1), in float32 or wider: the share of the context may be far smaller than what a sum
    of weights is rounded by.
    """
    import torch

    own.attend(reach)
    theirs.attend()
    theirs.peak[:, own.packing.tokens :] = 0  # the filling is laid out as zeros when a gradient is asked for
    dtype = theirs.query.dtype
    wide = torch.promote_types(dtype, torch.float32)
    total = theirs.total.transpose(0, 1).to(wide)
    # The difference of the maxima first: both may be large, and their digits should not be lost.
    bits = theirs.peak.transpose(0, 1).to(wide)
    if any(own.shifted):
        bits = bits - own.by_token(own.peak)
    bits = bits + total.log2() - own.by_token(own.total).to(wide).log2_() + theirs.context.bias * math.log2(math.e)
    bits[own.packing.tokens :] = 0  # the filling weighs nothing on its own side: with a bias of -inf, inf - inf
    bits *= math.log(2)
    ours, others = (-bits).sigmoid_(), bits.sigmoid_().div_(total)
    result = own.by_token(own.result).mul_(ours.to(dtype))
    result.addcmul_(theirs.mixed.transpose(0, 1), others.to(dtype))
    result[own.packing.tokens :] = 0
    return result, ours, others


@cache
def _differentiable() -> Any:
    """The function that autograd knows; a class, which cannot be written down without torch."""
    import torch

    class ProductsInContext(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *inputs: Any) -> torch.Tensor:
            *parts, key, value, bias, packing, scale, reach = inputs
            own = ProductPass.of(parts, packing, scale)
            theirs = _Meeting.of(parts[0], LayerContext(key, value, bias), scale)
            result, ours, others = _forward(own, theirs, reach)
            # Where autograd knows of them, so that gradient checkpointing can let go of them.
            held = own.query, own.key, own.value, own.total, own.peak
            ctx.save_for_backward(*held, theirs.peak, result, ours, others, key, value, bias)
            ctx.made = packing, own.heads, own.factor, own.shifted, reach
            return result

        @staticmethod
        def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
            packing, heads, factor, shifted, reach = ctx.made
            *laid_out, total, own_peak, peak, result, ours, others, key, value, bias = ctx.saved_tensors
            given = gradients[0].clone()
            given[packing.tokens :] = 0  # the filling belongs to no row
            # What rows got from themselves: as without a context, with the total and the result of both.
            cells, _ = places_by_head(packing, heads, given.device)
            mixed, share = (part.reshape(-1, part.shape[2]).index_select(0, cells) for part in (result, ours))
            query, own_key, own_value = laid_out
            total = (total / share).to(given.dtype)
            own = ProductPass(packing, heads, factor, query, own_key, own_value, mixed, total, own_peak, shifted)
            found = own.backward(given, reach)
            by_head = own.by_token(query).transpose(0, 1).contiguous()
            theirs = _Meeting.again(by_head, LayerContext(key, value, bias), peak)
            scale = others.transpose(0, 1).to(given.dtype)
            shares = (given * result).sum(dim=-1, keepdim=True).transpose(0, 1)
            given = given.transpose(0, 1).contiguous()
            of_query, of_key, of_value, of_bias = theirs.differentiate(given, shares, scale)
            found[0] = found[0] + of_query.mul_(math.log(2) * factor).transpose(0, 1)
            return (*found, of_key.mul_(math.log(2)), of_value, of_bias, None, None, None)

    return ProductsInContext
