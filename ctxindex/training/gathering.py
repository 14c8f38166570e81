"""Chunks of other devices as further negatives, without a gradient to them.

Each device computes the loss of its own queries. A chunk of another device is pushed away there only by the queries of
its own: the gradient stays local, so no pass has to wait for another but in this one exchange of vectors.
"""

from __future__ import annotations

import torch
from torch import distributed

from ctxindex.training.insent import Vectors


def gather_others(own: Vectors) -> Vectors | None:
    """The chunk vectors of all other devices; None where there is no other."""
    world, rank = distributed.get_world_size(), distributed.get_rank()
    if world == 1:
        return None
    told: list[tuple[int, tuple[int, ...] | None]] = [(0, None)] * world
    distributed.all_gather_object(told, (len(own.rows), own.lengths))
    longest = max(rows for rows, _ in told)
    padded = own.rows.detach().new_zeros(longest, own.rows.shape[1])
    padded[: len(own.rows)] = own.rows.detach()
    gathered = [torch.empty_like(padded) for _ in range(world)]
    distributed.all_gather(gathered, padded)
    others = [number for number in range(world) if number != rank]
    rows = torch.cat([gathered[number][: told[number][0]] for number in others])
    if own.lengths is None:
        return Vectors(rows)
    return Vectors(rows, tuple(length for number in others for length in told[number][1] or ()))
