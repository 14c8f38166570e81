"""The whole of it: a native CDE model, both of its stages trained, learns a task that only the right context solves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from ctxindex.encoding import EncoderOptions, load_encoder, open_checkpoint
from ctxindex.encoding.cde.encoder import CdeEncoder, FirstStage
from ctxindex.encoding.cde.folder import make_native_cde
from ctxindex.metering import Meter
from ctxindex.training.contextual.contrastive import contrastive_loss
from ctxindex.training.contextual.gradient_cache import ContextualBatch, TwoStageGradient
from ctxindex.training.contextual.model import TwoStageModel
from ctxindex.training.contextual.pairs import Text, read_alone
from ctxindex.training.objective import StepLoss
from ctxindex.training.readings import Reading
from tests.encoding.tiny import SPECIALS, fast, save_modules, word_level
from tests.training.contextual.twins import MARKERS, QUERY, SYMBOLS, Task, context_of, task
from tests.training.contextual.twins import Text as Symbols

STEPS = 1000
"""At most; it takes some 400, in ten seconds on a core."""
WIDTH = 64
WORDS = [f"{kind}{number}" for kind in "qd" for number in range(SYMBOLS)] + [f"m{marker}" for marker in MARKERS]
"""Symbols of queries and of documents, and those that tell the domain."""


def written(symbols: Symbols) -> str:
    """A text of the task in words: what it is (its first symbol) is told by each of them."""
    kind = "q" if symbols[0] == QUERY else "d"
    return " ".join(f"{'m' if symbol in MARKERS else kind}{symbol}" for symbol in symbols[1:])


def start(model: Any) -> None:
    """Weights that do not shrink what they are given, and no positions: else it takes long until a context is of use.

    A symbol of a query is that of a document but for what all symbols of queries and all of documents have in common.
    """
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            torch.nn.init.xavier_uniform_(module.weight)
    embeddings = model.embeddings
    torch.nn.init.zeros_(embeddings.position_embeddings.weight)
    torch.nn.init.zeros_(embeddings.token_type_embeddings.weight)
    words = torch.randn(len(SPECIALS) + len(WORDS), WIDTH) * 0.02
    symbols, kinds = torch.randn(SYMBOLS, WIDTH) * 0.02, torch.randn(2, WIDTH) * 0.02
    words[len(SPECIALS) : -len(MARKERS)] = torch.cat([symbols + kind for kind in kinds])
    embeddings.word_embeddings.weight.data.copy_(words)


class Model:
    """An untrained CDE model as `make_native_cde` makes it, in training; both stages begin as the same network."""

    def __init__(self, folder: Path, seed: int) -> None:
        torch.manual_seed(seed)
        tokenizer = fast(word_level(WORDS))
        config = transformers.BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=4 * WIDTH,
            max_position_embeddings=32,
        )
        factory: Any = transformers.BertModel
        base = factory(config)
        start(base)
        base.save_pretrained(folder / "backbone")
        tokenizer.save_pretrained(folder / "backbone")
        save_modules(folder / "base", folder / "backbone", width=WIDTH)
        checkpoint = open_checkpoint(str(make_native_cde(str(folder / "base"), folder / "cde")))
        options = EncoderOptions(device="cpu", dtype="float32")
        encoder = load_encoder(str(folder / "cde"), options)
        assert isinstance(encoder, CdeEncoder)
        assert checkpoint.first_stage is not None
        first = FirstStage.of(checkpoint.first_stage, options, Meter())
        self.network = TwoStageModel(encoder, checkpoint, "cpu", first=first)
        self._encoder, self._read = encoder, read_alone(first)

    def batch(self, one: Task, context: Sequence[Symbols] | None) -> ContextualBatch[Text]:
        """Queries and documents; without a context they are read in the null context."""
        bare = context is None
        groups = [
            [Text(Reading((row,), 1), bare=bare) for row in self._encoder.query_rows(list(map(written, texts)))]
            for texts in (one.queries, one.documents)
        ]
        slots = [Text(bare=True)] if context is None else [Text(self._read(written(text))) for text in context]
        return ContextualBatch(slots, groups)

    def accuracy(self, one: Task, context: Sequence[Symbols] | None) -> float:
        """Share of queries that are answered."""
        read = self.batch(one, context)
        with torch.no_grad():
            slots = self.network.first(read.context)
            return float(loss_of([self.network.second(texts, slots) for texts in read.groups]).log["accuracy"])


def loss_of(vectors: list[torch.Tensor]) -> StepLoss:
    found = contrastive_loss(vectors[0], vectors[1], tau=0.1)
    return StepLoss(found.loss, {"accuracy": found.accuracy})


def trained(folder: Path, seed: int, *, steps: int = STEPS, control: bool = False) -> Model:
    """Until it answers, or for so many steps; a control never has a context."""
    model, rng = Model(folder, seed), np.random.default_rng(seed)
    optimizer = torch.optim.AdamW(model.network.parameters(), lr=1e-3)
    gradient: TwoStageGradient[Text] = TwoStageGradient(model.network, loss_of)
    recent: list[float] = []
    for step in range(steps):
        one = task(step % 2, rng)
        optimizer.zero_grad()
        recent.append(float(gradient.step(model.batch(one, None if control else one.context)).log["accuracy"]))
        optimizer.step()
        if np.mean(recent[-20:]) > 0.99:
            break
    return model


@pytest.mark.slow
def test_only_the_right_context_solves_the_task_of_twins(tmp_path: Path) -> None:
    model, rng = trained(tmp_path, 0), np.random.default_rng(99)
    tasks = [(domain, task(domain, rng)) for domain in (0, 1) for _ in range(10)]
    right = np.mean([model.accuracy(one, one.context) for _, one in tasks])
    wrong = np.mean([model.accuracy(one, context_of(1 - domain, one.documents[:8])) for domain, one in tasks])
    none = np.mean([model.accuracy(one, None) for _, one in tasks])
    assert right > 0.95
    assert wrong < 0.05
    assert none < 0.6


@pytest.mark.slow
def test_who_learnt_without_a_context_does_not_solve_it_with_one(tmp_path: Path) -> None:
    model, rng = trained(tmp_path, 0, steps=400, control=True), np.random.default_rng(99)
    found = np.mean([model.accuracy(one, one.context) for one in (task(step % 2, rng) for step in range(20))])
    assert found < 0.7  # of two answers either
