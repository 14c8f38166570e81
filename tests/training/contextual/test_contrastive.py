"""The loss of contextual batches against numbers computed by hand, and what it does where nothing is left."""

from __future__ import annotations

import math

import pytest
import torch

from ctxindex.errors import ConfigError
from ctxindex.training.contextual.contrastive import combined, contrastive_loss, cosines, row_losses
from ctxindex.training.contextual.filtering import FalseNegativeFilter
from ctxindex.training.insent import NotNumbersError

COSINES = torch.tensor([[0.8, 0.6, 0.1], [0.2, 0.7, 0.5], [0.0, 0.4, 0.9]], dtype=torch.float64)
SURROGATE = torch.tensor([[0.90, 0.95, 0.20], [0.10, 0.80, 0.79], [0.30, 0.30, 0.70]], dtype=torch.float64)


@pytest.mark.parametrize(
    ("rule", "expected", "mean"),
    [
        (FalseNegativeFilter("none"), [0.127731, 0.132845, 0.006838], 0.089138),
        (FalseNegativeFilter("relative"), [0.000911, 0.132845, 0.006838], 0.046865),
        (FalseNegativeFilter("relative", -0.05), [0.000911, 0.006715, 0.006838], 0.004822),
        (FalseNegativeFilter("absolute", 0.79), [0.000911, 0.006715, 0.006838], 0.004822),
    ],
)
def test_losses_are_those_computed_by_hand(rule: FalseNegativeFilter, expected: list[float], mean: float) -> None:
    found = row_losses(COSINES, rule.removed(SURROGATE), tau=0.1)
    assert found.tolist() == pytest.approx(expected, abs=1e-6)
    assert float(found.mean()) == pytest.approx(mean, abs=1e-6)


def test_vectors_of_any_length_give_the_loss_of_their_cosines() -> None:
    queries = torch.linalg.cholesky(torch.eye(3, dtype=torch.float64) * 2)
    documents = COSINES.T * torch.tensor([[1.0], [2.0], [3.0]])
    expected = COSINES / COSINES.norm(dim=0)
    assert torch.allclose(cosines(queries, documents), expected)
    found = contrastive_loss(queries, documents, tau=0.05)
    by_hand = [
        -math.log(math.exp(20 * row[i]) / sum(math.exp(20 * one) for one in row))
        for i, row in enumerate(expected.tolist())
    ]
    assert float(found.loss) == pytest.approx(sum(by_hand) / 3, abs=1e-9)


def test_hard_negatives_are_further_columns() -> None:
    torch.manual_seed(0)
    queries, documents = torch.randn(2, 4), torch.randn(5, 4)
    found = contrastive_loss(queries, documents, tau=0.2)
    scores = cosines(queries, documents) / 0.2
    assert torch.allclose(found.loss, torch.nn.functional.cross_entropy(scores, torch.arange(2)), atol=1e-6)


def test_a_row_without_negatives_has_neither_loss_nor_gradient() -> None:
    torch.manual_seed(1)
    queries, documents = torch.randn(3, 4, requires_grad=True), torch.randn(3, 4)
    removed = torch.zeros(3, 3, dtype=torch.bool)
    removed[1] = True  # its gold as well, which stays all the same
    found = contrastive_loss(queries, documents, removed)
    torch.autograd.backward(found.loss)
    assert queries.grad is not None
    assert torch.isfinite(queries.grad).all()
    assert not queries.grad[1].any()
    assert queries.grad[0].any()
    assert float(row_losses(cosines(queries, documents), removed)[1].detach()) == 0
    all_gone = contrastive_loss(queries, documents, torch.ones(3, 3))
    assert float(all_gone.loss.detach()) == 0
    assert float(all_gone.accuracy) == float(all_gone.removed) == 1


def test_what_is_removed_gets_no_gradient_and_golds_do() -> None:
    torch.manual_seed(2)
    queries, documents = torch.randn(2, 4), torch.randn(4, 4, requires_grad=True)
    removed = torch.tensor([[0, 0, 1, 0], [0, 0, 1, 0]])
    torch.autograd.backward(contrastive_loss(queries, documents, removed, 0.3).loss)
    assert documents.grad is not None
    assert documents.grad.any(dim=1).tolist() == [True, True, False, True]


def test_the_log_says_what_is_found_and_what_is_removed() -> None:
    queries, documents = torch.eye(3), torch.tensor([[1.0, 0, 0], [1.0, 0.5, 0], [0.0, 0.1, 1]])
    removed = torch.tensor([[False, True, False], [False] * 3, [False] * 3])
    found = contrastive_loss(queries, documents, removed)
    assert float(found.accuracy) == 1
    assert float(found.removed) == pytest.approx(1 / 6)
    tie = contrastive_loss(torch.ones(2, 3), torch.ones(2, 3))
    assert float(tie.accuracy) == 0
    alone = contrastive_loss(torch.ones(1, 3), torch.ones(1, 3))
    assert [float(one) for one in (alone.loss, alone.accuracy, alone.removed)] == [0, 1, 0]


def test_under_autocast_it_is_computed_in_float32() -> None:
    torch.manual_seed(3)
    queries, documents = torch.randn(8, 16), torch.randn(8, 16)
    with torch.autocast("cpu", torch.bfloat16):
        found = contrastive_loss(queries, documents)
    assert found.loss.dtype == torch.float32
    assert torch.equal(found.loss, contrastive_loss(queries, documents).loss)


def test_two_losses_by_a_weight() -> None:
    one, other = torch.tensor(2.0), torch.tensor(6.0)
    assert float(combined(one, other, 0.25)) == 3
    assert float(combined(one, torch.tensor(math.nan), 0)) == 2
    assert float(combined(torch.tensor(math.nan), other, 1)) == 6
    with pytest.raises(ConfigError, match="must be 0 to 1"):
        combined(one, other, 1.5)


def test_what_cannot_be_computed_is_refused() -> None:
    two = torch.ones(2, 3)
    with pytest.raises(ConfigError, match="tau 0 must be more than 0"):
        contrastive_loss(two, two, tau=0)
    with pytest.raises(NotNumbersError):
        contrastive_loss(two * math.nan, two)
    with pytest.raises(ValueError, match="a gold document for each query"):
        contrastive_loss(two, two[:1])
    with pytest.raises(ValueError, match=r"removed is \(2, 3\), and the scores are \(2, 2\)"):
        contrastive_loss(two, two, torch.zeros(2, 3))
