"""What is remembered of earlier batches, against a memory that is written with lists; and the loss that it changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from ctxindex.errors import ConfigError
from ctxindex.training.batches import Draw
from ctxindex.training.context import require_memory
from ctxindex.training.insent import InsentOptions, Vectors
from ctxindex.training.memory import Memory
from ctxindex.training.objective import Objective, ObjectiveOptions
from ctxindex.training.running.lora import merged_state
from ctxindex.training.sampling import Limits, Origin, Question, Sampler, Shares
from tests.encoding.test_colbert import PYLATE, pylate
from tests.training.toys import documents, loaded, tiny_model

DIM = 3
Chunk = tuple[int, int]


def unit(count: int, seed: int) -> torch.Tensor:
    return functional.normalize(torch.randn(count, DIM, generator=torch.Generator().manual_seed(seed)), dim=1)


@st.composite
def batches(draw: st.DrawFn) -> list[Origin]:
    """Batches of two sources, with chunks that come again and queries that some of them answer."""
    chunk = st.tuples(st.integers(0, 4), st.integers(0, 2))
    found = []
    for _ in range(draw(st.integers(1, 8))):
        chunks = tuple(sorted(draw(st.sets(chunk, min_size=1, max_size=6))))
        answered = draw(st.lists(st.none() | st.frozensets(chunk, max_size=3), min_size=1, max_size=3))
        found.append(Origin(draw(st.sampled_from("ab")), chunks, tuple(answered)))
    return found


@given(batches(), st.integers(1, 12))
def test_the_last_vector_of_each_of_the_last_chunks_is_recalled(origins: list[Origin], most: int) -> None:
    memory = Memory(["a", "b"], most, DIM)
    known: dict[str, list[tuple[Chunk, torch.Tensor]]] = {"a": [], "b": []}
    for step, origin in enumerate(origins):
        expected = [
            (chunk, row) for chunk, row in known[origin.source] if chunk[0] not in {one for one, _ in origin.chunks}
        ]
        found = memory.recall(origin)
        assert (found is None) == (not expected)
        if found is not None:
            assert torch.equal(found.chunks.rows, torch.stack([row for _, row in expected]))
            assert set(found.positives) == {
                (query, column)
                for query, chunks in enumerate(origin.answered)
                for column, (chunk, _) in enumerate(expected)
                if chunks is not None and chunk in chunks
            }
        rows = unit(len(origin.chunks), step)
        memory.remember(origin, Vectors(rows))
        older = [(chunk, row) for chunk, row in known[origin.source] if chunk not in origin.chunks]
        known[origin.source] = [*older, *zip(origin.chunks, rows, strict=True)][-most:]


def test_a_batch_tells_where_its_chunks_are_from_and_what_answers_its_queries(tmp_path: Path) -> None:
    encoder, _ = tiny_model(tmp_path / "bert")
    sources = documents(4)
    asked_twice = Question(sources[0].questions[0].text.upper(), (2,))
    sources[3] = replace(sources[3], questions=(asked_twice,))
    batch = Sampler({"toys": sources}, encoder, Limits(9, 9, clozes=2)).batch(Draw(0, "toys", (3, 0), 5))
    origin = batch.origin
    assert origin.source == "toys"
    assert origin.chunks == tuple(
        (number, chunk) for number in (3, 0) for chunk in range(len(sources[number].source.chunks))
    )
    assert len(origin.answered) == len(batch.documents)
    clozes = [known is None for known in origin.answered]
    assert clozes == sorted(clozes)
    assert 0 < sum(clozes) <= 4
    assert origin.answered[:2] == (frozenset({(3, 2), (0, 1)}),) * 2


def test_what_is_recalled_is_a_negative_to_the_queries_of_the_set_alone(tmp_path: Path) -> None:
    encoder, model = tiny_model(tmp_path / "bert", blend=0.3)
    limits, options = Limits(9, 1, clozes=1), ObjectiveOptions(InsentOptions(lambda_seq=0.3))
    sampler = Sampler({"toys": documents()}, encoder, limits)
    first, second = (sampler.batch(Draw(0, "toys", numbers, 5)) for numbers in ((0, 1), (2, 3)))
    memory = Memory(["toys"], 100, model.spec.dim)
    remembering, plain = Objective(model, options, memory=memory), Objective(model, options)

    def l_batch(objective: Objective, budget: int | None = None) -> float:
        return float(objective.step(model, second, lambda loss: None, budget=budget).log["l_batch"])

    alone = l_batch(plain)
    remembering.step(model, first, lambda loss: None)
    assert int((memory.places[0, :, 0] >= 0).sum()) == sum(first.counts)
    kept = {name: one.clone() for name, one in memory.state_dict().items()}
    harder = l_batch(remembering)
    assert harder > alone + 1e-3
    assert int((memory.places[0, :, 0] >= 0).sum()) == sum(first.counts) + sum(second.counts)
    memory.load_state_dict(kept)
    assert l_batch(remembering, 60) == pytest.approx(harder, abs=1e-4)
    assert l_batch(remembering) == pytest.approx(harder, abs=1e-5)  # its own chunks are there again, and are not told
    second = replace(second, origin=replace(second.origin, answered=(None,) * len(second.documents)))
    assert l_batch(remembering) == pytest.approx(alone, abs=1e-5)


def test_steps_that_leave_a_view_out_neither_recall_nor_remember(tmp_path: Path) -> None:
    encoder, model = tiny_model(tmp_path / "bert", blend=0.3)
    memory = Memory(["toys"], 100, model.spec.dim)
    objective = Objective(model, ObjectiveOptions(), memory=memory)
    for shares in (Shares(contextual=1.0), Shares(isolated=1.0)):
        batch = Sampler({"toys": documents()}, encoder, Limits(2, 2), shares).batch(Draw(0, "toys", (0, 1), 5))
        objective.step(model, batch, lambda loss: None)
    assert not (memory.places >= 0).any()


def test_it_is_no_part_of_the_model_that_is_written(tmp_path: Path) -> None:
    _, model = tiny_model(tmp_path / "bert")
    before = merged_state(model).keys()
    model.remember(Memory(["toys"], 4, model.spec.dim))
    assert any(name.startswith("memory.") for name in model.state_dict())
    assert merged_state(model).keys() == before


def test_a_source_that_is_replayed_is_not_remembered(tmp_path: Path) -> None:
    encoder, model = tiny_model(tmp_path / "bert")
    objective = Objective(model, ObjectiveOptions(), memory=Memory(["others"], 4, model.spec.dim))
    batch = Sampler({"toys": documents()}, encoder, Limits(2, 2)).batch(Draw(0, "toys", (0, 1), 5))
    for _ in range(2):
        objective.step(model, batch, lambda loss: None)


def test_negatives_come_from_one_place(tmp_path: Path) -> None:
    _, model = tiny_model(tmp_path / "bert")
    with pytest.raises(ValueError, match="from other devices or from earlier steps"):
        Objective(model, ObjectiveOptions(), others=lambda *_: None, memory=Memory(["toys"], 4, model.spec.dim))


@pytest.mark.parametrize(
    ("several", "devices", "lambda_seq", "why"),
    [(True, 1, 0.1, "late interaction has many"), (False, 2, 0.1, "--gather-neg"), (False, 1, 1.0, "--lambda 1")],
)
def test_where_it_cannot_be_or_does_nothing_it_is_refused(
    tmp_path: Path, several: bool, devices: int, lambda_seq: float, why: str
) -> None:
    encoder, _ = loaded(pylate(tmp_path / "colbert", PYLATE)) if several else tiny_model(tmp_path / "bert")
    options = ObjectiveOptions(InsentOptions(lambda_seq=lambda_seq), cross_batch_memory=4)
    with pytest.raises(ConfigError, match=f"--cross-batch-memory .*{why}"):
        require_memory(encoder.spec, options, devices)
    require_memory(encoder.spec, replace(options, cross_batch_memory=0), devices)
    with pytest.raises(ConfigError, match="--cross-batch-memory -1 counts chunks"):
        replace(options, cross_batch_memory=-1)
