"""Attention over packed rows: each token of a row looks at the tokens of its own row, and at no others.

transformers calls `packed_attention` wherever a layer attends (its public attention interface); the rows are told
apart by the `Packing` that comes with the call. Three ways to the same result, softmax(q k^T scale) v, row by row:

- on CUDA in half precision, torch's flash attention over rows of varying length, without any padding;
- on a CPU, in float32 and bfloat16, matrix products (`products`);
- anywhere else, `scaled_dot_product_attention` over groups of rows of like length.

All three have gradients, so that a model is trained on the rows that it will read. Where a call brings a corpus
context, its keys are seen besides those of the row (`context`); flash attention, which cannot do that, is not
used then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ctxindex.encoding.attention.context import AttentionContext, ContextRecorder, LayerContext, attend_in_context
from ctxindex.encoding.attention.products import Block, attend_by_products, places_by_head, split_groups

if TYPE_CHECKING:
    import torch

    from ctxindex.encoding.packing import Group, Packing

NAME = "ctxindex"
"""What this attention is called in a model's configuration."""

_PARTS = 3
"""Numbers of bfloat16 that one of float32 is the sum of."""

_COLUMNS = 8
"""The least that sizes of heads are multiples of, or kernels for half precision do not take them."""


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
    packing: Packing | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    context: AttentionContext | ContextRecorder | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """What transformers calls: (1, heads, tokens, head size) each -> (1, tokens, heads, head size).

    Keys and values may have fewer heads (grouped-query attention). `sliding_window` is meant as flash attention means
    it: a token sees those less than this many tokens away, on both sides. A `context` is seen by every token, as far as
    it is away; with a recorder the tokens are context tokens themselves, without any order, and no `packing` is needed.
    """
    import torch

    # Under autocast rotary positions, and norms of queries and keys, leave float32; values are what a product gave.
    query, key, value = query[0].to(value.dtype), key[0].to(value.dtype), value[0]
    repeats = len(query) // len(key)
    if repeats > 1:
        key, value = key.repeat_interleave(repeats, dim=0), value.repeat_interleave(repeats, dim=0)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if isinstance(context, ContextRecorder):
        context.take(module, key, value)
        mixed = torch.nn.functional.scaled_dot_product_attention(query, key, value, scale=scale)
        return mixed.transpose(0, 1)[None], None
    assert packing is not None
    reach = None if sliding_window is None else sliding_window - 1
    if context is not None:
        return _in_context(query, key, value, packing, scale, reach, context.of(module))[None], None
    whole = packing.attended in (None, packing.lengths)
    if query.device.type == "cuda" and query.element_size() == 2 and whole and (flash := _flash()) is not None:
        return _varlen(flash, query, key, value, packing, scale, reach)[None], None
    if _products_are_fast(query):
        return attend_by_products(query, key, value, packing, scale, reach)[None], None
    return _by_groups(query, key, value, packing, scale, reach)[None], None


def _in_context(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    packing: Packing,
    scale: float,
    reach: int | None,
    context: LayerContext,
) -> torch.Tensor:
    """(heads, tokens, head size) each -> (tokens, heads, head size)."""
    if _products_are_fast(query):
        return attend_in_context(query, key, value, packing, scale, reach, context)
    return _by_groups(query, key, value, packing, scale, reach, context)


def _by_groups(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    packing: Packing,
    scale: float,
    reach: int | None,
    context: LayerContext | None = None,
) -> torch.Tensor:
    """The way of any other device: (heads, tokens, head size) each -> (tokens, heads, head size)."""
    import torch

    heads, size = len(query), query.shape[2]
    cells, back = places_by_head(packing, heads, query.device)
    query, key, value = (part.transpose(0, 1).reshape(-1, size).index_select(0, cells) for part in (query, key, value))
    attended = [
        _by_sdpa(group, heads, parts, scale, reach, context)
        for group, parts in split_groups(packing, heads, query, key, value)
    ]
    return torch.cat(attended).index_select(0, back).view(-1, heads, size)


def _products_are_fast(query: torch.Tensor) -> bool:
    """On a CPU, but for float16, whose range is too small for 2^s."""
    import torch

    return query.device.type == "cpu" and query.dtype != torch.float16


def _by_sdpa(
    group: Group,
    heads: int,
    parts: Sequence[torch.Tensor],
    scale: float,
    reach: int | None,
    context: LayerContext | None,
) -> torch.Tensor:
    """A group of rows: (rows * heads, longest, head size) each -> (rows * heads * longest, head size)."""
    import torch

    count, longest, device = len(group.lengths), group.longest, parts[0].device
    query, key, value = (part.view(count, heads, longest, -1) for part in parts)
    seen = None
    size = query.shape[-1]
    if reach is not None or min(group.attended) < longest:
        attended = torch.tensor(group.attended, device=device)
        seen = (torch.arange(longest, device=device)[None, :] < attended[:, None])[:, None, None, :]
        if reach is not None:
            seen = seen & ~Block(0, 1, 0, longest, 0, longest).beyond(reach, device)
    if context is not None:
        query, key, value = _beside(query, key, value, scale, context)
        if seen is not None:
            seen = torch.cat([seen, seen.new_ones(*seen.shape[:3], context.key.shape[1])], dim=-1)
    result = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=seen, scale=scale)
    return result[..., :size].reshape(-1, size)


def _beside(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float, context: LayerContext
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Query, key and value, (rows, heads, tokens, size) each, with the context behind the rows' own keys and values.

    All get `_COLUMNS` more numbers: a query ones, an own key zeros, and a context key the parts of the bias, so that
    their products add it to the scores before these are rounded, where they are rounded at all. A mask would be of the
    type of the states, and a bias of -8 in it wrong by up to 0.03 in bfloat16, which is 3 % of the context's share. A
    value gets zeros, to be as long as a key.
    """
    import torch

    ones = query.new_ones(_PARTS)
    biased = _filled(context.key.to(key.dtype), _parts(context.bias / scale, key.dtype))
    rows = len(key)
    return (
        _filled(query, ones),
        torch.cat([_filled(key, 0 * ones), biased.expand(rows, -1, -1, -1)], dim=2),
        _filled(torch.cat([value, context.value.to(value.dtype).expand(rows, -1, -1, -1)], dim=2), 0 * ones),
    )


def _filled(part: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    """The same `numbers` behind each vector of `part`, then zeros, `_COLUMNS` in all."""
    import torch

    columns = torch.nn.functional.pad(numbers, (0, _COLUMNS - len(numbers)))
    return torch.cat([part, columns.expand(*part.shape[:-1], _COLUMNS)], dim=-1)


def _parts(number: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Numbers of a type whose sum is a wider one, (`_PARTS`,); the gradient goes through the first alone."""
    import torch

    parts = [number.to(dtype)]
    left = number.detach()
    for _ in range(_PARTS - 1):
        # Nothing is left of what is infinite.
        left = (left - parts[-1].detach()).nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
        parts.append(left.to(dtype))
    return torch.stack(parts)


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
