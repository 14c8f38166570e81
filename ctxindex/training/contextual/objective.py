"""What a step of contextual training minimises, and its gradient through both stages.

    chunk = normalize((1 - b) u + b v)           u in its window, v alone; both in the corpus context
    loss  = (1 - w) contrastive(questions, their golds) + w InSeNT(questions, all chunks that are read)

The first part tells documents of a small domain apart, the second the gold chunk from its siblings too, which late
chunking makes alike. What the filter takes for a false negative is left out of both. One temperature serves both.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING

import torch

from ctxindex.training.contextual.contrastive import combined, contrastive_loss
from ctxindex.training.contextual.gradient_cache import ContextualBatch, PartSizes, TwoStageGradient
from ctxindex.training.insent import InsentBatch, Vectors, insent_loss
from ctxindex.training.objective import Backward, StepLoss, blended

if TYPE_CHECKING:
    from ctxindex.training.contextual.model import TwoStageModel
    from ctxindex.training.contextual.pairs import PairBatch, Text
    from ctxindex.training.options import InsentOptions


class ContextualObjective:
    """The loss of a batch of pairs, and its gradient.

    Args:
        model: what is trained.
        insent: the other loss, and the temperature of both.
        weight: of the other loss.
    """

    def __init__(self, model: TwoStageModel, insent: InsentOptions, weight: float = 0.0) -> None:
        self._model = model
        self._insent = insent
        self._weight = weight

    def loss(self, batch: PairBatch, vectors: list[torch.Tensor]) -> StepLoss:
        """The loss of a batch, whose `groups` have these vectors, (vectors, dim) each, of unit length."""
        queries, *views = vectors
        chunks = views[0]
        if len(views) == 2:
            chunks = blended(Vectors(views[0]), Vectors(views[1]), batch.blend).rows
        places = torch.from_numpy(batch.positives).to(chunks.device)
        removed = torch.from_numpy(batch.removed).to(chunks.device)
        found = contrastive_loss(queries, chunks[places], removed, self._insent.tau)
        log = {"contrastive": found.loss.detach(), "accuracy": found.accuracy, "removed": found.removed}
        log["context"] = found.loss.new_tensor(0 if batch.queries[0].bare else len(batch.context))
        if not self._weight:
            return StepLoss(found.loss, log)
        own = InsentBatch(
            Vectors(chunks), batch.counts, Vectors(queries), batch.documents, batch.answers, _left_out(batch)
        )
        other = insent_loss(own, self._insent)
        log |= {"l_seq": other.l_seq, "l_batch": other.l_batch}
        return StepLoss(combined(found.loss, other.loss, self._weight), log)

    def step(
        self,
        _: torch.nn.Module,
        batch: PairBatch,
        backward: Backward,
        *,
        budget: int | None = None,
        autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
        unfinished: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> StepLoss:
        """Gradients of a batch's loss into the weights; gives the loss without its graph.

        Args:
            batch: what is read.
            backward: where gradients go.
            budget: the most tokens of a part in each stage, None for one pass; a part has one text at least.
            autocast: what passes run in.
            unfinished: what all parts but the last run in.
        """
        gradient = TwoStageGradient(self._model, partial(self.loss, batch), sizes=_sizes(batch, budget))
        read = ContextualBatch(batch.context, batch.groups)
        return gradient.step(read, backward, autocast=autocast, unfinished=unfinished)


def _sizes(batch: PairBatch, budget: int | None) -> PartSizes:
    if budget is None:
        return PartSizes()
    second = max(_tokens(text) for group in batch.groups for text in group)
    return PartSizes(max(1, budget // max(1, *map(_tokens, batch.context))), max(1, budget // second))


def _tokens(text: Text) -> int:
    return 0 if text.reading is None else text.reading.tokens


def _left_out(batch: PairBatch) -> tuple[tuple[int, int], ...]:
    """What is no negative of a question, as (question, chunk of the batch)."""
    golds = batch.positives.tolist()
    rows, columns = batch.removed.nonzero()
    known = {(row, golds[column]) for row, column in zip(rows.tolist(), columns.tolist(), strict=True)}
    return tuple(sorted(known | set(batch.elsewhere)))
