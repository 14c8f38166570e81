"""The values of this room: what a kind of pair reads, what it proposes, and what comes out."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, TypeAlias, get_args

from ctxindex.chunking.spans import Span
from ctxindex.training.pairs.salience import Statistics
from ctxindex.training.pairs.subject import Subject
from ctxindex.training.pairs.text import STOP_WORDS, Sentence, blocks_of, fold, looks_english, sentences_of, words_of
from ctxindex.types import Document

Kind: TypeAlias = Literal["headings", "definitions", "sentences", "cloze", "generated"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True, slots=True)
class Pair:
    """A query and the characters `[start, end)` of one document's text that answer it.

    `remove` is a span to be cut out of the text before it is used, or else the query would be found by its own words.
    It lies within `[start, end)`.
    """

    query: str
    doc_id: str
    start: int
    end: int
    kind: Kind
    remove: Span | None = None

    @property
    def query_id(self) -> str:
        """A function of everything else, so that the same pair has the same name in every run."""
        told = "\0".join((self.doc_id, str(self.start), str(self.end), self.query))
        return f"{self.kind}-{hashlib.sha256(told.encode()).hexdigest()[:16]}"

    def to_json(self) -> dict[str, Any]:
        """The values of a line of `queries.jsonl`; `remove` only where there is one."""
        values: dict[str, Any] = {"query_id": self.query_id}
        values |= {name: getattr(self, name) for name in ("query", "doc_id", "start", "end", "kind")}
        return values if self.remove is None else {**values, "remove": list(self.remove)}


@dataclass(frozen=True, slots=True)
class Candidate:
    """A pair that a kind proposes; a higher `score` is better, among those of one kind and document."""

    pair: Pair
    score: float

    @property
    def place(self) -> Span:
        """The characters that the query was made from."""
        return self.pair.remove or (self.pair.start, self.pair.end)


@dataclass(frozen=True)
class Material:
    """A document as the kinds read it. `random` is the document's own: a function of the seed and its doc_id."""

    document: Document
    subject: Subject
    statistics: Statistics
    random: random.Random = field(compare=False)

    @cached_property
    def blocks(self) -> list[Span]:
        """Its paragraphs, without code and tables."""
        return list(blocks_of(self.document.text))

    @cached_property
    def sentences(self) -> list[Sentence]:
        """The whole sentences of its paragraphs that occur once, each with the number of its paragraph."""
        return sentences_of(self.document.text, self.blocks)

    @cached_property
    def english(self) -> bool:
        """Whether templates of English words suit it."""
        return looks_english(self.document.text)

    @cached_property
    def small(self) -> frozenset[str]:
        """The words that it writes with a small letter somewhere."""
        return frozenset(word for word in words_of(self.document.text) if word[:1].islower())

    def inside(self, words: str) -> str:
        """What stood first in a sentence, as it is written inside one."""
        first = words.split(" ", 1)[0]
        is_small = first.casefold() in STOP_WORDS or first[:1].lower() + first[1:] in self.small
        return words[:1].lower() + words[1:] if is_small else words

    def pair(self, query: str, span: Span, kind: Kind, remove: Span | None = None) -> Pair:
        """A pair of this document."""
        return Pair(fold(query), self.document.doc_id, *span, kind, remove)


Proposer: TypeAlias = Callable[[Material], list[Candidate]]
"""A kind of pair: everything that it could make of one document."""
