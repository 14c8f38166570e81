"""InSeNT: the loss that teaches an encoder to use the context of a chunk, with one vector a chunk or several.

A batch holds documents, all chunks of each encoded in one contextual pass, and queries, each with a gold chunk g in one
of the documents. With s(q, k) the similarity of query and chunk divided by the temperature tau,

    l_seq(q)   = log (sum of exp s(q, k) over all k of the own document)          - s(q, g)
    l_batch(q) = log (sum of exp s(q, k) over g and all k of the other documents) - s(q, g)

    L = lambda (mean of l_seq) + (1 - lambda) (mean of l_batch)

The first term tells a chunk from its siblings, which the shared context makes alike; the second tells the document from
others, which the chunk alone may not. Neither suffices: training is worst at lambda = 0 and at lambda = 1. The mean is
*macro*, over the queries of a document and then over the documents that have queries, as the authors' code takes it, or
*micro*, over all queries, as the paper writes it. The mode "joint" has one softmax over all chunks of the batch.
Source: "Context is Gold to find the Gold Passage", arXiv 2505.24782, the training objective of InSeNT, and the authors'
code; tau is a number of the code alone.

What is the project's own:

- *Known positives.* Another chunk that answers the query, too, is left out of both sums. A query with several golds has
  the mean over its golds, the others left out each time.
- *Late interaction.* s is MaxSim (`ctxindex.encoding.maxsim`) divided by the number of the query's vectors. So it stays
  a mean cosine, and one tau serves both kinds of encoders; a sum over 32 vectors by 0.05 would leave a softmax in which
  one chunk has all the weight. The authors' code has the sum and no tau: `query_mean=False, tau=1.0`.
- *No chunk that is none.* Vectors come packed, so that no padding is ever scored, and their number must agree with the
  chunks of the documents. The authors' training counts an empty chunk behind every document's last separator.

Everything is computed in float32 at least, under autocast as well.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from ctxindex.training.options import Average as Average
from ctxindex.training.options import InsentOptions as InsentOptions

if TYPE_CHECKING:
    import numpy.typing as npt
    import torch

    Numbers = npt.NDArray[np.int64]

_UNIT = 0.01
"""How far from 1 a norm may be; a unit vector rounded to bfloat16 is within 0.004."""

_PRODUCTS = 2**24
"""Products of late interaction that are made at once, 64 MB in float32."""

_log = logging.getLogger("ctxindex")


class NotNumbersError(ValueError):
    """A vector is not made of numbers: weights have left their range, or a product has left that of its type."""


@dataclass(frozen=True, slots=True, eq=False)
class Vectors:
    """Vectors of chunks or queries, packed: those of one item directly behind those of the item before.

    `rows` is (rows, dim), of any floating dtype, each of unit length. `lengths` says how many rows each item has, at
    least one; None means one each.

    Raises:
        ValueError: another shape, or lengths that do not add up to the rows.
    """

    rows: torch.Tensor
    lengths: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.rows.ndim != 2:
            raise ValueError(f"vectors are (rows, dim), not {tuple(self.rows.shape)}")
        if self.lengths is None:
            return
        if sum(self.lengths) != len(self.rows):
            raise ValueError(f"the lengths add up to {sum(self.lengths)}, and there are {len(self.rows)} rows")
        if self.lengths and min(self.lengths) < 1:
            raise ValueError(f"number {self.lengths.index(min(self.lengths))} has no vector at all")

    @classmethod
    def from_padded(cls, padded: torch.Tensor, mask: torch.Tensor) -> Vectors:
        """From (items, longest, dim) and a mask (items, longest), which is True (or 1) where a row is real."""
        real = mask.bool()
        return cls(padded[real], tuple(real.sum(dim=1).tolist()))

    def __len__(self) -> int:
        """Items: chunks or queries."""
        return len(self.rows) if self.lengths is None else len(self.lengths)

    def detached(self) -> Vectors:
        """The same vectors as a leaf of their own graph: a gradient is gathered in `rows.grad`."""
        return replace(self, rows=self.rows.detach().requires_grad_())


@dataclass(frozen=True, eq=False)
class InsentBatch:
    """The vectors of a batch, and which chunk answers which query.

    `chunks` are those of all documents, one document after the other, and `counts` says how many each has. Query i is
    asked of document `documents[i]`, whose chunks `golds[i]` (ordinals within it, at least one) answer it. A document
    without queries gives negatives only.

    `positives` names further chunks that answer a query, as (query, chunk), the chunk counted over the whole batch:
    the same sentence in another document, a chunk that states the answer in passing. They are no golds, and no
    negatives. `others` are chunks of other documents from elsewhere: gathered from other devices, or remembered from
    earlier steps. No gradient reaches them, and they count on behind `chunks`; all they do is to be negatives in
    l_batch, and in the joint mode. To the queries in `sheltered` they are none.

    For a gradient cache: `detached()` cuts the graph at the vectors; after `backward()` on its loss the gradients wait
    in `chunks.rows.grad` and `queries.rows.grad`, to be handed to each document's own forward pass. (Source of the
    method: "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup", arXiv 2101.06983.)

    Raises:
        ValueError: the parts do not belong together; the message says where.
    """

    chunks: Vectors
    counts: tuple[int, ...]
    queries: Vectors
    documents: tuple[int, ...]
    golds: tuple[tuple[int, ...], ...]
    positives: tuple[tuple[int, int], ...] = ()
    others: Vectors | None = None
    sheltered: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        _require_alike(self)
        if sum(self.counts) != len(self.chunks) or (self.counts and min(self.counts) < 1):
            raise ValueError(
                f"documents of {', '.join(map(str, self.counts))} chunks (each has one at least) and "
                f"{len(self.chunks)} chunk vectors: there must be one for each chunk"
            )
        if not len(self.queries) == len(self.documents) == len(self.golds) > 0:
            raise ValueError(
                f"{len(self.queries)} queries, {len(self.documents)} document numbers and {len(self.golds)} lists of "
                "golds: there must be as many of each, and one at least"
            )
        _require_golds(self)
        columns = len(self.chunks) + (len(self.others) if self.others else 0)
        if not all(0 <= query < len(self.queries) for query in self.sheltered):
            raise ValueError(f"sheltered queries {sorted(self.sheltered)}, and there are {len(self.queries)} queries")
        for query, chunk in self.positives:
            if not (0 <= query < len(self.queries) and 0 <= chunk < columns):
                there = f"{len(self.queries)} queries and {columns} chunks"
                raise ValueError(f"the positive ({query}, {chunk}) is out of range, there are {there}")

    def detached(self) -> InsentBatch:
        """The same batch on vectors that are leaves, so that a gradient stops there."""
        return replace(self, chunks=self.chunks.detached(), queries=self.queries.detached())

    @cached_property
    def pairs(self) -> tuple[Numbers, Numbers]:
        """Every query with each of its golds: (pairs,) numbers of queries, (pairs,) numbers of chunks in the batch."""
        golds = [sorted(set(ordinals)) for ordinals in self.golds]
        queries = np.repeat(np.arange(len(golds)), [len(ordinals) for ordinals in golds])
        first = np.cumsum([0, *self.counts])
        ordinals = np.fromiter(chain.from_iterable(golds), dtype=np.int64)
        return queries, first[np.asarray(self.documents)[queries]] + ordinals

    def weights(self, average: Average) -> npt.NDArray[np.float64]:
        """What each pair counts in the mean, (pairs,); they add up to 1."""
        queries, _ = self.pairs
        of_query = 1 / np.bincount(queries)[queries]
        if average == "micro":
            return np.asarray(of_query / len(self.queries))
        asked = np.bincount(self.documents)
        return np.asarray(of_query / asked[np.asarray(self.documents)[queries]] / np.count_nonzero(asked))


@dataclass(frozen=True, slots=True, eq=False)
class InsentLoss:
    """The loss, a scalar with its graph, and what to log, scalars without.

    In the joint mode `loss` is that of the one softmax, and `l_seq` and `l_batch` are for the log alone. `accuracy` is
    the share of golds that score above every negative of the batch, `accuracy_seq` above those of their own document,
    both averaged as the loss is; a tie is no success.
    """

    loss: torch.Tensor
    l_seq: torch.Tensor
    l_batch: torch.Tensor
    accuracy: torch.Tensor
    accuracy_seq: torch.Tensor


def insent_loss(batch: InsentBatch, options: InsentOptions | None = None) -> InsentLoss:
    """The InSeNT loss of a batch; see the top of this file.

    Returns:
        Scalars of the vectors' dtype, float32 at least, on their device.

    Raises:
        ValueError: vectors that are not of unit length.
        NotNumbersError: vectors that are not made of numbers.
    """
    import torch

    options = options or InsentOptions()
    if options.mode == "insent" and options.lambda_seq < 1 and len(batch.counts) == 1 and not batch.others:
        _warn_of_a_single_document()
    _require_unit(batch)
    with torch.autocast(batch.chunks.rows.device.type, enabled=False):
        scores = _similarities(batch, query_mean=options.query_mean) / options.tau
        queries, golds = (torch.from_numpy(numbers).to(scores.device) for numbers in batch.pairs)
        # Relative to the gold's score, a softmax has its gold at 0: exact where no negative comes near it.
        margins = scores[queries]
        margins = margins - margins.gather(1, golds[:, None])
        own, other = _negatives(batch, queries, golds, mask_positives=options.mask_positives)
        weights = torch.as_tensor(batch.weights(options.average), dtype=margins.dtype, device=margins.device)
        l_seq = weights @ _surprise(margins, own)
        l_batch = weights @ _surprise(margins, other)
        if options.mode == "joint":
            loss = weights @ _surprise(margins, own | other)
        else:
            loss = options.lambda_seq * l_seq + (1 - options.lambda_seq) * l_batch
        margins = margins.detach()
        accuracy, accuracy_seq = weights @ _above(margins, own | other), weights @ _above(margins, own)
    return InsentLoss(loss, l_seq.detach(), l_batch.detach(), accuracy, accuracy_seq)


def _similarities(batch: InsentBatch, *, query_mean: bool) -> torch.Tensor:
    """(queries, chunks and others): dot products, or MaxSim; float32 at least."""
    import torch

    queries, chunks, others = batch.queries, batch.chunks, batch.others
    dtype = torch.promote_types(torch.promote_types(queries.rows.dtype, chunks.rows.dtype), torch.float32)
    rows = chunks.rows.to(dtype)
    if others:
        rows = torch.cat([rows, others.rows.detach().to(rows)])
    if queries.lengths is None or chunks.lengths is None:
        return queries.rows.to(dtype) @ rows.T
    lengths = chunks.lengths + ((others.lengths or ()) if others else ())
    padded_queries, real_queries = _padded(queries.rows.to(dtype), queries.lengths)
    scores = _max_sims(padded_queries, real_queries, rows, lengths)
    return scores / real_queries.sum(dim=1, keepdim=True) if query_mean else scores


def _max_sims(
    queries: torch.Tensor, real_queries: torch.Tensor, rows: torch.Tensor, lengths: tuple[int, ...]
) -> torch.Tensor:
    """MaxSim of padded queries with packed chunks, (queries, chunks).

    In blocks of chunks of like length, so that one long chunk does not pad all others; where there are several, the
    products of a block, which are all that is large, are made again for the gradient instead of kept.
    """
    import torch
    from torch.utils.checkpoint import checkpoint

    from ctxindex.encoding.maxsim import max_sim_torch

    parts = torch.split(rows, list(lengths))
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    blocks = list(_blocks(order, lengths, real_queries.numel()))
    scores = []
    for block in blocks:
        own = tuple(lengths[number] for number in block)
        padded, real = _padded(torch.cat([parts[number] for number in block]), own)
        if len(blocks) == 1:
            scores.append(max_sim_torch(queries, padded, real_queries, real))
        else:
            scores.append(checkpoint(max_sim_torch, queries, padded, real_queries, real, use_reentrant=False))
    back = torch.empty(len(order), dtype=torch.long)
    back[torch.tensor(order)] = torch.arange(len(order))
    return torch.cat(scores, dim=1)[:, back.to(rows.device)]


def _blocks(order: Sequence[int], lengths: Sequence[int], query_rows: int) -> Iterator[list[int]]:
    """The chunks, by rising length, in blocks of at most `_PRODUCTS` products with all rows of the queries."""
    block: list[int] = []
    for number in order:
        if block and (len(block) + 1) * lengths[number] * query_rows > _PRODUCTS:
            yield block
            block = []
        block.append(number)
    yield block


def _padded(rows: torch.Tensor, lengths: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """Packed (rows, dim) -> (items, longest, dim), and a mask (items, longest) of what is real."""
    import torch

    counts = torch.tensor(lengths, device=rows.device)
    real = torch.arange(max(lengths), device=rows.device) < counts[:, None]
    padded = rows.new_zeros(*real.shape, rows.shape[1])
    padded[real] = rows
    return padded, real


def _negatives(
    batch: InsentBatch, queries: torch.Tensor, golds: torch.Tensor, *, mask_positives: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """What is a negative for each pair: two (pairs, columns) bool, of the own document and of all others."""
    import torch

    device, others = golds.device, len(batch.others) if batch.others else 0
    numbers = np.repeat(np.arange(len(batch.counts) + 1), [*batch.counts, others])
    of_column = torch.from_numpy(numbers).to(device)
    of_pair = torch.tensor(batch.documents, device=device)[queries]
    excluded = torch.zeros(len(batch.queries), len(numbers), dtype=torch.bool, device=device)
    excluded[queries, golds] = True  # of several golds of a query none is a negative of another
    if mask_positives and batch.positives:
        known = torch.tensor(batch.positives, device=device)
        excluded[known[:, 0], known[:, 1]] = True
    if batch.sheltered:
        excluded[sorted(batch.sheltered), len(batch.chunks) :] = True
    allowed = ~excluded[queries]
    allowed.scatter_(1, golds[:, None], False)
    own = of_column[None, :] == of_pair[:, None]
    return own & allowed, ~own & allowed


def _surprise(margins: torch.Tensor, negatives: torch.Tensor) -> torch.Tensor:
    """(pairs,): minus the log of the gold's share among itself and its negatives; 0 where there are none."""
    import torch

    # The gold is a column of zeros of its own: no row is without a finite number, so no gradient is NaN.
    gold = margins.new_zeros(len(margins), 1)
    return torch.cat([gold, margins.masked_fill(~negatives, -torch.inf)], dim=1).logsumexp(dim=1)


