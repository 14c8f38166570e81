"""What is drawn as a context, and what of it is withheld: by the seed, and in the shares that were asked for."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ctxindex.errors import ConfigError
from ctxindex.training.batches import Draw
from ctxindex.training.contextual.context import ContextDropout, draw_context, withheld


def test_shares_are_those_asked_for() -> None:
    drops = ContextDropout(0.2, 0.25).draw(4000, 16, np.random.default_rng(0))
    whole = drops.all(axis=1)
    assert whole.mean() == pytest.approx(0.25, abs=0.03)
    assert drops[~whole].mean() == pytest.approx(0.2, abs=0.01)
    assert drops[~whole].any(axis=0).all()


def test_extreme_shares() -> None:
    rng = np.random.default_rng(0)
    assert not ContextDropout(0, 0).draw(50, 8, rng).any()
    assert ContextDropout(1, 0).draw(50, 8, rng).all()
    assert ContextDropout(0, 1).draw(50, 8, rng).all()


def test_the_step_decides_what_is_withheld() -> None:
    steps = [Draw(step, "a", (1, 2), 5) for step in (0, 0, 1)]
    once, again, other = (ContextDropout(0.5, 0.1).draw(9, 9, step.generator()) for step in steps)
    assert (once == again).all()
    assert (once != other).any()


def test_shares_do_not_decide_what_is_drawn_after_them() -> None:
    after = []
    for dropout in (ContextDropout(0, 0), ContextDropout(0.5, 0.5)):
        rng = np.random.default_rng(3)
        dropout.draw(4, 3, rng)
        after.append(rng.random())
    assert after[0] == after[1]


def test_a_context_is_drawn_without_repetition() -> None:
    found = draw_context(20, 8, np.random.default_rng(1))
    assert len(set(found.tolist())) == 8
    assert sorted(draw_context(5, 8, np.random.default_rng(1)).tolist()) == list(range(5))
    seen = {int(one) for seed in range(40) for one in draw_context(20, 8, np.random.default_rng(seed))}
    assert seen == set(range(20))


def test_the_null_vector_stands_where_context_is_withheld() -> None:
    context = torch.arange(6.0).reshape(3, 2).requires_grad_()
    null = torch.tensor([-1.0, -2.0], requires_grad=True)
    drops = torch.tensor([[True, False, False], [True, True, True]])
    found = withheld(context, null, drops)
    assert found.tolist() == [[[-1, -2], [2, 3], [4, 5]], [[-1, -2]] * 3]
    torch.autograd.backward(found.sum())
    assert null.grad is not None
    assert context.grad is not None
    assert null.grad.tolist() == [4, 4]
    assert context.grad.tolist() == [[0, 0], [1, 1], [1, 1]]


@pytest.mark.parametrize("shares", [{"slot": 1.1}, {"row": -0.1}, {"slot": float("nan")}])
def test_shares_out_of_range_are_refused(shares: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="must be 0 to 1"):
        ContextDropout(**shares)


def test_a_context_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 of each"):
        draw_context(4, 0, np.random.default_rng(0))
