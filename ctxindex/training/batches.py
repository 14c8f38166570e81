"""Which documents make a batch: all of one source, in an order that a seed decides.

A batch of several sources would make the second term of the loss easy, since a contract is told from a leaflet by its
looks; of one source, documents must be told from each other by what they are about. Sources take turns so that each
has its share at any moment, and each goes through all of its documents before one comes again. Nothing depends on
anything but the seed and the step: a training that was interrupted leaves out the batches that it has done.

Devices that tell each other's chunks apart share one draw (`dealt`): a source of its own on each would make that easy,
and a document on two of them would be told from itself.
Source of the turns: Balinski and Young, "The quota method of apportionment", 1975: no source is ever a whole batch
ahead of its share or behind it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ctxindex.errors import ConfigError

if TYPE_CHECKING:
    import numpy.typing as npt

    Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Draw:
    """The batch of a step, counted from 0: documents of one source, by number, none of them twice.

    `whole` is the number of the draw that this is a device's part of; None where it is no part.
    """

    step: int
    source: str
    documents: tuple[int, ...]
    seed: int
    whole: int | None = None

    def generator(self) -> np.random.Generator:
        """For all else that is drawn in this step (queries, dropout of titles); the same whenever it is asked for."""
        return np.random.default_rng([self.seed, 0, self.step])

    def shared(self) -> np.random.Generator | None:
        """For what devices that compare their chunks must do alike: one for all parts of a draw; None without parts."""
        return None if self.whole is None else np.random.default_rng([self.seed, 3, self.whole])


def draw_batches(
    sources: Mapping[str, int], size: int, seed: int, shares: Mapping[str, float] | None = None
) -> Iterator[Draw]:
    """Batches without end.

    Args:
        sources: How many documents each source has.
        size: Documents in a batch.
        seed: What decides the order, 0 or more.
        shares: What part of the batches each source gives, in any unit; left out, as many as it has documents.

    Raises:
        ConfigError: no source, one with fewer documents than a batch, or a share that is not more than 0.
    """
    shares = dict(sources) if shares is None else shares
    _require_usable(sources, size, seed, shares)
    total = sum(shares.values())
    weights = {source: shares[source] / total for source in sources}
    decks = {name: _Deck(count, [seed, 1, place]) for place, (name, count) in enumerate(sources.items())}
    return _draws(decks, weights, size, seed)


def dealt(draws: Iterable[Draw], devices: int) -> Iterator[Draw]:
    """Each draw in as many parts as there are devices, one after the other.

    All else is drawn anew for each part, but for what `Draw.shared` is for. A draw of `size * devices` documents gives
    each device `size` of them, of one source and none of them twice.
    """
    for draw in draws:
        size = len(draw.documents) // devices
        whole = draw.step if devices > 1 else None
        for device in range(devices):
            part = draw.documents[device * size : (device + 1) * size]
            yield replace(draw, step=draw.step * devices + device, documents=part, whole=whole)


def _draws(decks: Mapping[str, _Deck], weights: Mapping[str, float], size: int, seed: int) -> Iterator[Draw]:
    given = dict.fromkeys(decks, 0)
    step = 0
    while True:
        # The source that should have had its next batch first, of those not yet at their share of all steps so far.
        behind = {name: (given[name] + 1) / weights[name] for name in decks if given[name] < weights[name] * (step + 1)}
        source = min(behind, key=behind.__getitem__)
        given[source] += 1
        yield Draw(step, source, decks[source].take(size), seed)
        step += 1


class _Deck:
    """The numbers 0 to count - 1, shuffled, and shuffled again when all have been taken."""

    def __init__(self, count: int, seed: list[int]) -> None:
        self._count = count
        self._rng = np.random.default_rng(seed)
        self._left: Numbers = np.empty(0, dtype=np.int64)

    def take(self, size: int) -> tuple[int, ...]:
        """The next `size` numbers, no one twice: what is left of one round comes first, then others of the next."""
        if len(self._left) < size:
            again = self._rng.permutation(self._count)
            # What this batch has already waits until the end of the new round.
            held = np.isin(again, self._left)
            self._left = np.concatenate([self._left, again[~held], again[held]])
        taken, self._left = self._left[:size], self._left[size:]
        return tuple(taken.tolist())


def _require_usable(sources: Mapping[str, int], size: int, seed: int, shares: Mapping[str, float]) -> None:
    if size < 1 or seed < 0:
        raise ConfigError(f"batches of {size} documents with the seed {seed}: at least 1, and 0 or more")
    if not sources or shares.keys() != sources.keys():
        given, known = (", ".join(map(str, names)) or "none" for names in (shares, sources))
        raise ConfigError(f"shares for {given}, and the sources are {known}: there must be one share for each source")
    for source, count in sources.items():
        if count < size:
            raise ConfigError(f"{source} has {count} documents to train on, fewer than a batch of {size}")
        if not 0 < shares[source] < float("inf"):
            raise ConfigError(f"the share of {source}, {shares[source]}, must be more than 0")
