"""The best of every query out of scores of everything, exactly, ties included.

Ties are broken as trec_eval breaks them: of two equal scores the name that sorts later comes first. Scores are float32,
as trec_eval keeps them; minus infinity means not found at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from ctxindex.types import FloatArray

    Numbers = npt.NDArray[np.int64]


def tie_order(names: Sequence[str]) -> Numbers:
    """(names,) int64: the place of each name among all, the one that sorts last first."""
    order = np.empty(len(names), dtype=np.int64)
    order[sorted(range(len(names)), key=names.__getitem__, reverse=True)] = np.arange(len(names))
    return order


def sortable(order: Numbers) -> tuple[str, ...]:
    """Names that sort as those behind `order` do, and hold nothing that a program in C could stumble over."""
    return tuple(f"{len(order) - place:012d}" for place in order.tolist())


def best(scores: FloatArray, order: Numbers, depth: int) -> tuple[Numbers, FloatArray]:
    """The `depth` best of every row, best first.

    Args:
        scores: (rows, items) float32.
        order: (items,) as of `tie_order`.
        depth: how many to keep.

    Returns:
        Their numbers, (rows, depth) int64, -1 where nothing more was found, and their scores, minus infinity there.
    """
    rows, items = scores.shape
    numbers = np.full((rows, depth), -1, dtype=np.int64)
    values = np.full((rows, depth), -np.inf, dtype=np.float32)
    kept = min(depth, items)
    if not kept:
        return numbers, values
    least = np.partition(scores, items - kept, axis=1)[:, items - kept]
    for row in range(rows):
        # All that tie with the last one take part, so that names decide, and not the order of a partial sort.
        candidates = np.flatnonzero((scores[row] >= least[row]) & (scores[row] > -np.inf))
        ranked = candidates[np.lexsort((order[candidates], -scores[row, candidates]))][:depth]
        numbers[row, : len(ranked)] = ranked
        values[row, : len(ranked)] = scores[row, ranked]
    return numbers, values


def rank_of(scores: FloatArray, order: Numbers, gold: Sequence[int]) -> int:
    """The place, from 1, of the first of `gold` when all items are ranked by `scores`, (items,); 0 if none is found."""
    found = [number for number in gold if scores[number] > -np.inf]
    if not found:
        return 0
    first = min(found, key=lambda number: (-scores[number], order[number]))
    value = scores[first]
    return 1 + int(np.sum(scores > value)) + int(np.sum((scores == value) & (order < order[first])))


def by_document(scores: FloatArray, starts: Numbers) -> FloatArray:
    """(rows, documents) float32: the score of each document's best chunk; `starts` as of `Corpus.starts`."""
    highest: FloatArray = np.maximum.reduceat(scores, starts[:-1], axis=1)
    return highest
