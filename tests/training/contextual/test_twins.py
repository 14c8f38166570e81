"""The whole of it: a model of two stages learns a task that only the right context solves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from ctxindex.training.contextual.contrastive import contrastive_loss
from ctxindex.training.contextual.gradient_cache import ContextualBatch, TwoStageGradient
from ctxindex.training.objective import StepLoss
from tests.training.contextual.twins import Task, Text, Twins, context_of, task

STEPS = 1000
"""At most; it takes some 750."""


def loss_of(vectors: list[torch.Tensor]) -> StepLoss:
    found = contrastive_loss(vectors[0], vectors[1], tau=0.1)
    return StepLoss(found.loss, {"accuracy": found.accuracy})


def accuracy(model: Twins, one: Task, context: Sequence[Text] | None) -> float:
    """Share of queries that are answered, without a context (in the null vector) where there is none."""
    with torch.no_grad():
        slots = model.null[None, :] if context is None else model.first(context)
        vectors = [model.second(texts, slots) for texts in (one.queries, one.documents)]
        return float(loss_of(vectors).log["accuracy"])


def trained(seed: int) -> Twins:
    torch.manual_seed(seed)
    model, rng = Twins(), np.random.default_rng(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    gradient: TwoStageGradient[Text] = TwoStageGradient(model, loss_of)
    recent: list[float] = []
    for step in range(STEPS):
        one = task(step % 2, rng)
        optimizer.zero_grad()
        found = gradient.step(ContextualBatch(one.context, [one.queries, one.documents]))
        optimizer.step()
        recent.append(float(found.log["accuracy"]))
        if np.mean(recent[-20:]) > 0.99:
            break
    return model


@pytest.mark.slow
def test_only_the_right_context_solves_the_task_of_twins() -> None:
    model, rng = trained(0), np.random.default_rng(99)
    tasks = [(domain, task(domain, rng)) for domain in (0, 1) for _ in range(10)]
    right = np.mean([accuracy(model, one, one.context) for _, one in tasks])
    wrong = np.mean([accuracy(model, one, context_of(1 - domain, one.documents[:8])) for domain, one in tasks])
    none = np.mean([accuracy(model, one, None) for _, one in tasks])
    assert right > 0.95
    assert wrong < 0.05
    assert none < 0.6
