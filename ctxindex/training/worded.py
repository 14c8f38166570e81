"""What a chunk still says by itself: held-out documents asked with words of their own chunks.

Questions that name a document measure what training is for. What training may cost, a detail that is asked for without
a name, they do not see: a model may find less and less of it while their figure rises. So where something is chosen on
held-out documents (`--merge`), these are asked a second time with clozes, words of a sentence of a chunk.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from ctxindex.evaluation.dataset import Query
from ctxindex.training.clozes import cloze, folded

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ctxindex.evaluation.corpus import Corpus

MOST = 400
"""Clozes of a corpus: as many questions as tell one point from chance."""

WORDED = ", by words"
"""What stands behind the name of a corpus that is asked like that."""


def both_ways(corpora: Iterable[Corpus], seed: int) -> list[Corpus]:
    """Each corpus with its own questions, and behind it with words, where its chunks have sentences to take some of."""
    asked = [found for one in corpora for found in (one, by_words(one, seed))]
    return [one for one in asked if one.queries]


def by_words(corpus: Corpus, seed: int, most: int = MOST) -> Corpus:
    """The same documents, asked with words of sentences of their chunks in place of their own questions.

    Gold are all chunks of the corpus that hold the sentence, or of a corpus that ranks documents, their documents. One
    chunk is asked for at most once; which, and with which words, decides the seed.
    """
    asked = list(islice(_clozes(corpus, np.random.default_rng(seed)), most))
    return replace(
        corpus,
        name=f"{corpus.name}{WORDED}",
        queries=tuple(query for query, _ in asked),
        gold=tuple(gold for _, gold in asked),
    )


def _clozes(corpus: Corpus, rng: np.random.Generator) -> Iterator[tuple[Query, dict[int, int]]]:
    texts = [chunk.text for one in corpus.documents for chunk in one.chunks]
    compared = [folded(text) for text in texts]
    for chunk in rng.permutation(len(texts)).tolist():
        found = cloze(texts[chunk], rng)
        if found is None:
            continue
        holders = [number for number, text in enumerate(compared) if found.sentence in text]
        places = holders if corpus.level == "chunk" else corpus.owners[holders].tolist()
        yield Query(f"words of chunk {chunk}", found.words), dict.fromkeys(places, 1)
