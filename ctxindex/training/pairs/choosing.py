"""Which candidates become pairs: no two alike, balanced over kinds, spread over the document.

Two queries are alike where they ask with almost the same words, the subject's aside. A query that several documents
have is nobody's: it is dropped from all of them.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ctxindex.chunking.spans import Span
from ctxindex.training.pairs.subject import Subject
from ctxindex.training.pairs.text import content_words, fold
from ctxindex.training.pairs.values import Candidate, Kind, Pair

_ALIKE = 0.8
"""Share of common words, of all words of two queries, from which on they are alike."""
_ENOUGH = 4
"""Candidates that are put in order, for each pair that is wanted: long documents have very many."""
_SHAREABLE: frozenset[Kind] = frozenset({"headings", "generated"})
"""Kinds whose answers are passages; of the others, two never come from the same sentence."""


@dataclass
class Chosen:
    """The pairs of one document so far, and how many were dropped for being like another."""

    subject: Subject
    pairs: list[Pair] = field(default_factory=list)
    duplicates: int = 0
    _asked: list[frozenset[str]] = field(default_factory=list)
    _sentences: list[Span] = field(default_factory=list)
    _removed: list[Span] = field(default_factory=list)

    def take(self, candidate: Candidate) -> bool:
        """Make a pair of it, unless it is like another or comes from the same sentence."""
        pair = candidate.pair
        if self._collides(candidate):
            return False
        words = self._words(pair.query)
        if any(_alike(words, other) for other in self._asked):
            self.duplicates += 1
            return False
        self.pairs.append(pair)
        self._asked.append(words)
        if pair.kind not in _SHAREABLE:
            self._sentences.append(candidate.place)
        if pair.remove is not None:
            self._removed.append(pair.remove)
        return True

    def _collides(self, candidate: Candidate) -> bool:
        pair = candidate.pair
        if pair.kind not in _SHAREABLE and _any_overlap(candidate.place, self._sentences):
            return True
        # What is cut out for one pair must not be what another is answered by.
        spans = [(one.start, one.end) for one in self.pairs]
        return _any_overlap((pair.start, pair.end), self._removed) or (
            pair.remove is not None and _any_overlap(pair.remove, spans)
        )

    def _words(self, query: str) -> frozenset[str]:
        own = {word.casefold() for word in content_words(self.subject.name)}
        words = frozenset(word.casefold() for word in content_words(query))
        return (words - own) or words or frozenset({fold(query).casefold()})


def choose(
    chosen: Chosen, candidates: Mapping[Kind, Sequence[Candidate]], count: int, drawn: random.Random
) -> list[Pair]:
    """At most `count` pairs, one kind after the other for as long as each has candidates; in the order of the text."""
    share = max(1, -(-count // max(1, len(candidates))))
    lines = {kind: iter(_spread(some, share, drawn)) for kind, some in candidates.items()}
    while lines and len(chosen.pairs) < count:
        for kind in list(lines):
            if len(chosen.pairs) == count:
                break
            if not any(chosen.take(candidate) for candidate in lines[kind]):
                del lines[kind]
    return sorted(chosen.pairs, key=lambda pair: (pair.start, pair.end, pair.query))


def without_shared(pairs: Iterable[Pair]) -> tuple[list[Pair], int]:
    """The pairs whose query no other document has, and how many were left out."""
    listed = list(pairs)
    asked = Counter(query for query, _ in {(fold(pair.query).casefold(), pair.doc_id) for pair in listed})
    kept = [pair for pair in listed if asked[fold(pair.query).casefold()] == 1]
    return kept, len(listed) - len(kept)


def _spread(candidates: Sequence[Candidate], bands: int, drawn: random.Random) -> list[Candidate]:
    """The best of each of `bands` stretches of the document in some order, then the next best of each, and so on."""
    scored = [(candidate.score * drawn.uniform(0.8, 1.0), candidate) for candidate in candidates]
    scored.sort(key=lambda one: (one[1].pair.start, one[1].pair.end, one[1].pair.query))
    stretches = [
        sorted(scored[len(scored) * number // bands : len(scored) * (number + 1) // bands], key=lambda one: -one[0])
        for number in range(bands)
    ]
    found: list[Candidate] = []
    for turn in range(_ENOUGH * bands):
        best = [stretch[turn][1] for stretch in stretches if turn < len(stretch)]
        drawn.shuffle(best)
        found += best
    return found


def _alike(one: frozenset[str], other: frozenset[str]) -> bool:
    return len(one & other) >= _ALIKE * len(one | other)


def _any_overlap(span: Span, others: Iterable[Span]) -> bool:
    return any(span[0] < end and start < span[1] for start, end in others)
