"""Two processes that train together: what they tell each other, and that gradients are the mean of both."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch

from ctxindex.training.batches import dealt, draw_batches
from ctxindex.training.gathering import Others
from ctxindex.training.insent import Vectors
from ctxindex.training.model import ContextualModel
from ctxindex.training.objective import Objective, blended, cut_parts
from ctxindex.training.readings import join
from ctxindex.training.sampling import Batch, Limits, Sampler, Shares
from tests.training.toys import assert_same_gradients, batch_of, documents, gradients, tiny_model
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


def batches(folder: Path, *, together: bool) -> tuple[ContextualModel, ContextualModel, list[Batch]]:
    """The model, the base, and what both processes read in the first step: of one draw, or of one each."""
    encoder, model = tiny_model(folder, **OPTIONS)
    _, base = tiny_model(folder, **OPTIONS)
    sampler = Sampler({"toys": documents()}, encoder, LIMITS, SHARES)
    draws = draw_batches({"toys": 6}, 4 if together else 2, schedule().seed)
    draws = dealt(draws, 2) if together else draws
    return model, base, [sampler.batch(draw) for draw in islice(draws, 2)]


def chunks(model: ContextualModel, batch: Batch) -> Vectors:
    with torch.no_grad():
        views = [Vectors(torch.cat(model(part))) for part in (batch.contextual, batch.isolated) if part]
    return views[0] if len(views) == 1 else blended(views[0], views[1], batch.blend)


@pytest.mark.parametrize("name", RUNS)
def test_the_gradient_is_the_mean_of_both(folder: Path, told: list[dict[str, Any]], name: str) -> None:
    model, base, both = batches(folder, together=name == "gathered")
    parts = [
        sum(len(list(cut_parts(units, BUDGET))) for units in (batch.contextual, batch.isolated, batch.queries))
        for batch in both
    ]
    assert parts[0] != parts[1], "devices must not wait for each other's parts"
    found = []
    for rank, batch in enumerate(both):
        away = chunks(model, both[1 - rank])
        gathered = None if name != "gathered" else lambda own, answers, away=away: Others(away, ())
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
        assert torch.equal(found.chunks.rows, expected.rows)
        assert found.chunks.lengths == expected.lengths
        assert not found.chunks.rows.requires_grad
        assert sorted(found.positives) == ([(0, 1)] if rank else [(1, 0), (1, 2)])


def test_what_answers_a_query_on_another_device_is_no_negative(folder: Path) -> None:
    model, base, both = batches(folder, together=True)
    own, away = both[0], chunks(model, both[1])

    def loss(positives: tuple[tuple[int, int], ...], without: int | None = None) -> float:
        rows = away.rows if without is None else torch.cat([away.rows[:without], away.rows[without + 1 :]])
        objective = Objective(model, OBJECTIVE, base, lambda own, answers: Others(Vectors(rows), positives))
        with torch.no_grad():
            made = model([join(units) for units in (own.contextual, own.isolated, own.queries) if units])
        return float(objective.loss(own, made, objective.of_base(own)).total)

    every = tuple((query, 1) for query in range(len(own.queries)))
    assert loss(every) == pytest.approx(loss((), without=1), abs=1e-6)
    assert loss(every) < loss(())


def test_a_cloze_is_told_from_nothing_of_another_device(folder: Path) -> None:
    encoder, model = tiny_model(folder, **OPTIONS)
    batch = batch_of(encoder, documents(3), limits=Limits(2, 0, clozes=2))
    assert set(batch.origin.answered) == {None}  # clozes are all that is asked
    away = chunks(model, batch_of(encoder, documents(6)[3:]))

    def loss(others: Others | None) -> float:
        objective = Objective(model, replace(OBJECTIVE, hold=0.0), None, lambda own, answers: others)
        with torch.no_grad():
            made = model([join(units) for units in (batch.contextual, batch.isolated, batch.queries) if units])
        return float(objective.loss(batch, made, []).total)

    assert loss(Others(away, ())) == pytest.approx(loss(None), abs=1e-6)


def test_devices_read_their_parts_of_a_draw_in_the_same_way(folder: Path) -> None:
    encoder, _ = tiny_model(folder, **OPTIONS, anchor_title=True, isolated="title")
    sampler = Sampler({"toys": documents()}, encoder, LIMITS, Shares(titles=0.5, contextual=0.3, isolated=0.3))
    draws = list(islice(dealt(draw_batches({"toys": 6}, 4, 1), 2), 60))
    title = encoder.tokenizer.ids(["about"])[0].tolist()
    seen = set()
    for one, other in zip(draws[::2], draws[1::2], strict=True):
        pair = [sampler.batch(one), sampler.batch(other)]
        ways = []
        for batch in pair:
            rows = [row for reading in (*batch.contextual, *batch.isolated) for row in reading.rows]
            ways.append((batch.blend, all(row.ids[1 : 1 + len(title)].tolist() == title for row in rows)))
        assert ways[0] == ways[1]
        seen.add(ways[0])
    assert len(seen) == 6  # every view, with titles and without


def test_each_device_has_documents_of_its_own_of_one_source() -> None:
    draws = list(islice(dealt(draw_batches({"a": 7, "b": 11}, 6, 3), 3), 60))
    assert [draw.step for draw in draws] == list(range(60))
    for step in range(20):
        parts = draws[3 * step : 3 * step + 3]
        assert len({part.source for part in parts}) == 1
        assert [len(part.documents) for part in parts] == [2, 2, 2]
        assert len({document for part in parts for document in part.documents}) == 6
    whole = islice(draw_batches({"a": 7, "b": 11}, 6, 3), 20)
    assert [draw.documents for draw in whole] == [
        sum((part.documents for part in draws[3 * step : 3 * step + 3]), ()) for step in range(20)
    ]
    assert list(islice(dealt(draw_batches({"a": 7}, 2, 3), 1), 9)) == list(islice(draw_batches({"a": 7}, 2, 3), 9))
