"""The form of a model's input: one row of token ids per window, and which of its positions belong to which chunk.

Rows are put together from ids, and the places of the chunks are written down while that is done. Nothing is ever
searched for in the ids, so a chunk that holds a literal separator changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ctxindex.encoding.tokenizer import Ids


@dataclass(frozen=True, slots=True)
class Place:
    """Positions `[start, end)` of a row that are pooled into chunk number `chunk`."""

    chunk: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Row:
    """The input of one window: `ids` (length,) int32 with all special tokens, and the places it pools.

    `content` counts the content tokens that are pooled here; `context` says for each place how many content tokens the
    row holds besides its own. `isolated` marks the rows of the isolated view (see `independent`).
    """

    ids: Ids
    places: tuple[Place, ...]
    content: int
    context: tuple[int, ...]
    isolated: bool = False

    @property
    def length(self) -> int:
        """Tokens, special tokens included."""
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class Frame:
    """What every row of an encoder has: the ids around the content, and the most tokens a row may have."""

    cls_id: int
    sep_id: int
    prefix: Ids
    max_tokens: int

    @property
    def room(self) -> int:
        """Tokens behind CLS and prefix."""
        return self.max_tokens - 1 - len(self.prefix)
