"""The model of two stages in training: its vectors are those of inference, and its gradient reaches what it should."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ctxindex.encoding import EncoderOptions, load_encoder, open_checkpoint
from ctxindex.encoding.cde.encoder import CdeEncoder, FirstStage
from ctxindex.encoding.cde.folder import make_native_cde
from ctxindex.encoding.cde.settings import NativeCde
from ctxindex.metering import Meter
from ctxindex.training.batches import Draw
from ctxindex.training.contextual.context import ContextDropout
from ctxindex.training.contextual.gradient_cache import ContextualBatch, PartSizes, TwoStageGradient
from ctxindex.training.contextual.model import TwoStageModel
from ctxindex.training.contextual.objective import ContextualObjective
from ctxindex.training.contextual.options import ContextualOptions
from ctxindex.training.contextual.pairs import PairSampler, Text, read_alone
from ctxindex.training.objective import StepLoss
from ctxindex.training.options import InsentOptions
from ctxindex.training.readings import Reading
from ctxindex.training.running.parameters import choose_parameters
from ctxindex.training.schedule import Schedule
from ctxindex.types import EncodedDocument
from tests.encoding.tiny import save_sentence_transformer
from tests.training.contextual.test_pairs import LABELS, PAIRS, SOURCES, TEXTS, nothing

OPTIONS = EncoderOptions(device="cpu", dtype="float32", anchor=4, blend=0.0)
KINDS = ("frozen", "shared", "trained")
PADDED = "mpnet"
"""A second stage whose rows are not packed; its first stage is frozen."""


class Made:
    """A CDE model with one of the forms of a first stage, as an encoder and in training."""

    def __init__(self, folder: Path, kind: str) -> None:
        settings = NativeCde(share_stages=kind == "shared", output_head=True, context_bias_init=0.5)
        base = save_sentence_transformer(folder / f"{kind}-base", PADDED if kind == PADDED else "bert")
        make_native_cde(str(base), folder / kind, settings)
        checkpoint = open_checkpoint(str(folder / kind))
        encoder = load_encoder(str(folder / kind), OPTIONS)
        assert isinstance(encoder, CdeEncoder)
        self.encoder = encoder
        first = FirstStage.of(checkpoint.first_stage or checkpoint, OPTIONS, Meter())
        self.model = TwoStageModel(encoder, checkpoint, "cpu", first=first if kind == "trained" else None)
        self.read = read_alone(first)
        if kind in ("frozen", PADDED):
            self.model.freeze(first.mean_states(TEXTS.texts))

    def slots(self, numbers: list[int]) -> list[Text]:
        return [Text(self.read(TEXTS.texts[number]), number) for number in numbers]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Made]:
    folder = tmp_path_factory.mktemp("models")
    return {kind: Made(folder, kind) for kind in (*KINDS, PADDED)}


@pytest.mark.parametrize("kind", [*KINDS, PADDED])
def test_vectors_are_those_of_inference(made: dict[str, Made], kind: str) -> None:
    one, numbers = made[kind], [3, 0, 5]
    reading = one.encoder.with_context(one.encoder.encode_context([TEXTS.texts[number] for number in numbers]))
    asked = ["when is the market in Arles", "who founded Fez"]
    rows = one.encoder.query_rows(asked)
    source = SOURCES["a"][1].source
    document = Reading(tuple(one.encoder.document_rows(source)), len(source.chunks))
    texts = [Text(Reading((rows[0],), 1)), Text(document), Text(Reading((rows[1],), 1), bare=True)]
    with torch.no_grad():
        found = one.model.second(texts, one.model.first(one.slots(numbers))).numpy()
    np.testing.assert_allclose(found[0], reading.encode_queries(asked)[0], atol=1e-5)
    (expected,) = reading.encode_documents([source])
    assert isinstance(expected, EncodedDocument)
    np.testing.assert_allclose(found[1:4], expected.vectors, atol=1e-5)
    np.testing.assert_allclose(found[4], one.encoder.encode_queries(asked)[1], atol=1e-5)
    assert np.abs(found[0] - one.encoder.encode_queries(asked)[0]).max() > 1e-4


def test_a_context_withheld_in_all_slots_is_none(made: dict[str, Made]) -> None:
    one = made["frozen"]
    asked = [Text(Reading((row,), 1)) for row in one.encoder.query_rows(["who founded Fez"])]
    with torch.no_grad():
        nothing = one.model.second(asked, one.model.first([Text(bare=True)] * 3))
        bare = one.model.second([replace(text, bare=True) for text in asked], one.model.first(one.slots([1])))
    torch.testing.assert_close(nothing, bare, atol=1e-6, rtol=0)


def gradients(one: Made, kind: str, **more: Any) -> dict[str, torch.Tensor]:
    options = ContextualOptions(context_size=(4, 4), dropout=ContextDropout(0.3, 0.3), insent=0.5)
    sampler = PairSampler(
        SOURCES,
        PAIRS,
        one.encoder,
        options,
        windows=1,
        labels=LABELS,
        texts=TEXTS,
        remove=nothing,
        first=None if kind in ("frozen", PADDED) else one.read,
    )
    one.model.zero_grad()
    batch = sampler.batch(Draw(3, "a", (0, 1, 3, 7), 0))
    bare = [text.bare for group in (batch.context, *batch.groups) for text in group]
    assert any(bare)
    assert not all(bare)
    ContextualObjective(one.model, InsentOptions(), options.insent).step(
        one.model, batch, torch.autograd.backward, **more
    )
    return {name: weight.grad for name, weight in one.model.named_parameters() if weight.grad is not None}


def test_parts_of_a_context_that_is_withheld_in_all_slots_have_its_gradient(made: dict[str, Made]) -> None:
    one = made["frozen"]
    asked = [Text(Reading((row,), 1)) for row in one.encoder.query_rows(["who founded Fez", "when is the market"])]

    def loss(vectors: list[torch.Tensor]) -> StepLoss:
        return StepLoss(vectors[0][:, 0].sum(), {})

    found = []
    for sizes in (PartSizes(), PartSizes(first=2, second=1)):
        one.model.zero_grad()
        TwoStageGradient(one.model, loss, sizes=sizes).step(ContextualBatch([Text(bare=True)] * 3, [asked]))
        found.append({name: weight.grad for name, weight in one.model.named_parameters() if weight.grad is not None})
    whole, parts = found
    assert float(whole["parts.null"].abs().max()) > 1e-7
    assert whole.keys() == parts.keys()
    for name, gradient in whole.items():
        torch.testing.assert_close(parts[name], gradient, atol=2e-6, rtol=1e-4, msg=f"{name} differs")


@pytest.mark.parametrize("kind", [*KINDS, PADDED])
def test_parts_have_the_gradient_of_one_pass(made: dict[str, Made], kind: str) -> None:
    whole = gradients(made[kind], kind)
    parts = gradients(made[kind], kind, budget=60)
    assert whole.keys() == parts.keys()
    for name, one in whole.items():
        torch.testing.assert_close(parts[name], one, atol=2e-6, rtol=1e-4, msg=f"{name} differs")
    new = ("parts.projection_weight", "parts.projection_bias", "parts.null", "parts.bias", "parts.head_2_weight")
    assert all(float(whole[name].abs().max()) > 1e-7 for name in new)
    assert any(name.startswith("first_stage.") for name in whole) is (kind == "trained")


@pytest.mark.parametrize(
    ("schedule", "learning"),
    [(Schedule(freeze_embeddings=True), "word_embeddings"), (Schedule(lora=2), "lora_")],
)
def test_a_schedule_is_about_both_stages(tmp_path: Path, schedule: Schedule, learning: str) -> None:
    save_sentence_transformer(tmp_path / "bert")
    model = Made(tmp_path, "trained").model
    choose_parameters(model, schedule)
    for stage in ("transformer.", "first_stage.transformer."):
        named = {name: one.requires_grad for name, one in model.named_parameters() if name.startswith(stage)}
        if schedule.lora:
            assert {name for name, learns in named.items() if learns} == {name for name in named if learning in name}
            assert any(named.values())
        else:
            assert [learns for name, learns in named.items() if learning in name] == [False]
            assert sum(named.values()) == len(named) - 1
    assert all(one.requires_grad for name, one in model.named_parameters() if name.startswith("parts."))
