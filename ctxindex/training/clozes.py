"""Inverse cloze: some words of a sentence ask for the chunk that it stands in.

Queries that name a document teach a model to put the document into each chunk. Alone, they also teach it to forget what
the chunk itself says, since the name is all that is asked for: measured, questions about details are then answered
worse than by the base model. These queries name nothing and ask for a detail, in the same batch and of the same
vectors, and need no pairs. Words of a sentence that several chunks have (a clause that contracts share) ask for each of
them, and none may count as a wrong answer.

Source: "Latent Retrieval for Weakly Supervised Open Domain Question Answering", arXiv 1906.00300, section 4, where the
sentence itself is the query.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ctxindex.training.pairs.text import content_words, fold, split_sentences

_LEAST, _MOST = 3, 9
"""Words of a query."""


@dataclass(frozen=True, slots=True)
class Cloze:
    """A query of words of a sentence, and that sentence as it is compared: white space and letter case folded."""

    words: str
    sentence: str


def cloze(text: str, rng: np.random.Generator) -> Cloze | None:
    """A query for a chunk: some content words of one of its sentences, in their order.

    None where no sentence has enough of them.
    """
    sentences = [text[start:end] for start, end in split_sentences(text, 0, len(text))]
    fitting = [(words, one) for one in sentences if len(words := content_words(one)) > _LEAST]
    if not fitting:
        return None
    words, sentence = fitting[int(rng.integers(len(fitting)))]
    count = int(rng.integers(_LEAST, min(_MOST, len(words)) + 1))
    kept = np.sort(rng.permutation(len(words))[:count])
    return Cloze(" ".join(words[place] for place in kept), folded(sentence))


def folded(text: str) -> str:
    """A text as it is compared with others: white space and letter case folded."""
    return fold(text).casefold()


def sharing(sentences: Sequence[str], texts: Sequence[str]) -> list[list[int]]:
    """For each folded sentence the numbers of the texts that hold it, word by word."""
    compared = [folded(text) for text in texts] if sentences else []
    return [[number for number, text in enumerate(compared) if sentence in text] for sentence in sentences]
