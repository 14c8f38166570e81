"""Attention over packed rows against the definition, softmax(q k^T scale) v, in float64 and row by row."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxindex.encoding.attention import packed as attention
from ctxindex.encoding.attention import products as attention_products
from ctxindex.encoding.attention.packed import packed_attention
from ctxindex.encoding.packing import Packing

HEADS, SIZE = 3, 8
NOWHERE = torch.nn.Identity()
TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 3e-2, torch.float16: 4e-3}
LENGTHS = st.lists(st.integers(1, 90), min_size=1, max_size=12).map(lambda found: tuple(sorted(found, reverse=True)))


def parts(
    packing: Packing, dtype: torch.dtype, *, kv_heads: int = HEADS, spread: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Query, key and value, (1, heads, tokens, size), laid out by token as a model gives them."""
    generator = torch.Generator().manual_seed(packing.tokens)
    query, key, value = (
        (torch.randn(1, packing.filled, heads, SIZE, generator=generator) * spread).to(dtype).transpose(1, 2)
        for heads in (HEADS, kv_heads, kv_heads)
    )
    return query, key, value


def defined(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, packing: Packing, window: int | None = None
) -> torch.Tensor:
    """(1, tokens, heads, size) float64; zeros where a query sees nothing."""
    query, key, value = (part[0].double() for part in (query, key, value))
    key, value = (part.repeat_interleave(len(query) // len(part), 0) for part in (key, value))
    out = torch.zeros(packing.filled, len(query), SIZE, dtype=torch.float64)
    for (start, stop), attended in zip(pairwise(packing.starts), packing.attended or packing.lengths, strict=True):
        scores = query[:, start:stop] @ key[:, start:stop].transpose(1, 2) * SIZE**-0.5
        places = torch.arange(stop - start)
        seen = places[None, :].expand(len(places), -1) < attended
        if window is not None:
            seen = seen & ((places[:, None] - places[None, :]).abs() < window)
        weights = torch.softmax(scores.masked_fill(~seen, -torch.inf), dim=-1).nan_to_num(0.0)
        out[start:stop] = (weights @ value[:, start:stop]).transpose(0, 1)
    return out[None]


def on_another_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a device where matrix products are not the fast way."""
    monkeypatch.setattr(attention, "_products_are_fast", lambda query: False)


def error(found: torch.Tensor, expected: torch.Tensor, packing: Packing) -> float:
    """The largest difference, the filling aside, which may hold any number."""
    assert found.shape == expected.shape
    assert torch.isfinite(found).all()
    return float((found.double() - expected)[:, : packing.tokens].abs().max())


def check(found: torch.Tensor, expected: torch.Tensor, packing: Packing) -> None:
    assert error(found, expected, packing) < TOLERANCE[found.dtype]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@given(lengths=LENGTHS)
@settings(deadline=None)
def test_is_the_definition(dtype: torch.dtype, lengths: tuple[int, ...]) -> None:
    packing = Packing(lengths)
    given_parts = parts(packing, dtype)
    found, weights = packed_attention(NOWHERE, *given_parts, None, packing=packing)
    assert weights is None
    assert found.dtype == dtype
    check(found, defined(*given_parts, packing), packing)


@pytest.mark.parametrize("sdpa", [False, True])
@pytest.mark.parametrize("window", [None, 1, 5, 200])
@pytest.mark.parametrize("cached", [1, 2**13, 2**23])
def test_windows_blocks_and_ways(monkeypatch: pytest.MonkeyPatch, sdpa: bool, window: int | None, cached: int) -> None:
    """Small blocks and sliding windows, on the way of a CPU and on that of other devices."""
    monkeypatch.setattr(attention_products, "CACHED", cached)
    monkeypatch.setattr(attention_products, "_LEAST_QUERIES", 7)
    if sdpa:
        on_another_device(monkeypatch)
    packing = Packing((150, 149, 60, 59, 58, 3, 1))
    given_parts = parts(packing, torch.float32)
    found, _ = packed_attention(NOWHERE, *given_parts, None, packing=packing, sliding_window=window)
    check(found, defined(*given_parts, packing, window), packing)


@pytest.mark.parametrize("sdpa", [False, True])
@pytest.mark.parametrize("window", [None, 4])
def test_tokens_that_are_not_looked_at(monkeypatch: pytest.MonkeyPatch, sdpa: bool, window: int | None) -> None:
    if sdpa:
        on_another_device(monkeypatch)
    packing = Packing((32, 32, 32, 20), (32, 10, 1, 20))
    given_parts = parts(packing, torch.float32)
    found, _ = packed_attention(NOWHERE, *given_parts, None, packing=packing, sliding_window=window)
    check(found, defined(*given_parts, packing, window), packing)


def test_fewer_heads_of_keys() -> None:
    packing = Packing((40, 12))
    given_parts = parts(packing, torch.float32, kv_heads=1)
    found, _ = packed_attention(NOWHERE, *given_parts, None, packing=packing)
    check(found, defined(*given_parts, packing), packing)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_scores_beyond_the_range_of_the_type(dtype: torch.dtype) -> None:
    """Scores of some thousands, where 2^s is infinite for one key and zero for all keys of another query."""
    packing = Packing((50, 33))
    query, key, value = parts(packing, dtype, spread=60.0)
    value = value / 60
    found, _ = packed_attention(NOWHERE, query, key, value, None, packing=packing)
    expected = defined(query, key, value, packing)
    # In bfloat16 a score of thousands is only known to within some tens, so that the winner may be another key.
    assert torch.isfinite(found).all()
    if dtype == torch.float32:
        assert error(found, expected, packing) < 1e-2


def test_float16_scores_that_leave_its_range() -> None:
    packing = Packing((50, 33))
    query, key, value = parts(packing, torch.float16, spread=3.0)
    found, _ = packed_attention(NOWHERE, query, key, value, None, packing=packing)
    expected = defined(query, key, value, packing)
    assert error(found, expected, packing) < 0.05


def test_what_cuda_is_given() -> None:
    """`_varlen` with a stand-in that does what torch's documentation says of the real one."""
    packing = Packing((40, 30, 5))
    query, key, value = parts(packing, torch.float32)

    def flash(
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        edges: torch.Tensor,
        key_edges: torch.Tensor,
        longest: int,
        longest_keys: int,
        *,
        scale: float,
        window_size: tuple[int, int],
    ) -> torch.Tensor:
        assert edges.dtype == torch.int32
        assert int(edges[-1]) == len(query)
        assert longest == longest_keys >= int(edges.diff().max())
        out = torch.empty_like(query)
        for start, stop in pairwise(edges.tolist()):
            one = [part[start:stop].transpose(0, 1).double() for part in (query, key, value)]
            places = torch.arange(stop - start)
            far = (places[:, None] - places[None, :]).abs() > (window_size[0] if window_size[0] >= 0 else 10**6)
            scores = (one[0] @ one[1].transpose(1, 2) * scale).masked_fill(far, -torch.inf)
            out[start:stop] = (torch.softmax(scores, -1) @ one[2]).transpose(0, 1).to(out.dtype)
        return out

    for window in (None, 6):
        reach = None if window is None else window - 1
        found = attention._varlen(flash, query[0], key[0], value[0], packing, SIZE**-0.5, reach)
        expected = defined(query, key, value, packing, window)[0]
        check(found[None], expected[None], packing)


@pytest.mark.parametrize("sdpa", [False, True])
@pytest.mark.parametrize(("window", "cached"), [(None, 2**23), (None, 2**12), (5, 2**12)])
@pytest.mark.parametrize("spread", [1.0, 60.0])
def test_gradients(monkeypatch: pytest.MonkeyPatch, sdpa: bool, window: int | None, cached: int, spread: float) -> None:
    """Against those of the definition in float64, in small blocks and with scores beyond the range of 2^s."""
    if sdpa:
        on_another_device(monkeypatch)
    monkeypatch.setattr(attention_products, "CACHED", cached)
    monkeypatch.setattr(attention_products, "_LEAST_QUERIES", 7)
    packing = Packing((70, 69, 33, 20, 1), (70, 12, 33, 20, 1))
    query, key, value = (
        part.detach().requires_grad_() for part in parts(packing, torch.float32, spread=spread, kv_heads=1)
    )
    wide_query, wide_key, wide_value = (part.detach().double().requires_grad_() for part in (query, key, value))
    pull = torch.randn(1, packing.tokens, HEADS, SIZE, generator=torch.Generator().manual_seed(1))
    attended, _ = packed_attention(NOWHERE, query, key, value, None, packing=packing, sliding_window=window)
    torch.autograd.backward((attended[:, : packing.tokens] * pull).sum(), retain_graph=True)
    once = [part.grad.clone() for part in (query, key, value) if part.grad is not None]
    torch.autograd.backward((attended[:, : packing.tokens] * pull).sum())  # nothing that is kept has been written to
    wide = defined(wide_query, wide_key, wide_value, packing, window)
    torch.autograd.backward((wide[:, : packing.tokens] * pull).sum())
    found, expected = (query, key, value), (wide_query, wide_key, wide_value)
    for one, other, first in zip(found, expected, once, strict=True):
        assert one.grad is not None
        assert torch.equal(one.grad, 2 * first)
        one.grad.div_(2)
        assert other.grad is not None
        largest = float(other.grad.abs().max())
        allowed = 2e-5 if spread == 1 else 2e-3  # scores of thousands have few digits behind the point
        assert float((one.grad.double() - other.grad).abs().max()) < allowed * largest
