"""Attention over packed rows: each token of a row looks at the tokens of its own row, and at no others.

transformers calls `packed_attention` wherever a layer attends (its public attention interface); the rows are told
apart by the `Packing` that comes with the call. Three ways to the same result, softmax(q k^T scale) v, row by row:

- on CUDA in half precision, torch's flash attention over rows of varying length, without any padding;
- on a CPU, in float32 and bfloat16, two matrix products with one `exp2` between them, see below;
- anywhere else, `scaled_dot_product_attention` over groups of rows of like length.

**On a CPU** torch's own kernel for attention reaches an eighth of the rate of a matrix product: heads of 32 or 64
numbers are too narrow for it, and the softmax takes the rest. Written out, the products run near full rate, and what is
left is the softmax. It does not need the maximum of the scores where nothing overflows, and exp(s) = 2^(s log2 e), so
with the scale and log2 e multiplied into the queries

    s = q' k^T        w = 2^s        out = (w v) / (sum of w)

which goes over the scores once where softmax goes three times. Where a sum leaves the range of its type, the block is
done again with the maximum taken off. In bfloat16 scores are rounded, where torch's own kernel keeps them in float32:
attention that is very sharp (scores of 20 and more) is less exact than there.

Blocks of scores stay below `_CACHED` bytes, so that they are used before they leave the cache. With a sliding window a
block of queries meets only the keys near it: the cost is linear in the length of a row.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from ctxindex.encoding.packing import Group, Packing

NAME = "ctxindex"
"""What this attention is called in a model's configuration."""

_CACHED = 8 * 2**20
_LEAST_QUERIES, _LEAST_HEADS = 64, 2
_LEAST, _MOST = 2.0**-100, 2.0**120
"""Between them a sum of weights, and their product with values, has all its digits: what underflows is smaller than the
last of them."""


