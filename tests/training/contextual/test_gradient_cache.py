"""The gradient in parts is that of one pass, for every weight of both stages, whatever is random in between."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from ctxindex.training.contextual import gradient_cache
from ctxindex.training.contextual.context import ContextDropout, withheld
from ctxindex.training.contextual.contrastive import contrastive_loss
from ctxindex.training.contextual.filtering import FalseNegativeFilter
from ctxindex.training.contextual.gradient_cache import ContextualBatch, PartSizes, RandomState, TwoStageGradient
from ctxindex.training.objective import StepLoss
from tests.training.contextual.twins import Text, Twins, task

SIZES = [(1, 1), (2, 3), (3, 5), (8, 24), (None, 7), (5, None), (100, 100)]

Gradients = dict[str, torch.Tensor]


@pytest.fixture(autouse=True)
def _float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def model_of(slot_dropout: float = 0.0) -> Twins:
    torch.manual_seed(3)
    return Twins(16, 2, slot_dropout)


def batch_of(*, dropped: bool = False) -> ContextualBatch[Text]:
    """Texts of several lengths, so that parts are padded otherwise than the whole."""
    rng = np.random.default_rng(4)
    one = task(1, rng, documents=12, slots=8)
    documents = [document[: 2 + number % 3] for number, document in enumerate(one.documents)]
    groups = [one.queries, [*documents, *one.context[:5]]]
    drops = None
    if dropped:
        dropout = ContextDropout(0.3, 0.2)
        drops = [torch.from_numpy(dropout.draw(len(group), len(one.context), rng)) for group in groups]
    return ContextualBatch(one.context, groups, drops)


def loss_of(vectors: list[torch.Tensor]) -> StepLoss:
    queries, documents = vectors
    scores = torch.randn(len(queries), len(documents), generator=torch.Generator().manual_seed(8))
    hard = range(len(documents) - len(queries))
    removed = FalseNegativeFilter("relative", 0.1).removed(scores, hard)
    found = contrastive_loss(queries, documents, removed, 0.1)
    return StepLoss(found.loss, {"accuracy": found.accuracy})


def gradients(model: Twins) -> Gradients:
    found = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
    model.zero_grad()
    return found


def plain(model: Twins, batch: ContextualBatch[Text], first: int | None, second: int | None) -> tuple[float, Gradients]:
    """One graph of everything, written out; read in the same parts, as those decide what torch draws."""
    torch.manual_seed(11)
    cut = gradient_cache._places
    context = torch.cat([model.first(batch.context[part]) for part in cut(len(batch.context), first)])
    vectors = []
    for number, group in enumerate(batch.groups):
        read = []
        for part in cut(len(group), second):
            drops = None if batch.drops is None else batch.drops[number][part]
            read.append(model.second(group[part], context if drops is None else withheld(context, model.null, drops)))
        vectors.append(torch.cat(read))
    total = loss_of(vectors).total
    torch.autograd.backward(total)
    return float(total.detach()), gradients(model)


def cached(
    model: Twins, batch: ContextualBatch[Text], first: int | None, second: int | None
) -> tuple[float, Gradients]:
    torch.manual_seed(11)
    gradient = TwoStageGradient(model, loss_of, null=model.null, sizes=PartSizes(first, second))
    return float(gradient.step(batch).total), gradients(model)


def apart(found: Gradients, expected: Gradients) -> float:
    assert found.keys() == expected.keys()
    return max(float((found[name] - one).abs().max()) for name, one in expected.items())


@pytest.mark.parametrize(("first", "second"), SIZES)
@pytest.mark.parametrize("slot_dropout", [0.0, 0.3])
def test_the_gradient_in_parts_is_that_of_one_graph(first: int | None, second: int | None, slot_dropout: float) -> None:
    model, batch = model_of(slot_dropout), batch_of(dropped=True)
    expected_loss, expected = plain(model, batch, first, second)
    assert expected.keys() == dict(model.named_parameters()).keys()
    assert float(expected["null"].abs().max()) > 1e-3
    assert float(expected["bias"].abs()) > 1e-4
    assert float(expected["stages.0.embedding.weight"].abs().max()) > 1e-3
    found_loss, found = cached(model, batch, first, second)
    assert found_loss == pytest.approx(expected_loss, abs=1e-12)
    assert apart(found, expected) < 1e-10


def test_parts_of_any_size_give_the_same_where_only_the_batch_is_drawn() -> None:
    model, batch = model_of(), batch_of(dropped=True)
    whole_loss, whole = cached(model, batch, None, None)
    for first, second in SIZES:
        loss, found = cached(model, batch, first, second)
        assert loss == pytest.approx(whole_loss, abs=1e-12)
        assert apart(found, whole) < 1e-10


def test_in_float32_as_well() -> None:
    torch.set_default_dtype(torch.float32)
    model, batch = model_of(0.3), batch_of(dropped=True)
    expected_loss, expected = plain(model, batch, 3, 5)
    found_loss, found = cached(model, batch, 3, 5)
    assert found_loss == pytest.approx(expected_loss, abs=1e-5)
    assert apart(found, expected) < 1e-5


def test_without_the_same_draws_the_gradient_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def as_it_comes(state: RandomState) -> Iterator[None]:
        yield

    monkeypatch.setattr(RandomState, "replayed", as_it_comes)
    batch = batch_of(dropped=True)
    _, expected = plain(model_of(0.3), batch, 3, 5)
    _, found = cached(model_of(0.3), batch, 3, 5)
    assert apart(found, expected) > 1e-3
    _, expected = plain(model_of(), batch, 3, 5)
    _, found = cached(model_of(), batch, 3, 5)
    assert apart(found, expected) < 1e-10, "what is drawn for the batch needs no replay"


def test_a_step_leaves_the_generator_where_reading_once_does() -> None:
    model, batch = model_of(0.3), batch_of()
    plain(model, batch, 3, 5)
    expected = torch.rand(3)
    cached(model, batch, 3, 5)
    assert torch.equal(torch.rand(3), expected)


def test_what_backward_scales_is_scaled_once() -> None:
    model, batch = model_of(), batch_of(dropped=True)
    _, expected = plain(model, batch, 3, 5)
    gradient = TwoStageGradient(model, loss_of, null=model.null, sizes=PartSizes(3, 5))
    gradient.step(batch, lambda loss: torch.autograd.backward(loss * 8))
    assert apart({name: one / 8 for name, one in gradients(model).items()}, expected) < 1e-10


@pytest.mark.parametrize("train_first", [True, False])
def test_all_parts_but_the_last_are_unfinished(train_first: bool) -> None:
    model, batch, open_now = model_of(), batch_of(), [False]
    sent: list[bool] = []

    @contextmanager
    def unfinished() -> Iterator[None]:
        open_now[0] = True
        yield
        open_now[0] = False

    for stage, hooked in enumerate(model.stages):
        if stage or train_first:
            hooked.last.weight.register_hook(lambda _: sent.append(open_now[0]))  # type: ignore[union-attr, operator]
    gradient = TwoStageGradient(model, loss_of, sizes=PartSizes(3, 5), train_first=train_first)
    gradient.step(batch, unfinished=unfinished)
    assert len(sent) == 3 + 4 + (3 if train_first else 0)
    assert sent == [True] * (len(sent) - 1) + [False]


@pytest.mark.parametrize("sizes", [PartSizes(), PartSizes(3, 5)])
def test_a_frozen_first_stage_has_no_gradient(sizes: PartSizes) -> None:
    model, batch = model_of(), batch_of(dropped=True)
    _, expected = plain(model, batch, None, None)
    TwoStageGradient(model, loss_of, null=model.null, sizes=sizes, train_first=False).step(batch)
    found = gradients(model)
    assert found.keys() == {name for name in expected if not name.startswith("stages.0")}
    assert apart(found, {name: expected[name] for name in found}) < 1e-10


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ContextualBatch([], [[(1,)]]), "needs a context"),
        (lambda: ContextualBatch([(1,)], [[(1,)], []]), "in every group"),
        (lambda: ContextualBatch([(1,)], [[(1,)]], [torch.zeros(1, 2).bool()]), r"drops of \[\(1, 2\)\] for groups"),
        (lambda: PartSizes(0, 1), "parts of 0 and 1 texts"),
        (lambda: TwoStageGradient(model_of(), loss_of).step(batch_of(dropped=True)), "needs a null vector"),
    ],
)
def test_what_does_not_fit_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
