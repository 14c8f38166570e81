"""Chunks of other devices as further negatives, without a gradient to them.

Each device computes the loss of its own queries. A chunk of another device is pushed away there only by the queries of
its own: the gradient stays local, so no pass has to wait for another but in this one exchange of vectors. What chunks
answer is told with them, so that one which answers the same words elsewhere is no negative here either; to clozes,
which name no document, no chunk from elsewhere is. All devices read their parts of a draw in one way (`Draw.shared`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import distributed

from ctxindex.training.insent import Vectors
from ctxindex.training.sampling import Answers


@dataclass(frozen=True, slots=True, eq=False)
class Others:
    """Chunks that are not of the batch, and the (query of the batch, chunk of these) known to be its answers."""

    chunks: Vectors
    positives: tuple[tuple[int, int], ...]


def gather_others(own: Vectors, answers: Answers) -> Others | None:
    """The chunk vectors of all other devices; None where there is no other.

    Args:
        own: the chunk vectors of this device.
        answers: what its queries ask, and what these chunks answer.
    """
    world, rank = distributed.get_world_size(), distributed.get_rank()
    if world == 1:
        return None
    told: list[tuple[int, tuple[int, ...] | None, Answers]] = [(0, None, answers)] * world
    distributed.all_gather_object(told, (len(own.rows), own.lengths, answers))
    longest = max(rows for rows, *_ in told)
    padded = own.rows.detach().new_zeros(longest, own.rows.shape[1])
    padded[: len(own.rows)] = own.rows.detach()
    gathered = [torch.empty_like(padded) for _ in range(world)]
    distributed.all_gather(gathered, padded)
    others = [number for number in range(world) if number != rank]
    rows = torch.cat([gathered[number][: told[number][0]] for number in others])
    positives: list[tuple[int, int]] = []
    first = 0
    for number in others:
        count, lengths, known = told[number]
        positives += [(query, first + chunk) for query, chunk in answers.answered_by(known)]
        first += count if lengths is None else len(lengths)
    if own.lengths is None:
        return Others(Vectors(rows), tuple(positives))
    every = tuple(length for number in others for length in told[number][1] or ())
    return Others(Vectors(rows, every), tuple(positives))
