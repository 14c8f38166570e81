"""Small documents, each about a name that only its first chunk tells, and models to train on them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ctxindex.encoding import EncoderOptions, load_encoder
from ctxindex.encoding.checkpoint import open_checkpoint
from ctxindex.encoding.local import LocalEncoder
from ctxindex.training.batches import Draw
from ctxindex.training.model import ContextualModel
from ctxindex.training.sampling import Batch, Limits, Question, Sampler, Shares, TrainingDocument
from tests.encoding.stand_in import chunked
from tests.encoding.tiny import save_sentence_transformer

NAMES = ["Napoleon", "Delaware", "Corsica", "Tokyo", "the party", "emperor", "exile", "zins"]
FACTS = [
    "was born in the year 1769",
    "may be terminated early by either party",
    "became emperor in 1804, and then died",
    "the law which governs this agreement is old",
    "search the document for the law of the land",
    "12 % and emoji",
]


def document(name: str, chunks: int = 4, *, titled: bool = True, words: int = 1) -> TrainingDocument:
    """Chunk 0 names the document, and all others could be of any; each is asked about."""
    facts = [FACTS[number % 6] + " land" * (number // 6) for number in range(chunks)]
    texts = [f"this is {name}. " * words, *(f"{fact}. " * words for fact in facts[1:])]
    source = chunked(name, [text.strip() for text in texts])
    if titled:
        source = replace(source, document=replace(source.document, title=f"about {name}"))
    questions = tuple(Question(f"{name} {fact}", (number,)) for number, fact in enumerate(facts) if number)
    return TrainingDocument(source, questions)


def documents(count: int = 6, **more: Any) -> list[TrainingDocument]:
    return [document(name, 3 + number % 3, **more) for number, name in enumerate(NAMES[:count])]


def loaded(folder: Path | str, **options: Any) -> tuple[LocalEncoder, ContextualModel]:
    """An encoder on the CPU in float32, and its model to train."""
    encoder = load_encoder(str(folder), EncoderOptions(device="cpu", dtype="float32", **options))
    return encoder, ContextualModel(encoder, open_checkpoint(str(folder)), "cpu")


def tiny_model(folder: Path, **options: Any) -> tuple[LocalEncoder, ContextualModel]:
    """A random BERT of two layers, late chunking in windows of 48 tokens."""
    if not folder.exists():
        save_sentence_transformer(folder)
    return loaded(folder, **{"method": "late", "max_tokens": 48, **options})


def batch_of(
    encoder: LocalEncoder,
    sources: list[TrainingDocument],
    *,
    step: int = 0,
    take: int | None = None,
    limits: Limits | None = None,
    shares: Shares | None = None,
) -> Batch:
    """What a step reads of the first `take` documents."""
    sampler = Sampler({"toys": sources}, encoder, limits or Limits(2, 3), shares)
    return sampler.batch(Draw(step, "toys", tuple(range(take or len(sources))), 5))


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Copies of the gradients of all parameters that have one; the parameters have none afterwards."""
    found = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
    model.zero_grad()
    return found


def assert_same_gradients(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], allowed: float) -> None:
    """`allowed` is relative to the largest gradient of each parameter, or to a millionth of that of all."""
    assert found.keys() == expected.keys()
    floor = 1e-6 * max(float(one.abs().max()) for one in expected.values()) / allowed
    for name, one in expected.items():
        largest = max(float(one.abs().max()), floor)
        assert float((found[name] - one).abs().max()) <= allowed * largest, name
