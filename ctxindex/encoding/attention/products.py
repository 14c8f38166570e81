"""The attention of packed rows on a CPU: matrix products with one `exp2` between them, and their gradient.

torch's own kernel for attention reaches an eighth of the rate of a matrix product here: heads of 32 or 64 numbers are
too narrow for it, and the softmax takes the rest. Written out, the products run near full rate, and what is left is
the softmax. It does not need the maximum of the scores where nothing overflows, and exp(s) = 2^(s log2 e), so with the
scale and log2 e multiplied into the queries

    s = q' k^T        w = 2^s        t = sum of w        o = (w v) / t

which goes over the scores once where softmax goes three times. Where a sum leaves the range of its type, the group is
done again with the maximum taken off. In bfloat16 scores are rounded, where torch's own kernel keeps them in float32:
attention that is very sharp (scores of 20 and more) is less exact than there.

The gradient keeps no weights: with p = w / t, worked out again from q' and k, and D the gradient of o,

    dv = p^T D        ds = p (D v^T - sum of D o)        dq' = ln 2 ds k        dk = ln 2 ds^T q'

so that a layer keeps as much as its input has. Source: arXiv 2205.14135, section 3.1 (recomputation).

Blocks of scores stay below `CACHED` bytes, so that they are used before they leave the cache. With a sliding window a
block of queries meets only the keys near it: the cost is linear in the length of a row.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from ctxindex.encoding.packing import Group, Packing

CACHED = 2**20
"""Bytes of a block of scores: half of what a core has for itself, so that products find them there."""

_LEAST_QUERIES, _LEAST_HEADS = 64, 2
_LEAST, _MOST = 2.0**-100, 2.0**120
"""Between them a sum of weights, and their product with values, has all its digits: what underflows is smaller than the
last of them."""


def attend_by_products(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, packing: Packing, scale: float, reach: int | None
) -> torch.Tensor:
    """(heads, tokens, head size) each -> (tokens, heads, head size), with a gradient where one is asked for."""
    import torch

    parts = [part.transpose(0, 1) for part in (query, key, value)]
    if torch.is_grad_enabled() and any(part.requires_grad for part in parts):
        result: torch.Tensor = _differentiable().apply(*parts, packing, scale, reach)
        return result
    return ProductPass.of(parts, packing, scale).forward(reach)


def places_by_head(packing: Packing, heads: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """`Packing.by_head` on the device, worked out once for all layers of a batch."""
    import torch

    if heads not in packing.placed:
        cells, back = (torch.from_numpy(index).to(device) for index in packing.by_head(heads))
        packing.placed[heads] = cells, back
    return packing.placed[heads]


def split_groups(packing: Packing, heads: int, *parts: torch.Tensor) -> Iterator[tuple[Group, list[torch.Tensor]]]:
    """Each group with its share of every part: (cells * heads, width) -> (rows * heads, longest, width)."""
    start = 0
    for group in packing.groups:
        stop = start + group.cells * heads
        yield group, [part[start:stop].view(-1, group.longest, part.shape[1]) for part in parts]
        start = stop


@dataclass(frozen=True, slots=True)
class HeadRows:
    """The rows of a group as one batch: all parts are (rows * heads, longest, head size), contiguous.

    Queries are scaled. The attention of the rows goes into `result`, and the sums of weights into `total`, (rows *
    heads, longest, 1); `peak`, of the same shape, is what was taken off the scores.
    """

    group: Group
    heads: int
    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    result: torch.Tensor
    total: torch.Tensor
    peak: torch.Tensor

    def clear_filling(self, part: torch.Tensor) -> None:
        """Set what stands behind the end of a row to zero, in place."""
        for row, length in enumerate(self.group.lengths):
            part[row * self.heads : (row + 1) * self.heads, length:] = 0

    def hide(self, scores: torch.Tensor, block: Block, reach: int | None, value: float) -> None:
        """Set the `scores` of a block, (its batch, queries, keys), to `value` where no query sees the key."""
        if reach is not None:
            scores.masked_fill_(block.beyond(reach, scores.device), value)
        for row in range(block.first // self.heads, -(-block.last // self.heads)):
            attended = self.group.attended[row]
            if attended < block.high:
                begin, end = max(block.first, row * self.heads), min(block.last, (row + 1) * self.heads)
                scores[begin - block.first : end - block.first, :, max(0, attended - block.low) :] = value


@dataclass(frozen=True, slots=True)
class Block:
    """Heads `[first, last)` of a batch; of their rows the queries `[start, stop)`, and `[low, high)`, the keys seen."""

    first: int
    last: int
    start: int
    stop: int
    low: int
    high: int

    @property
    def batch(self) -> slice:
        """The heads."""
        return slice(self.first, self.last)

    @property
    def queries(self) -> slice:
        """The queries."""
        return slice(self.start, self.stop)

    @property
    def keys(self) -> slice:
        """The keys."""
        return slice(self.low, self.high)

    def beyond(self, reach: int, device: torch.device) -> torch.Tensor:
        """(queries, keys) bool: pairs further apart than `reach`."""
        import torch

        queries = torch.arange(self.start, self.stop, device=device)[:, None]
        return (queries - torch.arange(self.low, self.high, device=device)[None, :]).abs() > reach


def blocks(query: torch.Tensor, reach: int | None) -> Iterator[Block]:
    """The blocks of a group, whose queries are (batch, longest, head size): none has more than `CACHED` scores."""
    batch, longest, _ = query.shape
    scores = CACHED // query.element_size()
    asked = longest if reach is None else min(longest, max(_LEAST_QUERIES, 2 * reach))
    seen = min(longest, longest if reach is None else asked + 2 * reach)
    heads = max(1, scores // (asked * seen))
    if heads == 1:  # one head of a long row is more than the cache holds
        heads = min(batch, _LEAST_HEADS)
        asked = max(_LEAST_QUERIES, scores // (heads * seen))
    for first in range(0, batch, heads):
        for start in range(0, longest, asked):
            stop = min(longest, start + asked)
            low, high = (0, longest) if reach is None else (max(0, start - reach), min(longest, stop + reach))
            yield Block(first, min(batch, first + heads), start, stop, low, high)


@dataclass(slots=True)
class ProductPass:
    """One layer's attention over a packed batch: `query`, `key`, `value` and `result` are (cells * heads, head size).

    Queries are multiplied by `factor`, and the sums of weights are in `total`, (cells * heads, 1). `shifted` says of
    each group whether the maximum had to be taken off; it is in `peak`, (cells * heads, 1), which is 0 elsewhere.
    `context` goes on from here where tokens also look at a corpus context.
    """

    packing: Packing
    heads: int
    factor: float
    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    result: torch.Tensor
    total: torch.Tensor
    peak: torch.Tensor
    shifted: list[bool]

    @classmethod
    def of(cls, parts: Sequence[torch.Tensor], packing: Packing, scale: float) -> ProductPass:
        """The layout by rows and heads of `parts`, (tokens, heads, head size) each."""
        import torch

        heads, size = parts[0].shape[1:]
        cells, _ = places_by_head(packing, heads, parts[0].device)
        query, key, value = (part.reshape(-1, size).index_select(0, cells) for part in parts)
        factor = scale * math.log2(math.e)
        query.mul_(factor)
        result, total, peak = torch.empty_like(query), query.new_ones(len(query), 1), query.new_zeros(len(query), 1)
        return cls(packing, heads, factor, query, key, value, result, total, peak, [False] * len(packing.groups))

    def groups(self) -> list[HeadRows]:
        """The groups, as views."""
        parts = (self.query, self.key, self.value, self.result, self.total, self.peak)
        return [HeadRows(group, self.heads, *views) for group, views in split_groups(self.packing, self.heads, *parts)]

    def forward(self, reach: int | None) -> torch.Tensor:
        """The attention, (tokens, heads, head size)."""
        self.attend(reach)
        return self.by_token(self.result)

    def attend(self, reach: int | None) -> None:
        """Fill in the result and the total."""
        groups = self.groups()
        for rows in groups:
            _attend(rows, reach, shifted=False)
        if not in_range(self.total):
            for number, rows in enumerate(groups):
                if not in_range(rows.total):
                    self.shifted[number] = True
                    _attend(rows, reach, shifted=True)

    def backward(self, gradient: torch.Tensor, reach: int | None) -> list[torch.Tensor]:
        """Gradients of query, key and value, (tokens, heads, head size), from that of the attention."""
        import torch

        cells, _ = places_by_head(self.packing, self.heads, gradient.device)
        given = gradient.reshape(-1, gradient.shape[2]).index_select(0, cells)
        found = [torch.zeros_like(given) for _ in range(3)]
        shares = split_groups(self.packing, self.heads, given, *found)
        for rows, shifted, (_, (own, *parts)) in zip(self.groups(), self.shifted, shares, strict=True):
            rows.clear_filling(own)
            _differentiate(rows, reach, own, parts, shifted=shifted)
        # Of the scaled queries: 2^s has the gradient ln 2 2^s, and the query itself is smaller by the factor.
        found[0].mul_(math.log(2) * self.factor)
        found[1].mul_(math.log(2))
        return [self.by_token(part) for part in found]

    def by_token(self, part: torch.Tensor) -> torch.Tensor:
        """(cells * heads, width) -> (tokens, heads, width), zeros for the filling."""
        _, back = places_by_head(self.packing, self.heads, part.device)
        laid_out: torch.Tensor = part.index_select(0, back).view(-1, self.heads, part.shape[1])
        laid_out[self.packing.tokens :] = 0  # the filling belongs to no row
        return laid_out


@cache
def _differentiable() -> Any:
    """The function that autograd knows; a class, which cannot be written down without torch."""
    import torch

    class PackedProducts(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *inputs: Any) -> torch.Tensor:
            *parts, packing, scale, reach = inputs
            done = ProductPass.of(parts, packing, scale)
            result: torch.Tensor = done.forward(reach)
            # Where autograd knows of them, so that gradient checkpointing can let go of them.
            ctx.save_for_backward(done.query, done.key, done.value, done.result, done.total, done.peak)
            ctx.made = packing, done.heads, done.factor, done.shifted, reach
            return result

        @staticmethod
        def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
            packing, heads, factor, shifted, reach = ctx.made
            query, key, value, result, total, peak = ctx.saved_tensors
            done = ProductPass(packing, heads, factor, query, key, value, result, total, peak, shifted)
            return (*done.backward(gradients[0], reach), None, None, None)

    return PackedProducts


def _weights(rows: HeadRows, block: Block, reach: int | None, *, shifted: bool, again: bool = False) -> torch.Tensor:
    """2^s of a block, (its batch, queries, keys); `shifted` takes the maximum off the scores first.

    The maximum is kept in `rows.peak`. `again` takes it from there: what is saved for a gradient is never written to.
    """
    import torch

    weights = torch.bmm(rows.query[block.batch, block.queries], rows.key[block.batch, block.keys].transpose(1, 2))
    if shifted:
        rows.hide(weights, block, reach, -math.inf)
        peak = rows.peak[block.batch, block.queries]
        if not again:
            # Finite limits: a query that sees no key at all gets zeros, as from torch's own attention.
            torch.amax(weights, dim=-1, keepdim=True, out=peak).clamp_(min=-_MOST)
        weights.sub_(peak)
    weights.exp2_()
    if not shifted:
        rows.hide(weights, block, reach, 0.0)
    return weights


def _attend(rows: HeadRows, reach: int | None, *, shifted: bool) -> None:
    """Fills in the result and the total of a group."""
    import torch

    for block in blocks(rows.query, reach):
        batch, asked = block.batch, block.queries
        weights = _weights(rows, block, reach, shifted=shifted)
        total = torch.sum(weights, dim=-1, keepdim=True, out=rows.total[batch, asked])
        mixed = torch.bmm(weights, rows.value[batch, block.keys])
        torch.div(mixed, total.clamp_(min=_LEAST) if shifted else total, out=rows.result[batch, asked])


def _differentiate(
    rows: HeadRows, reach: int | None, given: torch.Tensor, found: Sequence[torch.Tensor], *, shifted: bool
) -> None:
    """Adds a group's gradients of (scaled) query, key and value to `found`; `given` is that of its result."""
    import torch

    of_query, of_key, of_value = found
    shares = (given * rows.result).sum(dim=-1, keepdim=True)
    for block in blocks(rows.query, reach):
        batch, asked, seen = block.batch, block.queries, block.keys
        weights = _weights(rows, block, reach, shifted=shifted, again=True).div_(rows.total[batch, asked])
        of_value[batch, seen] += torch.bmm(weights.transpose(1, 2), given[batch, asked])
        of_scores = torch.bmm(given[batch, asked], rows.value[batch, seen].transpose(1, 2))
        of_scores.sub_(shares[batch, asked]).mul_(weights)
        of_query[batch, asked] += torch.bmm(of_scores, rows.key[batch, seen])
        of_key[batch, seen] += torch.bmm(of_scores.transpose(1, 2), rows.query[batch, asked])


def in_range(total: torch.Tensor) -> bool:
    """Whether all sums of weights have all their digits; false for what is no number."""
    return total.amin().item() > _LEAST and total.amax().item() < _MOST
