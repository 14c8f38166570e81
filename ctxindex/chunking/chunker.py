"""The chunker: blocks of a document -> pieces -> spans that are exact and never larger than asked for.

    markdown    paragraphs, lines, words: the largest that fit; no chunk crosses a heading (of any format whose
                headings were found in loading; the same as `recursive` where there are none)
    recursive   the same, without regard to headings
    tokens      a fixed number of the model's tokens, wherever that cuts

A document is handed to the splitter in blocks of bounded length, so that time and memory stay in proportion to it.
Sizes are in tokens of the model, as it will read the chunk, or in characters.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from ctxindex.chunking.sections import headings_of, page_at, section_blocks
from ctxindex.chunking.spans import Measure, Span, align, extend_back, fit, join_crumbs, shrink
from ctxindex.chunking.splitters import Splitter, recursive_splitter, token_splitter
from ctxindex.errors import ConfigError, DocumentError
from ctxindex.spec import ChunkerSpec
from ctxindex.types import Chunk, Document, Tokenizer

CHUNKERS = ("markdown", "recursive", "tokens")
DEFAULT_CHUNKER = "markdown"
DEFAULT_CHUNK_SIZE = 128
"""Tokens."""

_SMALLEST = 8
_CRUMB = 16
"""A piece of less than one in so many parts of the size (a page number, say) is joined to the piece beside it."""

_BLOCK = 50_000
"""Characters given to the splitter at once."""

_CHARS_PER_TOKEN = 20
"""A chunk counts at least one token for every 20 characters: a word without end is one unknown token to some models."""

_PLAIN_WORD = re.compile(r"(?<!\S)[A-Za-z0-9]")
"""The beginning of a word that no tokenizer drops."""

_MEMORISED = 40
"""Characters of the longest text whose length is remembered: the same words are measured over and over."""


def load_chunker(spec: ChunkerSpec, tokenizer: Tokenizer) -> SpanChunker:
    """The chunker that `spec` describes, measuring with `tokenizer`.

    Raises:
        ConfigError: the settings cannot be used; the message names the flag.
    """
    if spec.name not in CHUNKERS:
        raise ConfigError(f"--chunker {spec.name} is none of {', '.join(CHUNKERS)}")
    if spec.unit not in ("tokens", "chars"):
        raise ConfigError(f"--chunk-unit {spec.unit} is none of tokens, chars")
    if spec.size < _SMALLEST:
        raise ConfigError(f"--chunk-size {spec.size} is too small: at least {_SMALLEST} {spec.unit}")
    if not 0 <= spec.overlap <= spec.size // 2:
        raise ConfigError(f"--chunk-overlap {spec.overlap} must be 0 to half the chunk size ({spec.size // 2})")
    if spec.name == "tokens" and spec.unit != "tokens":
        raise ConfigError("--chunker tokens counts in tokens: drop --chunk-unit chars, or take --chunker recursive")
    return SpanChunker(spec, tokenizer)


class SpanChunker:
    """Implements `ctxindex.types.Chunker` for a `ChunkerSpec`."""

    def __init__(self, spec: ChunkerSpec, tokenizer: Tokenizer) -> None:
        self.spec = spec
        self._tokenizer = tokenizer
        self._measure = len if spec.unit == "chars" else _token_measure(tokenizer, spec.size)
        size = spec.size - spec.overlap
        self._split: Splitter = (
            token_splitter(size, tokenizer) if spec.name == "tokens" else recursive_splitter(size, self._measure)
        )

    def chunk(self, document: Document) -> tuple[Chunk, ...]:
        """See `ctxindex.types.Chunker.chunk`."""
        text = document.text
        # A chunk's page and headings are those of its own text, not of what it repeats of the chunk before.
        placed: list[tuple[Span, dict[str, Any]]] = []
        for section in self._sections(document):
            own = self._readable(text, [span for block in _blocks(text, section) for span in self._spans(text, block)])
            places = [_place(document, start, end) for start, end in own]
            placed += zip(self._overlapped(text, own), places, strict=True)
        if not placed:
            raise DocumentError("no text that the model can read")
        return tuple(
            Chunk(ordinal, start, end, text[start:end], place) for ordinal, ((start, end), place) in enumerate(placed)
        )

    def _sections(self, document: Document) -> Iterator[Span]:
        """What no chunk may cross the end of."""
        return section_blocks(document) if self.spec.name == "markdown" else iter([(0, len(document.text))])

    def _spans(self, text: str, block: Span) -> Iterator[Span]:
        start, end = shrink(text, block)
        size = self.spec.size - self.spec.overlap
        pieces = align(text, self._split(text[start:end]), start)
        fitting: list[Span] = []
        for span, length in zip(pieces, self._lengths([text[begin:stop] for begin, stop in pieces]), strict=True):
            fitting += [span] if length <= size else fit(text, span, size, self._measure)
        yield from join_crumbs(text, fitting, size, size // _CRUMB, self._measure)

    def _lengths(self, texts: list[str]) -> list[int]:
        """All of them in one call of the tokenizer."""
        if self.spec.unit == "chars":
            return [len(text) for text in texts]
        return [_at_least(count, text) for count, text in zip(self._tokenizer.count(texts), texts, strict=True)]

    def _readable(self, text: str, spans: list[Span]) -> list[Span]:
        """The spans that the model gets any token of: invisible characters alone make no chunk."""
        return [
            (start, end)
            for start, end in spans
            if any(map(str.isalnum, text[start : min(end, start + _MEMORISED)]))
            or self._tokenizer.count([text[start:end]])[0]
        ]

    def _overlapped(self, text: str, spans: list[Span]) -> list[Span]:
        if not self.spec.overlap:
            return spans
        before = [spans[0][0], *(start for start, _ in spans)] if spans else []
        return [
            extend_back(text, span, self._begins(text, floor, span[0]), self.spec.size, self._measure)
            for floor, span in zip(before, spans, strict=False)
        ]

    def _begins(self, text: str, floor: int, stop: int) -> list[int]:
        """Where the text before `stop`, but not before `floor`, can be taken up within the overlap asked for."""
        if self.spec.unit == "chars":
            return list(range(max(floor, stop - self.spec.overlap), stop))
        starts = sorted({floor + start for start, end in self._tokenizer.offsets(text[floor:stop]) if end > start})
        return starts[-self.spec.overlap :]


def _blocks(text: str, section: Span) -> Iterator[Span]:
    """The section in parts of bounded length, cut where a paragraph, a line or a word ends."""
    start, end = section
    while end - start > _BLOCK:
        stop = _break_before(text, start, start + _BLOCK)
        yield start, stop
        start = stop
    yield start, end


def _token_measure(tokenizer: Tokenizer, size: int) -> Measure:
    """Tokens of a text; of one with more than `size` plain words, which have a token each at least, only these."""

    def count(text: str) -> int:
        words = len(_PLAIN_WORD.findall(text))
        return words if words > size else _at_least(tokenizer.count([text])[0], text)

    remembered = lru_cache(maxsize=1 << 16)(count)
    return lambda text: remembered(text) if len(text) <= _MEMORISED else count(text)


def _at_least(tokens: int, text: str) -> int:
    return max(tokens, -(-len(text) // _CHARS_PER_TOKEN))


def _break_before(text: str, start: int, limit: int) -> int:
    """A place to cut in `(start, limit]`: behind the last paragraph, line or word, or at the limit if there is none."""
    for separator in ("\n\n", "\n", " "):
        found = text.rfind(separator, start + 1, limit)
        if found > start:
            return found + len(separator)
    return limit


def _place(document: Document, start: int, end: int) -> dict[str, Any]:
    place: dict[str, Any] = {}
    if document.pages:
        place["page"], place["page_end"] = page_at(document, start), page_at(document, end - 1)
    if headings := headings_of(document, start, end):
        place["headings"] = list(headings)
    return place
