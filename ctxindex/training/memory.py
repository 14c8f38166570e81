"""Chunks of earlier batches as further negatives: a document is told from many at the cost of a few.

A batch of six documents asks little of the second term of InSeNT: one name among six is soon found. A memory keeps the
chunk vectors of each source's last batches as they were made, and lets them stand beside the batch's own in that term,
at the cost of one matrix product. No gradient reaches them, and the model has moved since they were made: the more
chunks are kept, the older are the vectors, those of a source that is seldom read most of all.
Source: "Cross-Batch Memory for Embedding Learning", arXiv 1912.06798, section 3.

What is the project's own: chunks of a document that is in the batch are not recalled, and what is known to answer a
query is no negative to it. Clozes name no document and may be answered in others, so nothing recalled is a negative to
them. Steps that leave a view of the chunks out make vectors of another kind, and neither recall nor remember; those
that withhold titles do both. Sources that are replayed are not remembered: there each chunk is read alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ctxindex.training.gathering import Others
from ctxindex.training.insent import Vectors
from ctxindex.training.sampling import Origin

_NONE = -1


class Memory(torch.nn.Module):
    """The vectors of the chunks of each source that were read last.

    It is a module for the sake of its buffers, which go into a checkpoint and come back out of it with the weights, so
    that a training that was interrupted goes on with the same negatives.

    Args:
        sources: whose chunks are remembered, each source for itself.
        most: chunks of a source.
        dim: of a chunk's one vector.
    """

    rows: torch.Tensor
    places: torch.Tensor

    def __init__(self, sources: Sequence[str], most: int, dim: int) -> None:
        super().__init__()
        self._numbers = {source: number for number, source in enumerate(sources)}
        self.register_buffer("rows", torch.zeros(len(sources), most, dim))
        # Number of the document in the source, ordinal of the chunk in the document; the oldest first.
        self.register_buffer("places", torch.full((len(sources), most, 2), _NONE))

    def __contains__(self, source: str) -> bool:
        """Whether chunks of that source are remembered."""
        return source in self._numbers

    def recall(self, origin: Origin) -> Others | None:
        """What is remembered of other documents of a batch's source; None where there is nothing."""
        source = self._numbers[origin.source]
        places = self.places[source]
        read = torch.tensor(sorted({document for document, _ in origin.chunks}), device=places.device)
        kept = torch.nonzero((places[:, 0] != _NONE) & ~torch.isin(places[:, 0], read)).flatten()
        if not len(kept):
            return None
        columns = {(document, ordinal): column for column, (document, ordinal) in enumerate(places[kept].tolist())}
        positives = [
            (query, columns[chunk])
            for query, chunks in enumerate(origin.answered)
            for chunk in sorted(chunks or ())
            if chunk in columns
        ]
        return Others(Vectors(self.rows[source, kept]), tuple(positives))

    def remember(self, origin: Origin, chunks: Vectors) -> None:
        """Keep the vectors of a batch's chunks, (chunks, dim), in place of older ones of theirs, and of the oldest."""
        source = self._numbers[origin.source]
        added = torch.tensor(origin.chunks, device=self.places.device)
        again = (self.places[source][:, None] == added).all(dim=2).any(dim=1)
        most = self.rows.shape[1]
        rows = torch.cat([self.rows[source, ~again], chunks.rows.detach().to(self.rows)])[-most:]
        places = torch.cat([self.places[source, ~again], added])[-most:]
        self.places[source] = _NONE
        self.rows[source, most - len(rows) :], self.places[source, most - len(places) :] = rows, places
