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
done again with the maximum taken off.

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
_LEAST_QUERIES = 64
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
    attend = _by_products if query.device.type == "cpu" and wide else _by_sdpa
    out = query.new_empty(query.shape[1], len(query), query.shape[2])
    out[packing.tokens :] = 0  # the filling is a row of nobody's
    for group in packing.groups(_CACHED // (len(query) * query.element_size())):
        rows = _Rows(group, query, key, value, out)
        attend(rows, scale, reach)
        rows.finish()
    return out[None], None


class _Rows:
    """The rows of a group as batches of (rows * heads, longest, head size); a single row without a copy.

    What is written to `result` is in `out`, (tokens, heads, head size), after `finish`.
    """

    def __init__(
        self, group: Group, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, out: torch.Tensor
    ) -> None:
        import torch

        self.lengths = group.lengths
        self.attended = group.attended
        self.heads = len(query)
        self._place = out[group.start : group.stop]
        if len(group.lengths) == 1:
            self.query, self.key, self.value = (part[:, group.start : group.stop] for part in (query, key, value))
            self.result = self._place.transpose(0, 1)
            return
        cells, back = group.rectangle()
        self._back = torch.from_numpy(back).to(query.device)
        places = torch.from_numpy(cells).to(query.device)
        self.query, self.key, self.value = (self._gather(part, places) for part in (query, key, value))
        self.result = torch.empty_like(self.query)

    def _gather(self, part: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        cells = part.transpose(0, 1).index_select(0, places).view(len(self.lengths), -1, self.heads, part.shape[-1])
        return cells.transpose(1, 2).reshape(-1, self.lengths[0], part.shape[-1])

    def finish(self) -> None:
        """Bring the result to its place, where it is not there already."""
        if len(self.lengths) > 1:
            cells = self.result.view(len(self.lengths), self.heads, *self.result.shape[1:]).transpose(1, 2)
            self._place.copy_(cells.reshape(-1, *self._place.shape[1:]).index_select(0, self._back))

    def hide(self, scores: torch.Tensor, block: _Block, reach: int | None, value: float) -> None:
        """Set the `scores` of a block, (rows * heads, queries, keys), to `value` where no query sees the key."""
        if reach is not None:
            scores.masked_fill_(block.beyond(reach, scores.device), value)
        by_row = scores.view(len(self.lengths), -1, *scores.shape[1:])
        for row, attended in enumerate(self.attended):
            if attended < block.high:
                by_row[row, :, :, max(0, attended - block.low) :] = value


@dataclass(frozen=True, slots=True)
class _Block:
    """Queries `[start, stop)` of a row, and the keys `[low, high)` that some of them see."""

    start: int
    stop: int
    low: int
    high: int

    def beyond(self, reach: int, device: torch.device) -> torch.Tensor:
        """(queries, keys) bool: pairs further apart than `reach`."""
        import torch

        queries = torch.arange(self.start, self.stop, device=device)[:, None]
        return (queries - torch.arange(self.low, self.high, device=device)[None, :]).abs() > reach


def _blocks(query: torch.Tensor, reach: int | None) -> Iterator[_Block]:
    """The blocks of a group whose queries are (rows * heads, longest, head size)."""
    batch, longest, _ = query.shape
    seen = longest if reach is None else min(longest, 2 * reach + _LEAST_QUERIES)
    step = max(_LEAST_QUERIES, _CACHED // (batch * seen * query.element_size()))
    for start in range(0, longest, step):
        stop = min(longest, start + step)
        low, high = (0, longest) if reach is None else (max(0, start - reach), min(longest, stop + reach))
        yield _Block(start, stop, low, high)


def _by_products(rows: _Rows, scale: float, reach: int | None) -> None:
    """The way of a CPU."""
    import torch

    query = rows.query * (scale * math.log2(math.e))
    for block in _blocks(query, reach):
        asked = query[:, block.start : block.stop]
        seen = rows.key[:, block.low : block.high].transpose(1, 2)
        weights = torch.bmm(asked, seen).exp2_()
        rows.hide(weights, block, reach, 0.0)
        total = weights.sum(dim=-1, keepdim=True)
        if not _in_range(total):
            torch.bmm(asked, seen, out=weights)
            rows.hide(weights, block, reach, -math.inf)
            # Finite limits: a query that sees no key at all gets zeros, as from torch's own attention.
            weights.sub_(weights.amax(dim=-1, keepdim=True).clamp_(min=-_MOST)).exp2_()
            total = weights.sum(dim=-1, keepdim=True).clamp_(min=_LEAST)
        mixed = torch.bmm(weights, rows.value[:, block.low : block.high])
        torch.div(mixed, total, out=rows.result[:, block.start : block.stop])


def _in_range(total: torch.Tensor) -> bool:
    """Whether all sums of weights have all their digits; false for what is no number."""
    return total.amin().item() > _LEAST and total.amax().item() < _MOST


def _by_sdpa(rows: _Rows, scale: float, reach: int | None) -> None:
    """The way of any other device."""
    import torch

    count, longest = len(rows.lengths), rows.lengths[0]
    query, key, value = (part.reshape(count, rows.heads, longest, -1) for part in (rows.query, rows.key, rows.value))
    device = rows.query.device
    seen = None
    if reach is not None or min(rows.attended) < longest:
        attended = torch.tensor(rows.attended, device=device)
        seen = (torch.arange(longest, device=device)[None, :] < attended[:, None])[:, None, None, :]
        if reach is not None:
            seen = seen & ~_Block(0, longest, 0, longest).beyond(reach, device)
    result = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=seen, scale=scale)
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