def register() -> None:
    """Make `NAME` known to transformers, with no mask: rows are told apart by their packing."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(NAME, packed_attention)
    AttentionMaskInterface.register(NAME, _no_mask)


def _no_mask(*_: Any, **__: Any) -> None:
    return None


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    packing: Packing,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """What transformers calls: (1, heads, tokens, head size) each -> (1, tokens, heads, head size).

    Keys and values may have fewer heads (grouped-query attention). `sliding_window` is meant as flash attention means
    it: a token sees those less than this many tokens away, on both sides.
    """
    import torch

    query, key, value = query[0], key[0], value[0]
    repeats = len(query) // len(key)
    if repeats > 1:
        key, value = key.repeat_interleave(repeats, dim=0), value.repeat_interleave(repeats, dim=0)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    reach = None if sliding_window is None else sliding_window - 1
    whole = packing.attended in (None, packing.lengths)
    if query.device.type == "cuda" and query.element_size() == 2 and whole and (flash := _flash()) is not None:
        return _varlen(flash, query, key, value, packing, scale, reach)[None], None
    wide = query.dtype != torch.float16  # whose range is too small for 2^s
    by_products = query.device.type == "cpu" and wide
    heads, size = len(query), query.shape[2]
    cells, back = _by_head(packing, heads, query.device)
    query, key, value = (part.transpose(0, 1).reshape(-1, size).index_select(0, cells) for part in (query, key, value))
    flat = (query.mul_(scale * math.log2(math.e) if by_products else scale), key, value, torch.empty_like(query))
    total = query.new_ones(len(query), 1)
    groups: list[_Rows] = []
    start = 0
    for group in packing.groups:
        stop = start + group.cells * heads
        parts = (part[start:stop].view(-1, group.longest, part.shape[1]) for part in (*flat, total))
        groups.append(_Rows(group, heads, *parts))
        start = stop
    if by_products:
        _by_products(groups, total, reach)
    else:
        _by_sdpa(groups, reach)
    return flat[-1].index_select(0, back).view(1, -1, heads, size), None


def _by_head(packing: Packing, heads: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """`Packing.by_head` on the device, worked out once for all layers of a batch."""
    import torch

    if heads not in packing.placed:
        cells, back = (torch.from_numpy(index).to(device) for index in packing.by_head(heads))
        packing.placed[heads] = cells, back
    return packing.placed[heads]


@dataclass(frozen=True, slots=True)
class _Rows:
    """The rows of a group as one batch: all parts are (rows * heads, longest, head size), contiguous.

    Queries are scaled. The attention of the rows goes into `result`, and the sums of weights into `total`, (rows *
    heads, longest, 1).
    """

    group: Group
    heads: int
    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    result: torch.Tensor
    total: torch.Tensor

    def hide(self, scores: torch.Tensor, block: _Block, reach: int | None, value: float) -> None:
        """Set the `scores` of a block, (its batch, queries, keys), to `value` where no query sees the key."""
        if reach is not None:
            scores.masked_fill_(block.beyond(reach, scores.device), value)
        for row in range(block.first // self.heads, -(-block.last // self.heads)):
            attended = self.group.attended[row]
            if attended < block.high:
                begin, end = max(block.first, row * self.heads), min(block.last, (row + 1) * self.heads)
                scores[begin - block.first : end - block.first, :, max(0, attended - block.low) :] = value


@dataclass(frozen=True, slots=True)
class _Block:
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


def _blocks(query: torch.Tensor, reach: int | None) -> Iterator[_Block]:
    """The blocks of a group, whose queries are (batch, longest, head size): none has more than `_CACHED` scores."""
    batch, longest, _ = query.shape
    scores = _CACHED // query.element_size()
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
            yield _Block(first, min(batch, first + heads), start, stop, low, high)


def _by_products(groups: list[_Rows], total: torch.Tensor, reach: int | None) -> None:
    """The way of a CPU; `total` is that of all groups together."""
    for rows in groups:
        _attend(rows, reach, shifted=False)
    if not _in_range(total):
        for rows in groups:
            if not _in_range(rows.total):
                _attend(rows, reach, shifted=True)


def _attend(rows: _Rows, reach: int | None, *, shifted: bool) -> None:
    """Fills in the result and the total; `shifted` takes the maximum off the scores first."""
    import torch

    for block in _blocks(rows.query, reach):
        batch, asked, seen = block.batch, block.queries, block.keys
        weights = torch.bmm(rows.query[batch, asked], rows.key[batch, seen].transpose(1, 2))
        if shifted:
            rows.hide(weights, block, reach, -math.inf)
            # Finite limits: a query that sees no key at all gets zeros, as from torch's own attention.
            weights.sub_(weights.amax(dim=-1, keepdim=True).clamp_(min=-_MOST))
        weights.exp2_()
        if not shifted:
            rows.hide(weights, block, reach, 0.0)
        total = torch.sum(weights, dim=-1, keepdim=True, out=rows.total[batch, asked])
        mixed = torch.bmm(weights, rows.value[batch, seen])
        torch.div(mixed, total.clamp_(min=_LEAST) if shifted else total, out=rows.result[batch, asked])


def _in_range(total: torch.Tensor) -> bool:
    """Whether all sums of weights have all their digits; false for what is no number."""
    return total.amin().item() > _LEAST and total.amax().item() < _MOST


def _by_sdpa(groups: list[_Rows], reach: int | None) -> None:
    """The way of any other device."""
    import torch

    for rows in groups:
        count, longest, device = len(rows.group.lengths), rows.group.longest, rows.query.device
        parts = (part.view(count, rows.heads, longest, -1) for part in (rows.query, rows.key, rows.value))
        query, key, value = parts
        seen = None
        if reach is not None or min(rows.group.attended) < longest:
            attended = torch.tensor(rows.group.attended, device=device)
            seen = (torch.arange(longest, device=device)[None, :] < attended[:, None])[:, None, None, :]
            if reach is not None:
                seen = seen & ~_Block(0, 1, 0, longest, 0, longest).beyond(reach, device)
        result = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=seen, scale=1.0)
        rows.result.copy_(result.reshape(rows.result.shape))


def _flash() -> Callable[..., Any] | None:
    """The flash attention over packed rows that torch has from release 2.10 on."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    return varlen_attn  # type: ignore[no-any-return, unused-ignore]  # untyped in some releases


def _varlen(
    flash: Callable[..., Any],
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    packing: Packing,
    scale: float,
    reach: int | None,
) -> torch.Tensor:
    """The way of CUDA: (tokens, heads, head size). The filling is a row of its own."""
    import torch

    ends = [*packing.starts, packing.filled] if packing.filled > packing.tokens else list(packing.starts)
    edges = torch.tensor(ends, dtype=torch.int32, device=query.device)
    longest = max(packing.lengths[0], packing.filled - packing.tokens)
    window = (-1, -1) if reach is None else (reach, reach)
    parts = (part.transpose(0, 1).contiguous() for part in (query, key, value))
    result: torch.Tensor = flash(*parts, edges, edges, longest, longest, scale=scale, window_size=window)
    return result
