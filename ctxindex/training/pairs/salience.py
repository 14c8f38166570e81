"""Which words and sentences of a document matter: frequent here, rare elsewhere, with names, numbers and dates."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from ctxindex.training.pairs.text import content_words
from ctxindex.types import Document

_FEW, _MANY = 6, 28
"""Content words of a sentence: fewer say too little, more say too much at once."""
_NUMBER = re.compile(r"\d")
_NAME = re.compile(r"(?<=[a-z,;] )[A-Z][a-z]+")


@dataclass(frozen=True)
class Statistics:
    """In how many of `documents` documents each word occurs, folded."""

    documents: int
    occurrences: Counter[str]

    @classmethod
    def of(cls, documents: Iterable[Document]) -> Statistics:
        """Those of a corpus."""
        occurrences: Counter[str] = Counter()
        count = 0
        for document in documents:
            occurrences.update({word.casefold() for word in content_words(document.text)})
            count += 1
        return cls(count, occurrences)

    def rarity(self, word: str) -> float:
        """About 1 for a word of every document, more for one of few."""
        return 1 + math.log((1 + self.documents) / (1 + self.occurrences[word.casefold()]))


@dataclass(frozen=True)
class Salience:
    """The weight of every word of one document: how often it is there, dampened, times its rarity."""

    weights: dict[str, float]

    @classmethod
    def of(cls, text: str, statistics: Statistics) -> Salience:
        """That of a document's text."""
        counts = Counter(word.casefold() for word in content_words(text))
        return cls({word: (1 + math.log(count)) * statistics.rarity(word) for word, count in counts.items()})

    def weight(self, word: str) -> float:
        """Of one word."""
        return self.weights.get(word.casefold(), 0.0)

    def score(self, sentence: str) -> float:
        """Of a sentence: the mean weight of its words, more for names and numbers; 0 where it has too few words."""
        words = content_words(sentence)
        if not words:
            return 0.0
        mean = sum(map(self.weight, words)) / len(words)
        fitting = min(1.0, len(words) / _FEW) * min(1.0, _MANY / len(words))
        extra = 0.25 * bool(_NUMBER.search(sentence)) + 0.25 * bool(_NAME.search(sentence))
        return mean * fitting * (1 + extra)

    def best(self, sentence: str, count: int) -> list[str]:
        """The `count` words of greatest weight, each once, in the order of the sentence."""
        words = list({word.casefold(): word for word in content_words(sentence)}.values())
        chosen = set(sorted(words, key=lambda word: (-self.weight(word), word))[:count])
        return [word for word in words if word in chosen]
