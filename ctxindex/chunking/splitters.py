"""Where to cut: langchain-text-splitters, asked for pieces without overlap, and never for positions.

Each splitter maps a text to pieces that are the text in order with only white space left out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from ctxindex.chunking.spans import Measure
    from ctxindex.types import Tokenizer

Splitter: TypeAlias = Callable[[str], list[str]]


def recursive_splitter(size: int, measure: Measure) -> Splitter:
    """Paragraphs, then lines, then words, then characters: the largest that fit `size`."""
    from langchain_text_splitters import RecursiveCharacterTextSplitter

    splitter = RecursiveCharacterTextSplitter(
        chunk_size=size, chunk_overlap=0, length_function=measure, keep_separator=True, strip_whitespace=True
    )
    return splitter.split_text


def token_splitter(size: int, tokenizer: Tokenizer) -> Splitter:
    """`size` tokens of the model, wherever that cuts.

    The splitter's "tokens" are positions in the list of token offsets, so decoding one is slicing the text, and no
    character is lost to a tokenizer that folds case or drops accents.
    """
    from langchain_text_splitters.base import Tokenizer as Codec
    from langchain_text_splitters.base import split_text_on_tokens

    def split(text: str) -> list[str]:
        # A token of no width, or one that shares its characters with the last (a part of an emoji), cannot be cut at.
        starts = sorted({start for start, end in tokenizer.offsets(text) if end > start})
        # What stands before the first token goes with it, so that the pieces are all of the text.
        edges = [0, *starts[1:], len(text)]
        codec = Codec(
            chunk_overlap=0,
            tokens_per_chunk=size,
            encode=lambda _: list(range(len(starts))),
            decode=lambda taken: text[edges[taken[0]] : edges[taken[-1] + 1]],
        )
        return [piece.strip() for piece in split_text_on_tokens(text=text, tokenizer=codec)] if starts else []

    return split
