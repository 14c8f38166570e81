"""Inverse cloze: some words of a sentence ask for the chunk that it stands in.

Queries that name a document teach a model to put the document into each chunk. Alone, they also teach it to forget what
the chunk itself says, since the name is all that is asked for: measured, questions about details are then answered
worse than by the base model. These queries name nothing and ask for a detail, in the same batch and of the same
vectors, and need no pairs. Source: "Latent Retrieval for Weakly Supervised Open Domain Question Answering", arXiv
1906.00300, section 4, where the sentence itself is the query.
"""

from __future__ import annotations

import numpy as np

from ctxindex.training.pairs.text import content_words, split_sentences

_LEAST, _MOST = 3, 9
"""Words of a query."""


def cloze(text: str, rng: np.random.Generator) -> str | None:
    """A query for a chunk: some content words of one of its sentences, in their order.

    None where no sentence has enough of them.
    """
    sentences = [content_words(text[start:end]) for start, end in split_sentences(text, 0, len(text))]
    fitting = [words for words in sentences if len(words) > _LEAST]
    if not fitting:
        return None
    words = fitting[int(rng.integers(len(fitting)))]
    count = int(rng.integers(_LEAST, min(_MOST, len(words)) + 1))
    kept = np.sort(rng.permutation(len(words))[:count])
    return " ".join(words[place] for place in kept)
