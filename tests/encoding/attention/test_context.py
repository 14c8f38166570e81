"""Attention that also looks at a corpus context against the definition: one softmax over own keys and biased others."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxindex.encoding.attention import context as attention_context
from ctxindex.encoding.attention import packed as attention
from ctxindex.encoding.attention.context import AttentionContext, ContextRecorder
from ctxindex.encoding.attention.packed import packed_attention
from ctxindex.encoding.packing import Packing

HEADS, SIZE = 3, 8
LAYER = torch.nn.Identity()
LENGTHS = st.lists(st.integers(1, 70), min_size=1, max_size=8).map(lambda found: tuple(sorted(found, reverse=True)))
WAYS = pytest.mark.parametrize("products", [True, False], ids=["products", "sdpa"])


class Case:
    """Rows and a context, all of them asking for gradients."""

    def __init__(
        self, lengths: tuple[int, ...], size: int, dtype: torch.dtype = torch.float64, *, spread: float = 1.0
    ) -> None:
        generator = torch.Generator().manual_seed(sum(lengths) + size)

        def drawn(*shape: int, scale: float = 1.0) -> torch.Tensor:
            return (torch.randn(*shape, generator=generator) * scale).to(dtype).requires_grad_()

        self.packing = Packing(lengths)
        self.rows = [drawn(1, self.packing.filled, HEADS, SIZE, scale=scale) for scale in (spread, spread, 1.0)]
        self.key, self.value = drawn(HEADS, size, SIZE, scale=spread), drawn(HEADS, size, SIZE)
        self.bias = drawn(1)

    @property
    def leaves(self) -> list[torch.Tensor]:
        return [*self.rows, self.key, self.value, self.bias]

    def found(self, reach: int | None = None) -> torch.Tensor:
        query, key, value = (part.transpose(1, 2) for part in self.rows)
        context = AttentionContext({LAYER: 0}, ((self.key, self.value),), self.bias)
        window = None if reach is None else reach + 1
        found, _ = packed_attention(
            LAYER, query, key, value, None, packing=self.packing, context=context, sliding_window=window
        )
        return found[0, : self.packing.tokens]

    def expected(self, reach: int | None = None) -> torch.Tensor:
        query, key, value = (part[0].transpose(0, 1) for part in self.rows)
        found = []
        for start, stop in pairwise(self.packing.starts):
            own = query[:, start:stop] @ key[:, start:stop].transpose(1, 2) * SIZE**-0.5
            if reach is not None:
                places = torch.arange(stop - start)
                own = own.masked_fill((places[:, None] - places).abs() > reach, -torch.inf)
            others = query[:, start:stop] @ self.key.transpose(1, 2) * SIZE**-0.5
            others = others + self.bias - math.log(self.key.shape[1])
            weights = torch.softmax(torch.cat([own, others], dim=-1), dim=-1)
            mixed = weights @ torch.cat([value[:, start:stop], self.value], dim=1)
            found.append(mixed.transpose(0, 1))
        return torch.cat(found)


def choose(monkeypatch: pytest.MonkeyPatch, *, products: bool) -> None:
    monkeypatch.setattr(attention, "_products_are_fast", lambda query: products)


@given(lengths=LENGTHS, size=st.integers(1, 40), reach=st.none() | st.integers(0, 20))
@settings(deadline=None, max_examples=40)
def test_is_the_definition(lengths: tuple[int, ...], size: int, reach: int | None) -> None:
    case = Case(lengths, size)
    with torch.inference_mode():
        assert (case.found(reach) - case.expected(reach)).abs().max() < 1e-12


@WAYS
@pytest.mark.parametrize("reach", [None, 6])
@pytest.mark.parametrize("spread", [1.0, 25.0], ids=["in range", "beyond the range of sums"])
def test_gradients_are_those_of_the_definition(
    products: bool, reach: int | None, spread: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose(monkeypatch, products=products)
    monkeypatch.setattr(attention_context, "_CACHED", 4096)  # several blocks
    monkeypatch.setattr(attention_context, "_LEAST_TOKENS", 16)
    case = Case((40, 17, 17, 3), 11, spread=spread)
    weights = torch.linspace(-1, 1, case.packing.tokens * HEADS * SIZE, dtype=torch.float64).view(-1, HEADS, SIZE)
    found, expected = case.found(reach), case.expected(reach)
    assert (found - expected).abs().max() < 1e-9
    gradients = (torch.autograd.grad((one * weights).sum(), case.leaves) for one in (found, expected))
    for mine, right in zip(*gradients, strict=True):
        assert (mine - right).abs().max() < 1e-9 * max(1.0, float(right.abs().max()))


@WAYS
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 3e-6), (torch.bfloat16, 4e-2)])
def test_holds_in_the_types_that_models_run_in(
    products: bool, dtype: torch.dtype, tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose(monkeypatch, products=products)
    case = Case((40, 17, 3), 11, dtype)
    case.bias = case.bias.detach().float()  # never rounded
    exact = Case((40, 17, 3), 11)
    for mine, right in zip(case.leaves, exact.leaves, strict=True):
        right.data.copy_(mine.data)
    with torch.inference_mode():
        assert (case.found().double() - exact.expected()).abs().max() < tolerance


@WAYS
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("lengths", [(6, 6), (6, 4)], ids=["without a mask", "with a mask"])
def test_the_bias_is_not_rounded_to_the_type_of_the_states(
    products: bool, dtype: torch.dtype, lengths: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where all scores are 0 and only the context's values are 1, what comes out is the share of the context."""
    choose(monkeypatch, products=products and dtype != torch.float16)
    size, bias = 300, -8.22  # between two numbers of bfloat16, 0.03 from each
    case = Case(lengths, size, dtype)
    for part, number in zip((*case.rows, case.key, case.value), (0.0, 0.0, 0.0, 0.0, 1.0), strict=True):
        part.data.fill_(number)
    case.bias = torch.tensor([bias + math.log(size)], requires_grad=True)
    found = case.found()
    for (start, stop), length in zip(pairwise(case.packing.starts), lengths, strict=True):
        share = size * math.exp(bias) / (length + size * math.exp(bias))
        assert (found[start:stop].double() / share - 1).abs().max() < 6e-3
    expected = sum(
        length * HEADS * SIZE * length * size * math.exp(bias) / (length + size * math.exp(bias)) ** 2
        for length in lengths
    )
    (gradient,) = torch.autograd.grad(found.double().sum(), [case.bias])
    assert gradient.dtype == torch.float32
    assert float(gradient) == pytest.approx(expected, rel=2e-2)


