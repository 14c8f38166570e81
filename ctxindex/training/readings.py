"""What is read in training: rows of ids, and which chunk or query each place in them belongs to.

Readings are joined to be read in one pass, and split again where a pass is to hold less.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from ctxindex.encoding.rows import Row


@dataclass(frozen=True, slots=True)
class Reading:
    """Rows, and how many `items` (chunks, or queries) their places are pooled into.

    The `chunk` of a place is 0 to items - 1, and each of these has one place at least.
    """

    rows: tuple[Row, ...]
    items: int

    @property
    def tokens(self) -> int:
        """Of all rows, special tokens included."""
        return sum(row.length for row in self.rows)

    @property
    def lengths(self) -> tuple[int, ...]:
        """How many tokens are pooled into each item."""
        counts = [0] * self.items
        for row in self.rows:
            for place in row.places:
                counts[place.chunk] += place.end - place.start
        return tuple(counts)


def join(readings: Sequence[Reading]) -> Reading:
    """One reading of all, the items of the second numbered behind those of the first, and so on."""
    firsts = accumulate((reading.items for reading in readings), initial=0)
    rows = [_shifted(row, first) for reading, first in zip(readings, firsts, strict=False) for row in reading.rows]
    return Reading(tuple(rows), sum(reading.items for reading in readings))


def split(reading: Reading) -> list[Reading]:
    """The smallest readings whose join reads the same: of a window with its chunks, or of a chunk that is read alone.

    Rows that hold parts of one chunk stay together, and with them the chunks in between.
    """
    if not reading.rows:
        return [reading]
    spans = [
        (min(place.chunk for place in row.places), max(place.chunk for place in row.places)) for row in reading.rows
    ]
    found: list[Reading] = []
    held: list[int] = []
    first = last = 0
    for number in sorted(range(len(spans)), key=lambda number: spans[number]):
        if held and spans[number][0] > last:
            found.append(_cut(reading, held, first, last))
            held, first = [], last + 1
        held.append(number)
        last = max(last, spans[number][1])
    found.append(_cut(reading, held, first, reading.items - 1))
    return found


def _shifted(row: Row, first: int) -> Row:
    """The row with its chunks counted from `first` on."""
    if not first:
        return row
    return replace(row, places=tuple(replace(place, chunk=place.chunk + first) for place in row.places))


def _cut(reading: Reading, rows: Sequence[int], first: int, last: int) -> Reading:
    """Some rows of a reading, in its order, with the items `first` to `last`."""
    return Reading(tuple(_shifted(reading.rows[number], -first) for number in sorted(rows)), last + 1 - first)
