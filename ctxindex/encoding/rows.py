"""The form of a model's input: one row of token ids per window, and which of its positions belong to which chunk.

Rows are put together from ids, and the places of the chunks are written down while that is done. Nothing is ever
searched for in the ids, so a chunk that holds a literal separator changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

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
    row holds besides its own. `isolated` marks the rows of the isolated view (see `independent`). `attended` is how
    many tokens from the start the others look at, None for all: fewer in a query that is filled up unread.
    """

    ids: Ids
    places: tuple[Place, ...]
    content: int
    context: tuple[int, ...]
    isolated: bool = False
    attended: int | None = None

    @property
    def length(self) -> int:
        """Tokens, special tokens included."""
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class Frame:
    """What every row of an encoder has: the ids around the content, and the most tokens a row may have.

    `cls_id` is None where a model begins with its text. `lead` is the blank that the prefix ends in: a tokenizer may
    glue it to the next word, so the prefix is tokenised without it and the first text with it. `prompt_length` counts
    the tokens that a pooling without the prompt leaves out. A text of its own ends with the separator if `closed`.
    """

    cls_id: int | None
    sep_id: int
    prefix: Ids
    max_tokens: int
    lead: str = ""
    prompt_length: int = 0
    closed: bool = True

    @property
    def opening(self) -> Ids:
        """CLS, where there is one, and the prefix."""
        return self.prefix if self.cls_id is None else np.concatenate([[self.cls_id], self.prefix]).astype(np.int32)

    @property
    def separator(self) -> Ids:
        """The separator alone, (1,) int32."""
        return np.array([self.sep_id], dtype=np.int32)

    @property
    def room(self) -> int:
        """Tokens behind CLS and prefix."""
        return self.max_tokens - len(self.prefix) - (self.cls_id is not None)
