"""Two processes that train together: what they tell each other, and that gradients are the mean of both."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch

from ctxindex.training.batches import draw_batches
from ctxindex.training.insent import Vectors
from ctxindex.training.model import ContextualModel
from ctxindex.training.objective import Objective, blended, cut_parts
from ctxindex.training.sampling import Batch, Sampler
from tests.training.toys import assert_same_gradients, documents, gradients, tiny_model
from tests.training.two_processes import (
    BUDGET,
    LIMITS,
    OBJECTIVE,
    OPTIONS,
    RUNS,
    SHARES,
    own_vectors,
    run_two,
    schedule,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models") / "bert"


@pytest.fixture(scope="module")
def told(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    tiny_model(folder)
    return run_two(folder, tmp_path_factory.mktemp("two"))


def batches(folder: Path) -> tuple[ContextualModel, ContextualModel, list[Batch]]:
    """The model, the base, and what both processes read in the first step."""
    encoder, model = tiny_model(folder, **OPTIONS)
    _, base = tiny_model(folder, **OPTIONS)
    sampler = Sampler({"toys": documents()}, encoder, LIMITS, SHARES)
    draws = draw_batches({"toys": 6}, 2, schedule().seed)
    return model, base, [sampler.batch(draw) for draw in islice(draws, 2)]


def chunks(model: ContextualModel, batch: Batch) -> Vectors:
    with torch.no_grad():
        views = [Vectors(torch.cat(model(part))) for part in (batch.contextual, batch.isolated) if part]
    return views[0] if len(views) == 1 else blended(views[0], views[1], batch.blend)


@pytest.mark.parametrize("name", RUNS)
def test_the_gradient_is_the_mean_of_both(folder: Path, told: list[dict[str, Any]], name: str) -> None:
    model, base, both = batches(folder)
    parts = [
        sum(len(list(cut_parts(units, BUDGET))) for units in (batch.contextual, batch.isolated, batch.queries))
        for batch in both
    ]
    assert parts[0] != parts[1], "devices must not wait for each other's parts"
    found = []
    for rank, batch in enumerate(both):
        away = chunks(model, both[1 - rank])
        gathered = None if name != "gathered" else lambda own, away=away: away
        Objective(model, OBJECTIVE, base, gathered).step(model, batch, torch.autograd.backward)
        found.append(gradients(model))
    expected = {key: (one + found[1][key]) / 2 for key, one in found[0].items()}
    for process in told:
        assert_same_gradients(process[name], expected, 1e-5)


def test_both_end_with_the_same_weights_and_know_the_same(told: list[dict[str, Any]]) -> None:
    for name in RUNS:
        one, other = (process[f"{name}, weights"] for process in told)
        assert all(torch.equal(one[key], other[key]) for key in one)
        assert [process[f"{name}, measured"] for process in told] == [{"eval_ndcg@10": 0.5}] * 2
    plain, gathered = (told[0][f"{name}, weights"] for name in ("plain", "gathered"))
    assert not all(torch.equal(plain[key], gathered[key]) for key in plain)


@pytest.mark.parametrize("ragged", [False, True])
def test_others_are_those_of_the_other_process(told: list[dict[str, Any]], ragged: bool) -> None:
    for rank, process in enumerate(told):
        found, expected = process["ragged" if ragged else "dense"], own_vectors(1 - rank, ragged=ragged)
        assert torch.equal(found.rows, expected.rows)
        assert found.lengths == expected.lengths
        assert not found.rows.requires_grad
