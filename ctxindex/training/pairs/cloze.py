"""Pairs by inverse cloze: words of a sentence ask for the passage that it stands in. Works for every language.

About half of the words that say something are kept, so that a search by words is helped and not given the answer.
With `remove` the sentence is to be cut out of the document: the passage is then its neighbours alone, and only what
the sentence was about can lead there.
"""

from __future__ import annotations

import re
from itertools import pairwise

from ctxindex.chunking.spans import Span
from ctxindex.training.pairs.salience import Salience
from ctxindex.training.pairs.text import Sentence, content_words, fold
from ctxindex.training.pairs.values import Candidate, Material

_LEAST, _MOST = 3, 8
"""Words of a query, besides the subject; a sentence with no more than the least asks for nothing."""

_CRUMB = re.compile(r"\d{1,3}|[a-z]{1,2}")
"""What is left of amounts and abbreviations."""


def propose(material: Material, *, remove: bool = False) -> list[Candidate]:
    """A candidate for each sentence with enough words that say something."""
    text = material.document.text
    salience = Salience.of(text, material.statistics)
    passages = _passages(material.sentences) if remove else {}
    candidates = []
    for sentence in material.sentences:
        told = text[sentence.start : sentence.end]
        words = _chosen(material, told, salience)
        passage = passages.get(sentence) if remove else sentence.span
        if len(words) < _LEAST or passage is None:
            continue
        query = material.subject.before(fold(" ".join(words)))
        cut = sentence.span if remove else None
        candidates.append(Candidate(material.pair(query, passage, "cloze", cut), salience.score(told)))
    return candidates


def _chosen(material: Material, sentence: str, salience: Salience) -> list[str]:
    """About half of the content words of a sentence, each once, in their order; the subject's own aside.

    Chance decides as well as weight: the rarest words alone would make it easy for a search by words.
    """
    subject = {word.casefold() for word in content_words(material.subject.name)}
    words = list({word.casefold(): word for word in content_words(sentence)}.values())
    words = [word for word in words if word.casefold() not in subject and not _CRUMB.fullmatch(word)]
    least = _LEAST + material.english  # a word of another script may be a whole phrase
    if len(words) <= least:
        return []
    count = min(_MOST, max(least, -(-len(words) // 2)))
    luck = {word: salience.weight(word) * material.random.uniform(0.4, 1.0) for word in words}
    drawn = set(sorted(words, key=lambda word: -luck[word])[:count])
    return [word for word in words if word in drawn]


def _passages(sentences: list[Sentence]) -> dict[Sentence, Span]:
    """For each sentence with a neighbour in its paragraph: the span from the one before to the one after."""
    found: dict[Sentence, Span] = {}
    for one, other in pairwise(sentences):
        if one.block == other.block:
            found[one] = (found.get(one, one.span)[0], other.end)
            found[other] = (one.start, other.end)
    return found