def _above(margins: torch.Tensor, negatives: torch.Tensor) -> torch.Tensor:
    """(pairs,): 1 where the gold scores above all negatives, else 0."""
    beaten = (margins < 0) | ~negatives
    return beaten.all(dim=1).to(margins)


@cache
def _warn_of_a_single_document() -> None:
    """Once: it is the same for every batch of a training."""
    _log.warning("batches of one document: l_batch is 0, and nothing tells documents from each other")


def _require_unit(batch: InsentBatch) -> None:
    """Refuses what is not of unit length: above all zeros, which would count as negatives of similarity 0."""
    import torch

    for name in ("chunks", "queries", "others"):
        vectors: Vectors | None = getattr(batch, name)
        if not vectors:
            continue
        rows = vectors.rows.detach()
        norms = torch.linalg.vector_norm(rows, dim=1, dtype=torch.promote_types(rows.dtype, torch.float32))
        away = (norms - 1).abs().nan_to_num(nan=torch.inf)
        if away.max() > _UNIT:
            worst = int(away.argmax())
            kind = ValueError if away.isfinite().all() else NotNumbersError
            raise kind(f"row {worst} of {name} has the norm {norms[worst]:.3g}: vectors must be of unit length")


def _require_alike(batch: InsentBatch) -> None:
    parts = [part for part in (batch.chunks, batch.queries, batch.others) if part is not None]
    if len({part.lengths is None for part in parts}) > 1:
        raise ValueError("chunks, queries and others must all have one vector each, or all several")
    if len({part.rows.shape[1] for part in parts}) > 1:
        raise ValueError(f"vectors of different dims: {', '.join(str(part.rows.shape[1]) for part in parts)}")


def _require_golds(batch: InsentBatch) -> None:
    for query, (document, golds) in enumerate(zip(batch.documents, batch.golds, strict=True)):
        if not 0 <= document < len(batch.counts):
            raise ValueError(f"query {query}: document {document} is out of range, there are {len(batch.counts)}")
        if not golds:
            raise ValueError(f"query {query} has no gold chunk")
        if not 0 <= min(golds) <= max(golds) < batch.counts[document]:
            has = f"document {document} has {batch.counts[document]} chunks"
            raise ValueError(f"query {query}: gold chunks {', '.join(map(str, golds))} are out of range, {has}")
