"""A small model of two stages, and a task that only the right context solves.

Documents are sets of four symbols, and each has a twin with all symbols shifted by half the vocabulary. A query has
three of a document's symbols: as they are in the first domain, shifted by half in the second. So without knowing the
domain a query may mean a document or its twin. Only documents that are given as context carry a symbol that tells it.
Queries and documents begin with a symbol for what they are, as the prefixes of a model say: one encoder reads both, and
in the second domain a query must not look like the document that has its symbols.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional

SYMBOLS = 40
HALF = SYMBOLS // 2
MARKERS = (SYMBOLS, SYMBOLS + 1)
QUERY, DOCUMENT = SYMBOLS + 2, SYMBOLS + 3
PADDING = SYMBOLS + 4

Text = tuple[int, ...]


class Block(nn.Module):
    """A layer of BERT's form."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.inner, self.outer = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, states: torch.Tensor, seen: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """States (texts, length, width) attending to `seen`, (texts, keys, width), with a bias for each key."""
        query, key, value = (
            made.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for made in (self.query(states), self.key(seen), self.value(seen))
        )
        scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5 + bias[:, None, None, :]
        states = self.norms[0](states + self.out((scores.softmax(-1) @ value).transpose(1, 2).flatten(-2)))
        return torch.as_tensor(self.norms[1](states + self.outer(functional.gelu(self.inner(states)))))


class Stage(nn.Module):
    """Symbols through some layers; the mean of their states. They see a prefix of vectors, which sees only itself."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(PADDING + 1, width)
        self.blocks = nn.ModuleList([Block(width, 4) for _ in range(layers)])
        self.norm = nn.LayerNorm(width)
        self.last = nn.Linear(width, width)

    def forward(self, texts: Sequence[Text], prefix: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """Vectors (texts, width); the prefix is (texts, slots, width), the bias what its slots have in attention."""
        longest = max(map(len, texts))
        ids = torch.tensor([[*text, *[PADDING] * (longest - len(text))] for text in texts])
        real = ids != PADDING
        # What a text is stands at its beginning, and is added to all of its symbols, as token types are.
        states, prefix = self.norm(self.embedding(ids) + self.embedding(ids[:, :1])), self.norm(prefix)
        among = prefix.new_zeros(prefix.shape[:2])
        ahead = torch.cat([bias.expand(prefix.shape[:2]), states.new_zeros(real.shape).masked_fill(~real, -1e9)], dim=1)
        for block in self.blocks:
            after = block(states, torch.cat([prefix, states], dim=1), ahead)
            if prefix.shape[1]:
                prefix = block(prefix, prefix, among)
            states = after
        weights = real[..., None].to(states)
        return torch.as_tensor(self.last((states * weights).sum(dim=1) / weights.sum(dim=1)))


class Twins(nn.Module):
    """Prefix attention to the context with a learned bias b - ln C; a null vector in place of what is withheld.

    It begins with b = 2, where half of the attention goes to the context, and with weights that do not shrink what they
    are given: with less of both it takes long until a model finds out that the context is of any use.
    With `slot_dropout` the second stage withholds slots by torch's own generator, as a model of this kind may.
    """

    def __init__(self, width: int = 64, layers: int = 2, slot_dropout: float = 0.0) -> None:
        super().__init__()
        self.stages = nn.ModuleList([Stage(width, layers), Stage(width, layers)])
        self.null = nn.Parameter(torch.randn(width) * 0.01)
        self.bias = nn.Parameter(torch.tensor(2.0))
        self.slot_dropout = slot_dropout
        for part in self.modules():
            if isinstance(part, nn.Linear):
                nn.init.xavier_uniform_(part.weight)
                nn.init.zeros_(part.bias)
            elif isinstance(part, nn.Embedding):
                nn.init.normal_(part.weight, std=0.02)

    def first(self, texts: Sequence[Text]) -> torch.Tensor:
        """The context vectors of texts."""
        nothing = self.null.new_zeros(len(texts), 0, len(self.null))
        return torch.as_tensor(self.stages[0](texts, nothing, self.bias))

    def second(self, texts: Sequence[Text], context: torch.Tensor) -> torch.Tensor:
        """The vectors of texts in a context, (slots, width) or (texts, slots, width)."""
        context = context.expand(len(texts), *context.shape[-2:])
        if self.slot_dropout:
            kept = torch.rand(context.shape[:2]) >= self.slot_dropout
            context = torch.where(kept[..., None], context, self.null)
        return torch.as_tensor(self.stages[1](texts, context, self.bias - float(np.log(context.shape[1]))))


@dataclass(frozen=True)
class Task:
    """What one step reads: query i asks for document i; `context` has documents with the domain's symbol."""

    queries: list[Text]
    documents: list[Text]
    context: list[Text]


def task(domain: int, rng: np.random.Generator, documents: int = 24, slots: int = 8) -> Task:
    """Documents and their twins, a query for each, and the context of a domain."""
    drawn = [rng.permutation(HALF)[:4] + HALF * rng.integers(2, size=4) for _ in range(documents // 2)]
    sets = [(one + shift) % SYMBOLS for one in drawn for shift in (0, HALF)]
    asked = [(rng.permutation(one)[:3] + domain * HALF) % SYMBOLS for one in sets]
    found: list[Text] = [(DOCUMENT, *one.tolist()) for one in sets]
    chosen = rng.permutation(documents)[:slots]
    context = context_of(domain, [found[one] for one in chosen])
    return Task([(QUERY, *one.tolist()) for one in asked], found, context)


def context_of(domain: int, documents: Sequence[Text]) -> list[Text]:
    """The documents with the symbol of a domain."""
    return [(*document, MARKERS[domain]) for document in documents]
