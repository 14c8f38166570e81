"""Rows of different lengths as one long row, without padding: what the linear layers of a transformer see.

    row 0 · row 1 · … · row n · filling          (1, tokens)

Only attention looks from one token to another, so only attention must know where a row ends (`ctxindex.encoding.
attention`); all else in a transformer works token by token. Every row has its own positions, from the model's first.

The rows come sorted by length, longest first, and attention takes rows of like length together, in *groups*.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt
    import torch

    from ctxindex.encoding.tokenizer import Ids

_FILL = 64
_ALIKE = 16
"""A packed batch is as long as a multiple of the first, and for attention rows are filled up to one of the second: for
every new shape the kernels keep code and buffers, so that memory would grow with the variety of lengths."""


@dataclass(frozen=True, slots=True)
class Group:
    """Rows of `lengths` tokens, longest first, whose tokens begin at `start`; `attended` is that of `Packing`."""

    lengths: tuple[int, ...]
    attended: tuple[int, ...]
    start: int

    @property
    def longest(self) -> int:
        """The length that its rows are filled up to."""
        return -(-self.lengths[0] // _ALIKE) * _ALIKE

    @property
    def cells(self) -> int:
        """Tokens, with those that fill rows up to the longest."""
        return len(self.lengths) * self.longest


@dataclass(frozen=True)
class Packing:
    """Where the rows lie: row i has `lengths[i]` tokens, directly behind row i - 1; longest first.

    The tokens of row i look at the first `attended[i]` of it; None means at all of it. `placed` is for attention, which
    keeps there what the layers of a batch have in common, by their number of heads.
    """

    lengths: tuple[int, ...]
    attended: tuple[int, ...] | None = None
    placed: dict[int, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict, compare=False, repr=False)

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """The first token of each row, and the end of the last."""
        return tuple(accumulate(self.lengths, initial=0))

    @property
    def tokens(self) -> int:
        """Tokens of all rows."""
        return self.starts[-1]

    @property
    def filled(self) -> int:
        """Tokens of the packed batch, filling included."""
        return -(-self.tokens // _FILL) * _FILL

    def pack(
        self, rows: Sequence[Ids], filler: int, padding: int | None = None
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Ids and positions, each (1, filled) int64.

        Positions count from 0 in every row; in a model that keeps position `padding` for the token of that id, from
        behind it, over all other tokens. The filling, which nothing looks at, has the id `filler`.
        """
        ids = np.full((1, self.filled), filler, dtype=np.int64)
        ids[0, : self.tokens] = np.concatenate(rows)
        positions = np.zeros((1, self.filled), dtype=np.int64)
        for start, length in zip(self.starts, self.lengths, strict=False):
            positions[0, start : start + length] = _positions(ids[0, start : start + length], padding)
        return ids, positions

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """Rows of like length, which attention takes together."""
        attended = self.attended or self.lengths
        groups: list[Group] = []
        first = 0
        while first < len(self.lengths):
            last = first + 1
            least = (self.lengths[first] - 1) // _ALIKE * _ALIKE  # what is longer is filled up to the same length
            while last < len(self.lengths) and self.lengths[last] > least:
                last += 1
            groups.append(Group(self.lengths[first:last], attended[first:last], self.starts[first]))
            first = last
        return tuple(groups)

    def by_head(self, heads: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """How (tokens, heads) becomes, group by group, (rows, heads, longest), and back.

        Returns:
            For every cell the token and head that go there, (cells * heads,) int64, counted token by token; behind the
            end of a row its first token is repeated. And for every token and head its cell, (filled * heads,) int64;
            the filling has any.
        """
        places: list[npt.NDArray[np.int64]] = []
        back = np.zeros((self.filled, heads), dtype=np.int64)
        taken = 0
        for group in self.groups:
            lengths = np.array(group.lengths)[:, None]
            starts = group.start + np.cumsum(lengths, axis=0) - lengths
            columns = np.arange(group.longest)[None, :]
            inside = columns < lengths
            tokens = starts + np.where(inside, columns, 0)  # (rows, longest)
            places.append((tokens[:, None, :] * heads + np.arange(heads)[None, :, None]).ravel())
            cells = taken + np.arange(group.cells * heads).reshape(len(group.lengths), heads, group.longest)
            back[tokens[inside]] = cells.transpose(0, 2, 1)[inside]
            taken += group.cells * heads
        return np.concatenate(places), back.ravel()


def _positions(row: npt.NDArray[np.int64], padding: int | None) -> npt.NDArray[np.int64]:
    if padding is None:
        return np.arange(len(row))
    counted = row != padding
    return np.where(counted, np.cumsum(counted), 0) + padding