@WAYS
def test_a_share_far_from_the_range_of_a_type_is_no_accident(products: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Either side may take all the attention, and neither may leave something that is no number."""
    choose(monkeypatch, products=products)
    for own, others in ((60.0, -60.0), (-60.0, 60.0)):
        case = Case((20, 5), 7, torch.float32)
        case.rows[0].data.fill_(1.0)
        case.rows[1].data.fill_(own)
        case.key.data.fill_(others)
        assert torch.allclose(case.found(), case.expected(), atol=1e-5)
        assert all(torch.isfinite(one).all() for one in torch.autograd.grad(case.found().sum(), case.leaves))


@WAYS
def test_without_a_share_nothing_changes(products: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    choose(monkeypatch, products=products)
    case = Case((30, 8), 5, torch.float32)
    case.bias.data.fill_(-torch.inf)
    query, key, value = (part.transpose(1, 2) for part in case.rows)
    with torch.no_grad():
        alone, _ = packed_attention(LAYER, query, key, value, None, packing=case.packing)
        found = case.found()
    assert torch.equal(found, alone[0, : case.packing.tokens]) if products else torch.allclose(found, alone[0, :38])
    gradients = torch.autograd.grad(case.found().sum(), case.leaves)
    assert all(torch.isfinite(one).all() for one in gradients)


def test_a_recorder_sees_tokens_without_order_and_keeps_what_layers_make_of_them() -> None:
    query, key, value = (torch.randn(1, HEADS, 9, SIZE, dtype=torch.float64) for _ in range(3))
    recorder = ContextRecorder({LAYER: 0})
    found, _ = packed_attention(LAYER, query, key, value, None, packing=None, context=recorder, sliding_window=2)
    weights = torch.softmax(query @ key.transpose(2, 3) * SIZE**-0.5, dim=-1)
    assert torch.allclose(found, (weights @ value).transpose(1, 2), atol=1e-12)
    ((kept_key, kept_value),) = recorder.layers
    assert torch.equal(kept_key, key[0])
    assert torch.equal(kept_value, value[0])
