"""The loss of contextual batches: the gold document of a query against what the filter leaves of its batch.

    L = mean over queries i of  -log  exp(cos(q_i, d_i) / tau) / sum of exp(cos(q_i, d_j) / tau) over j not removed

from queries to documents only, as the authors have it. The gold is always in the sum; where everything else is removed,
the loss of a query is 0, and so is its gradient. Hard negatives are further documents, behind the golds. Source: arXiv
2410.02525, the contrastive objective, and the authors' code, whose logit scale of 50 is our `TAU`.

Everything is computed in float32 at least, under autocast as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ctxindex.errors import ConfigError
from ctxindex.training.insent import NotNumbersError

if TYPE_CHECKING:
    import torch

TAU = 0.02
"""The temperature where nobody says otherwise; models of the kind of MiniLM were trained with 0.05."""


@dataclass(frozen=True, slots=True, eq=False)
class ContrastiveLoss:
    """The loss, a scalar with its graph, and what to log, scalars without.

    `accuracy` is the share of queries whose gold scores above every negative; a tie is no success. `removed` is the
    share of the documents that are not a query's gold which were left out.
    """

    loss: torch.Tensor
    accuracy: torch.Tensor
    removed: torch.Tensor


def contrastive_loss(
    queries: torch.Tensor, documents: torch.Tensor, removed: torch.Tensor | None = None, tau: float = TAU
) -> ContrastiveLoss:
    """The loss of a batch; see the top of this file.

    Args:
        queries: (queries, dim) of any floating dtype, of any length.
        documents: (documents, dim): the gold of each query in the same order, then hard negatives.
        removed: (queries, documents) bool, what is no negative; None removes nothing. Golds stay whatever it says.
        tau: the temperature.

    Raises:
        ConfigError: a temperature that is not more than 0.
        NotNumbersError: vectors that are not made of numbers.
        ValueError: shapes that do not belong together.
    """
    import torch

    with torch.autocast(queries.device.type, enabled=False):
        scores = cosines(queries, documents)
        if not torch.isfinite(scores.detach()).all():
            raise NotNumbersError("vectors of queries or documents are not made of numbers")
        loss = row_losses(scores, removed, tau).mean()
        with torch.no_grad():
            negatives = _negatives(scores, removed)
            accuracy = ((scores < scores.diagonal()[:, None]) | ~negatives).all(dim=1).to(scores).mean()
            others = max(negatives.numel() - len(negatives), 1)
            left_out = (others - negatives.sum()).clamp(min=0) / others
    if negatives.numel() == len(negatives):
        left_out = torch.zeros_like(left_out)  # one query and its gold: nothing to leave out
    return ContrastiveLoss(loss, accuracy, left_out.to(scores))


def cosines(queries: torch.Tensor, documents: torch.Tensor) -> torch.Tensor:
    """(queries, documents), float32 at least, of vectors of any length; 0 where one is zero.

    For the surrogate's vectors it gives what a filter takes.
    """
    import torch
    from torch.nn import functional

    dtype = torch.promote_types(torch.promote_types(queries.dtype, documents.dtype), torch.float32)
    return functional.normalize(queries.to(dtype), dim=1) @ functional.normalize(documents.to(dtype), dim=1).T


def row_losses(scores: torch.Tensor, removed: torch.Tensor | None = None, tau: float = TAU) -> torch.Tensor:
    """(queries,): the loss of each query.

    Args:
        scores: (queries, documents), cosines; that of query i and its gold is in column i.
        removed: (queries, documents) bool, what is no negative; None removes nothing.
        tau: the temperature.

    Raises:
        ConfigError: a temperature that is not more than 0.
        ValueError: shapes that do not belong together.
    """
    import torch

    if not 0 < tau < float("inf"):
        raise ConfigError(f"tau {tau} must be more than 0")
    negatives = _negatives(scores, removed)
    # Relative to the gold's score, whose own column of zeros is always there: no row is empty, so no gradient is NaN.
    margins = (scores - scores.diagonal()[:, None]) / tau
    gold = margins.new_zeros(len(margins), 1)
    return torch.cat([gold, margins.masked_fill(~negatives, -torch.inf)], dim=1).logsumexp(dim=1)


def combined(contrastive: torch.Tensor, insent: torch.Tensor, weight: float) -> torch.Tensor:
    """(1 - weight) contrastive + weight insent: telling documents apart in their corpus, and chunks in their document.

    A loss of the weight 0 is left out, whatever it is.

    Raises:
        ConfigError: a weight out of 0 to 1.
    """
    if not 0 <= weight <= 1:
        raise ConfigError(f"the weight of the InSeNT loss, {weight}, must be 0 to 1")
    if weight in (0, 1):
        return insent if weight else contrastive
    return (1 - weight) * contrastive + weight * insent


def _negatives(scores: torch.Tensor, removed: torch.Tensor | None) -> torch.Tensor:
    """(queries, documents) bool: what counts against the gold of each query."""
    import torch

    queries, documents = scores.shape
    if not 0 < queries <= documents:
        raise ValueError(f"{queries} queries and {documents} documents: there must be a gold document for each query")
    if removed is None:
        removed = torch.zeros_like(scores, dtype=torch.bool)
    if removed.shape != scores.shape:
        raise ValueError(f"what is removed is {tuple(removed.shape)}, and the scores are {tuple(scores.shape)}")
    return (~removed.bool()).to(scores.device).fill_diagonal_(False)
