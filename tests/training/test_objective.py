"""The loss of a step and its gradient: against the formulas in float64, and with a gradient cache of any size."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch.nn import functional
from transformers import AutoModel

from ctxindex.encoding.local import LocalEncoder
from ctxindex.errors import ConfigError
from ctxindex.training.gathering import Others
from ctxindex.training.insent import InsentOptions, Vectors
from ctxindex.training.model import ContextualModel
from ctxindex.training.objective import Objective, ObjectiveOptions, StepLoss, cut_parts
from ctxindex.training.readings import Reading, join, split
from ctxindex.training.sampling import Answers, Batch, Limits, Question, Shares, TrainingDocument
from tests.encoding.test_colbert import PYLATE, pylate
from tests.training.toys import assert_same_gradients, batch_of, documents, gradients, loaded, tiny_model

HELD = ObjectiveOptions(InsentOptions(lambda_seq=0.3), hold=0.7, distil=0.4)
Loaded = tuple[LocalEncoder, ContextualModel]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def dense(folder: Path) -> Loaded:
    return tiny_model(folder / "bert", blend=0.4, isolated="title", anchor=6)


@pytest.fixture(scope="module")
def late_interaction(folder: Path) -> Loaded:
    return loaded(pylate(folder / "pylate", PYLATE), max_tokens=48)


@pytest.fixture(scope="module")
def mixed_tokens(folder: Path, late_interaction: Loaded) -> Loaded:
    return loaded(folder / "pylate", max_tokens=48, blend=0.4, isolated="title", anchor=6)


@pytest.fixture(scope="module")
def base(folder: Path, dense: Loaded) -> ContextualModel:
    """Another model than the one trained, so that it holds something."""
    _, model = tiny_model(folder / "bert", blend=0.4, isolated="title", anchor=6)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator) * 0.02)
    return model


def several_golds(sources: list[TrainingDocument]) -> list[TrainingDocument]:
    return [
        replace(one, questions=(*one.questions, Question("the law", (0, 2)), Question("born in", (1, 2, 0))))
        for one in sources
    ]


def step(
    objective: Objective, model: ContextualModel, batch: Batch, budget: int | None = None
) -> tuple[StepLoss, dict[str, torch.Tensor]]:
    found = objective.step(model, batch, torch.autograd.backward, budget=budget)
    return found, gradients(model)


class WrittenOut:
    """The loss of a batch in float64, with transformers' own attention over padded rows and nothing of ours."""

    def __init__(self, folder: Path, encoder: LocalEncoder, state: dict[str, torch.Tensor] | None = None) -> None:
        self.transformer = AutoModel.from_pretrained(folder, attn_implementation="eager").double().eval()
        if state is not None:
            self.transformer.load_state_dict(
                {name.removeprefix("transformer."): one for name, one in state.items() if "transformer." in name}
            )
        self.projections: list[torch.Tensor] = []
        if encoder.spec.multivector:
            held = load_file(folder / "1_Dense" / "model.safetensors")
            names = ("linear.weight", "residual.weight")
            self.projections = [held[name].double().requires_grad_() for name in names]
        self.spec = encoder.spec

    def items(self, reading: Reading) -> list[torch.Tensor]:
        """(vectors, dim) of each item."""
        longest = max(row.length for row in reading.rows)
        ids = torch.zeros(len(reading.rows), longest, dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for number, row in enumerate(reading.rows):
            ids[number, : row.length] = torch.from_numpy(row.ids)
            mask[number, : row.length if row.attended is None else row.attended] = 1
        states = self.transformer(input_ids=ids, attention_mask=mask).last_hidden_state
        taken: list[list[torch.Tensor]] = [[] for _ in range(reading.items)]
        for number, row in enumerate(reading.rows):
            for place in row.places:
                taken[place.chunk].append(states[number, place.start : place.end])
        return [self.of_tokens(torch.cat(parts)) for parts in taken]

    def of_tokens(self, states: torch.Tensor) -> torch.Tensor:
        if self.spec.multivector:
            return functional.normalize(states @ self.projections[0].T + states @ self.projections[1].T, dim=1)
        return functional.normalize(states.mean(0, keepdim=True), dim=1)

    def chunks(self, batch: Batch) -> list[list[torch.Tensor]]:
        """Those of each document, blended."""
        found = []
        for number in range(len(batch.counts)):
            views = [self.items(part[number]) for part in (batch.contextual, batch.isolated) if part]
            if len(views) == 2:
                mixed = [(1 - batch.blend) * u + batch.blend * v for u, v in zip(*views, strict=True)]
                found.append([functional.normalize(one, dim=1) for one in mixed])
            else:
                found.append(views[0])
        return found

    def queries(self, batch: Batch) -> list[torch.Tensor]:
        return [self.items(one)[0] for one in batch.queries]

    def loss(self, batch: Batch, options: ObjectiveOptions, base: WrittenOut | None = None) -> torch.Tensor:
        """InSeNT with macro means and masked positives, the hold on the model, and what draws both views together."""
        chosen = options.insent
        documents, queries = self.chunks(batch), self.queries(batch)
        first = [sum(batch.counts[:number]) for number in range(len(batch.counts))]
        of_document: dict[int, list[torch.Tensor]] = {}
        for query, (asked, golds) in enumerate(zip(batch.documents, batch.golds, strict=True)):
            scores = [
                [(queries[query] @ chunk.T).amax(1).mean() / chosen.tau for chunk in chunks] for chunks in documents
            ]
            known = {chunk for number, chunk in batch.positives if number == query}
            known |= {first[asked] + gold for gold in golds}
            terms = []
            for gold in golds:
                own = [one for place, one in enumerate(scores[asked]) if first[asked] + place not in known]
                other = [
                    one
                    for number, row in enumerate(scores)
                    for place, one in enumerate(row)
                    if number != asked and first[number] + place not in known
                ]
                positive = scores[asked][gold]
                l_seq = torch.stack([positive, *own]).logsumexp(0) - positive
                l_batch = torch.stack([positive, *other]).logsumexp(0) - positive
                terms.append(chosen.lambda_seq * l_seq + (1 - chosen.lambda_seq) * l_batch)
            of_document.setdefault(asked, []).append(torch.stack(terms).mean())
        total = torch.stack([torch.stack(terms).mean() for terms in of_document.values()]).mean()
        if options.distil and batch.contextual and batch.isolated:
            contextual = torch.cat([vector for part in batch.contextual for vector in self.items(part)])
            mixed = torch.cat([vector for part in documents for vector in part]).detach()
            total = total + options.distil * (1 - (contextual * mixed).sum(1).mean())
        return total + options.hold * self.away(batch, base) if base is not None else total

    def away(self, batch: Batch, base: WrittenOut) -> torch.Tensor:
        pairs = [(self.queries(batch), base.queries(batch))]
        if batch.isolated:
            alone = [[vector for part in batch.isolated for vector in one.items(part)] for one in (self, base)]
            pairs.append((alone[0], alone[1]))
        means = [1 - (torch.cat(mine) * torch.cat(held).detach()).sum(1).mean() for mine, held in pairs]
        return torch.stack(means).sum()

    def gradients(self) -> dict[str, torch.Tensor]:
        found = {f"transformer.{name}": one.grad for name, one in self.transformer.named_parameters()}
        names = ("layers.0.weights.linear_weight", "layers.0.weights.residual_weight")
        found |= {name: one.grad for name, one in zip(names, self.projections, strict=False)}
        return {name: one.float() for name, one in found.items() if one is not None}


@pytest.mark.parametrize("share", [None, "contextual", "isolated"])
def test_the_gradient_is_that_of_the_formulas(
    folder: Path, dense: Loaded, base: ContextualModel, share: str | None
) -> None:
    encoder, model = dense
    shares = Shares(**{share: 1.0}) if share else None
    batch = batch_of(encoder, several_golds(documents(3)), limits=Limits(2, 8), shares=shares)
    assert max(map(len, batch.golds)) > 1
    assert batch.positives
    mine, held = WrittenOut(folder / "bert", encoder), WrittenOut(folder / "bert", encoder, base.state_dict())
    expected = mine.loss(batch, HELD, held)
    expected.backward()  # type: ignore[no-untyped-call]
    found, made = step(Objective(model, HELD, base), model, batch)
    assert float(found.total) == pytest.approx(expected.item(), abs=1e-4)
    assert mine.away(batch, held).item() > 0.001
    assert_same_gradients(made, mine.gradients(), 1e-4)
    assert all(weight.grad is None for weight in base.parameters())


def test_the_gradient_of_late_interaction(folder: Path, late_interaction: Loaded) -> None:
    encoder, model = late_interaction
    batch = batch_of(encoder, several_golds(documents(3)), limits=Limits(2, 8))
    mine = WrittenOut(folder / "pylate", encoder)
    options = ObjectiveOptions(InsentOptions(lambda_seq=0.3))
    expected = mine.loss(batch, options)
    expected.backward()  # type: ignore[no-untyped-call]
    found, made = step(Objective(model, options), model, batch)
    assert float(found.total) == pytest.approx(expected.item(), abs=1e-4)
    assert_same_gradients(made, mine.gradients(), 1e-4)


@pytest.mark.parametrize("share", [None, "contextual", "isolated"])
def test_the_gradient_of_late_interaction_through_the_blend(
    folder: Path, mixed_tokens: Loaded, share: str | None
) -> None:
    encoder, model = mixed_tokens
    shares = Shares(**{share: 1.0}) if share else None
    batch = batch_of(encoder, several_golds(documents(3)), limits=Limits(2, 8), shares=shares)
    _, base = loaded(folder / "pylate", max_tokens=48, blend=0.4)
    with torch.no_grad():
        for weight in base.transformer.parameters():
            weight.mul_(1.02)
    mine, held = WrittenOut(folder / "pylate", encoder), WrittenOut(folder / "pylate", encoder, base.state_dict())
    expected = mine.loss(batch, HELD, held)
    expected.backward()  # type: ignore[no-untyped-call]
    found, made = step(Objective(model, HELD, base), model, batch)
    assert float(found.total) == pytest.approx(expected.item(), abs=1e-4)
    assert_same_gradients(made, mine.gradients(), 1e-4)


@settings(deadline=None, max_examples=12)
@given(
    budget=st.sampled_from([1, 20, 60, 100, 200, 10_000]),
    count=st.integers(1, 4),
    windows=st.integers(1, 3),
    queries=st.integers(1, 8),
    share=st.sampled_from([{}, {"contextual": 1.0}, {"isolated": 1.0}, {"titles": 1.0, "contextual": 1.0}]),
    kind=st.sampled_from(["dense", "late interaction", "mixed tokens"]),
)
def test_a_gradient_cache_of_any_size_changes_nothing(
    dense: Loaded,
    late_interaction: Loaded,
    mixed_tokens: Loaded,
    base: ContextualModel,
    budget: int,
    count: int,
    windows: int,
    queries: int,
    share: dict[str, float],
    kind: str,
) -> None:
    encoder, model = {"dense": dense, "late interaction": late_interaction, "mixed tokens": mixed_tokens}[kind]
    batch = batch_of(
        encoder, several_golds(documents(count)), limits=Limits(windows, queries), shares=Shares(**share), step=count
    )
    options = HELD if kind == "dense" else replace(HELD, hold=0.0)
    objective = Objective(model, options, base if kind == "dense" else None)
    plain, expected = step(objective, model, batch)
    cached, found = step(objective, model, batch, budget)
    assert float(cached.total) == pytest.approx(float(plain.total), abs=2e-5)
    assert {name: float(one) for name, one in cached.log.items()} == pytest.approx(
        {name: float(one) for name, one in plain.log.items()}, abs=1e-4
    )
    assert_same_gradients(found, expected, 1e-5)


def test_a_part_has_a_window_or_a_chunk_at_least(dense: Loaded, late_interaction: Loaded) -> None:
    for encoder, model in (dense, late_interaction):
        batch = batch_of(encoder, documents(3, words=3), limits=Limits(9, 3))
        for reading in (*batch.contextual, *batch.isolated):
            pieces = split(reading)
            assert len(pieces) > 1
            whole = join(pieces)
            assert whole.items == reading.items
            assert sum(len(piece.rows) for piece in pieces) == len(reading.rows)
            with torch.no_grad():
                torch.testing.assert_close(model([whole])[0], model([reading])[0], atol=1e-6, rtol=0)
        for reading in batch.isolated:
            assert all(piece.items == 1 for piece in split(reading))
        parts = list(cut_parts(batch.contextual, 1))
        assert max(part.tokens for part in parts) < max(reading.tokens for reading in batch.contextual)


def test_parts_keep_to_the_budget(dense: Loaded) -> None:
    encoder, _ = dense
    units = batch_of(encoder, documents(6)).queries
    for budget in (1, 30, 100):
        parts = list(cut_parts(units, budget))
        assert all(part.tokens <= budget or part.items == 1 for part in parts)
        assert join(parts) == join(units)
    assert len(list(cut_parts(units, None))) == 1


def test_all_parts_but_the_last_are_unfinished(dense: Loaded) -> None:
    """Forward and backward: DistributedDataParallel decides in the forward pass whether devices meet."""
    encoder, model = dense
    events: list[str] = []

    @contextmanager
    def unfinished() -> Iterator[None]:
        events.append("(")
        yield
        events.append(")")

    def encode(readings: Any) -> list[torch.Tensor]:
        events.append("f")
        found: list[torch.Tensor] = model(readings)
        return found

    def backward(loss: torch.Tensor) -> None:
        events.append("b")

    batch = batch_of(encoder, documents(3))
    objective = Objective(model, ObjectiveOptions())
    objective.step(encode, batch, backward, budget=60, unfinished=unfinished)
    whole = "".join(events)
    assert whole.endswith(")fb")
    assert set(whole[:-2].split("(fb)")) == {""}
    assert whole.count("f") > 4
    events.clear()
    objective.step(encode, batch, backward, unfinished=unfinished)
    assert events == ["f", "b"]


@pytest.mark.parametrize("mode", ["insent", "joint"])
def test_nameless_chunks_are_told_from_their_own_document_alone(dense: Loaded, mode: Any) -> None:
    encoder, model = dense
    batch = batch_of(encoder, documents(3), shares=Shares(titles=1.0, contextual=1.0))
    assert not batch.named
    found, _ = step(Objective(model, ObjectiveOptions(InsentOptions(mode=mode))), model, batch)
    assert float(found.total) == pytest.approx(float(found.log["l_seq"]), abs=1e-6)
    assert found.log.keys() == {"l_seq", "accuracy_seq"}
    named, _ = step(Objective(model, ObjectiveOptions(InsentOptions(mode=mode))), model, replace(batch, named=True))
    assert named.log.keys() == {"l_seq", "accuracy_seq", "l_batch", "accuracy"}
    assert float(named.total) != pytest.approx(float(found.total), abs=1e-3)


@pytest.mark.parametrize("budget", [None, 60])
def test_chunks_of_others_are_negatives_without_a_gradient(dense: Loaded, budget: int | None) -> None:
    encoder, model = dense
    batch = batch_of(encoder, documents(2))
    away = Vectors(functional.normalize(torch.randn(3, 32, generator=torch.Generator().manual_seed(1)), dim=1))
    asked: list[Vectors] = []

    def others(own: Vectors, answers: Answers) -> Others:
        assert answers == batch.answers
        asked.append(own)
        return Others(away, ())

    alone, _ = step(Objective(model, ObjectiveOptions()), model, batch, budget)
    found, _ = step(Objective(model, ObjectiveOptions(), others=others), model, batch, budget)
    assert float(found.log["l_batch"]) > float(alone.log["l_batch"])
    assert float(found.log["l_seq"]) == pytest.approx(float(alone.log["l_seq"]), abs=1e-5)
    (own,) = asked
    assert len(own) == sum(batch.counts)


def test_what_cannot_be_is_refused(dense: Loaded) -> None:
    _, model = dense
    with pytest.raises(ValueError, match="needs the one that it was"):
        Objective(model, HELD)
    for weight in (-0.1, float("inf"), float("nan")):
        with pytest.raises(ConfigError, match=r"--hold .* is a weight"):
            ObjectiveOptions(hold=weight)
        with pytest.raises(ConfigError, match=r"--distil .* is a weight"):
            ObjectiveOptions(distil=weight)
