"""Which texts answer which pair. A question may have several golds; in a step one of them is its positive.

Which one is drawn anew in each step, so that a model learns of all places where an answer stands. The others are no
negatives of the question meanwhile, and the best of them says what the filter takes for a false one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Golds:
    """The golds of all pairs, as numbers of texts: those of pair i are `numbers[starts[i] : starts[i + 1]]`.

    They stand in the order of the question's golds: the k-th is one chunk wherever it is spoken of. A text is there
    once, whatever number of pairs it answers, so what is made of texts grows with these alone.
    """

    numbers: Numbers
    starts: Numbers

    @classmethod
    def of(cls, pairs: Iterable[Sequence[str]]) -> tuple[tuple[str, ...], Golds]:
        """The texts in the order in which they come first, and the golds of pairs that have these texts."""
        known: dict[str, int] = {}
        numbers: list[int] = []
        starts = [0]
        for texts in pairs:
            numbers += [known.setdefault(text, len(known)) for text in texts]
            starts.append(len(numbers))
        return tuple(known), cls(np.array(numbers, dtype=np.int64), np.array(starts, dtype=np.int64))

    def of_pair(self, pair: int) -> Numbers:
        """The texts that answer a pair, one at least."""
        return self.numbers[self.starts[pair] : self.starts[pair + 1]]

    def draw(self, pairs: Numbers, rng: np.random.Generator) -> Numbers:
        """(pairs,): for each of these pairs the place of one of its golds, from 0."""
        found: Numbers = rng.integers(0, self.starts[pairs + 1] - self.starts[pairs])
        return found

    def texts(self, pairs: Numbers, places: Numbers) -> Numbers:
        """(pairs,): the texts at these places among the golds of these pairs."""
        found: Numbers = self.numbers[self.starts[pairs] + places]
        return found

    def to_bytes(self) -> bytes:
        """All of it, for a hash."""
        return self.starts.tobytes() + self.numbers.tobytes()
