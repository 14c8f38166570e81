"""What a step of training minimises: InSeNT on blended vectors, and what holds the model near where it came from.

    chunk   = normalize((1 - b) u + b v)        u in its window, v alone
    loss    = InSeNT(chunks, queries) + hold (mean of 1 - cos(v, v of the base) + mean of 1 - cos(q, q of the base))
              + distil (mean of 1 - cos(u, chunk as it is))

Trained through the blend, u learns what v lacks: the document. The second term is for what a chunk says by itself,
which the base model knew from far more data; it is not put on u, which is to change. A chunk read alone and untitled
cannot tell which document it is of, so a step of such chunks has the in-sequence term only.

The third term draws u to the blend, which stands still for it, so that at last one pass may do where two were trained.

A late-interaction model has a u and a v for every token of a chunk, mixed one by one; the means are then over tokens.

A step runs in one pass, or with a *gradient cache*, in parts of few tokens: all vectors first, without a graph; the
loss and its gradient on them; then each part again, with its graph, which that gradient goes into. The result is the
same, and the memory is that of one part. Source: "Scaling Deep Contrastive Learning Batch Size under Memory Limited
Setup", arXiv 2101.06983, section 3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import torch
from torch.nn import functional

from ctxindex.training.gathering import Others
from ctxindex.training.insent import InsentBatch, Vectors, insent_loss
from ctxindex.training.memory import Memory
from ctxindex.training.model import ContextualModel
from ctxindex.training.options import ObjectiveOptions as ObjectiveOptions
from ctxindex.training.readings import Reading, join, split
from ctxindex.training.sampling import Answers, Batch


@dataclass(frozen=True, slots=True, eq=False)
class StepLoss:
    """`total` is a scalar, with its graph as `Objective.loss` gives it; `log` has what to show of it, without one."""

    total: torch.Tensor
    log: dict[str, torch.Tensor]


Encode = Callable[[Sequence[Reading]], list[torch.Tensor]]
"""The model, as of `ContextualModel.forward`, or a wrapper around it."""

Backward = Callable[[torch.Tensor], None]
"""Puts the gradients of a scalar into the weights, once for each part of a step."""

Gather = Callable[[Vectors, Answers], Others | None]
"""Gives the chunks of other devices for those of this one; see `gather_others`."""


class Objective:
    """The loss of a batch, and its gradient.

    Args:
        model: what is trained, which knows whose rows are whose.
        options: the loss.
        base: the model before training; needed where the options hold the model.
        others: where negatives of other devices come from.
        memory: where those of earlier steps come from, in their place.
    """

    def __init__(
        self,
        model: ContextualModel,
        options: ObjectiveOptions,
        base: ContextualModel | None = None,
        others: Gather | None = None,
        memory: Memory | None = None,
    ) -> None:
        if options.hold and base is None:
            raise ValueError("holding a model needs the one that it was")
        if others is not None and memory is not None:
            raise ValueError("further negatives come from other devices or from earlier steps")
        self._model = model
        self._options = options
        self._base = base
        self._others = others
        self._memory = memory

    def loss(self, batch: Batch, made: Sequence[torch.Tensor], held: Sequence[torch.Tensor]) -> StepLoss:
        """The loss of a batch, whose chunks are remembered where there is a memory.

        Args:
            batch: what was read.
            made: the vectors of `readings(batch)`.
            held: those of the base model, as of `of_base`.
        """
        groups = _groups(batch)
        vectors = [self._model.packed(rows, join(units)) for rows, units in zip(made, groups, strict=True)]
        *views, queries = vectors
        chunks = views[0] if len(views) == 1 else blended(views[0], views[1], batch.blend)
        others, sheltered = self._further(batch, chunks)
        positives = batch.positives
        if others is not None:
            positives += tuple((query, len(chunks) + chunk) for query, chunk in others.positives)
        insent = InsentBatch(
            chunks,
            batch.counts,
            queries,
            batch.documents,
            batch.golds,
            positives,
            None if others is None else others.chunks,
            sheltered,
        )
        options = self._options.insent if batch.named else replace(self._options.insent, lambda_seq=1.0, mode="insent")
        found = insent_loss(insent, options)
        log = {"l_seq": found.l_seq, "accuracy_seq": found.accuracy_seq}
        if batch.named:
            log |= {"l_batch": found.l_batch, "accuracy": found.accuracy}
        total = found.loss
        if self._options.distil and len(views) == 2:
            apart = 1 - (views[0].rows * chunks.rows.detach()).sum(dim=1).mean()
            log["apart"] = apart.detach()
            total = total + self._options.distil * apart
        if held:
            away = [1 - (one * other).sum(dim=1).mean() for one, other in zip(made[-len(held) :], held, strict=True)]
            log["away"] = torch.stack(away).detach().mean()
            total = total + self._options.hold * torch.stack(away).sum()
        return StepLoss(total, log)

    def _further(self, batch: Batch, chunks: Vectors) -> tuple[Others | None, frozenset[int]]:
        """Chunks that are not of this batch, and the queries to which they are no negatives."""
        origin = batch.origin
        # A cloze names no document, and nobody knows which chunks from elsewhere hold its sentence.
        clozes = frozenset(query for query, known in enumerate(origin.answered) if known is None)
        if self._others is not None:
            return self._others(chunks, batch.answers), clozes
        if self._memory is None or origin.source not in self._memory or batch.blend != self._model.spec.blend:
            return None, frozenset()
        recalled = self._memory.recall(origin)
        self._memory.remember(origin, chunks)
        return recalled, clozes

    def of_base(self, batch: Batch, budget: int | None = None) -> list[torch.Tensor]:
        """What isolated chunks and queries are in the base model, without a graph; nothing where it holds nothing."""
        if self._base is None or not self._options.hold:
            return []
        groups = [units for units in (batch.isolated, batch.queries) if units]
        with torch.no_grad():
            return [torch.cat([self._base([part])[0] for part in cut_parts(units, budget)]) for units in groups]

    def step(
        self,
        encode: Encode,
        batch: Batch,
        backward: Backward,
        *,
        budget: int | None = None,
        autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
        unfinished: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> StepLoss:
        """Gradients of a batch's loss into the weights; gives the loss without its graph.

        Args:
            encode: the model, or a wrapper around it.
            batch: what is read.
            backward: where gradients go.
            budget: the most tokens of a part, None for one pass.
            autocast: what passes run in.
            unfinished: what all parts but the last run in, forward and backward. Devices exchange gradients with the
                last part, once: they may have different numbers of parts.
        """
        with autocast():
            held = self.of_base(batch, budget)
            if budget is None:
                found = self.loss(batch, encode([join(units) for units in _groups(batch)]), held)
        if budget is None:
            backward(found.total)
            return StepLoss(found.total.detach(), found.log)
        leaves, found = self._with_leaves(batch, held, budget, autocast)
        todo = [
            (part, gradient)
            for leaf, units in zip(leaves, _groups(batch), strict=True)
            for part, gradient in self._shares(leaf, units, budget)
        ]
        for number, (part, gradient) in enumerate(todo):
            with nullcontext() if number == len(todo) - 1 else unfinished():
                with autocast():
                    (again,) = encode([part])
                backward((again * gradient).sum())
        return found

    def _with_leaves(
        self,
        batch: Batch,
        held: Sequence[torch.Tensor],
        budget: int,
        autocast: Callable[[], AbstractContextManager[object]],
    ) -> tuple[list[torch.Tensor], StepLoss]:
        """The vectors of each group, with the loss's gradient on them; the loss, without its graph."""
        with torch.no_grad(), autocast():
            # Through the model itself: a wrapper would expect a backward pass.
            leaves = [
                torch.cat([self._model([part])[0] for part in cut_parts(units, budget)]) for units in _groups(batch)
            ]
        for leaf in leaves:
            leaf.requires_grad_()
        found = self.loss(batch, leaves, held)
        torch.autograd.backward(found.total)
        return leaves, StepLoss(found.total.detach(), found.log)

    def _shares(
        self, leaf: torch.Tensor, units: Sequence[Reading], budget: int
    ) -> Iterator[tuple[Reading, torch.Tensor]]:
        """Each part of a group with the gradient on its vectors."""
        parts = list(cut_parts(units, budget))
        lengths = [sum(part.lengths) if self._model.spec.multivector else part.items for part in parts]
        return zip(parts, torch.split(_gradient(leaf), lengths), strict=True)


def blended(contextual: Vectors, isolated: Vectors, weight: float) -> Vectors:
    """`normalize((1 - weight) contextual + weight isolated)`: one vector a chunk, or one for each of its tokens.

    Raises:
        ValueError: a chunk has not the same tokens in both.
    """
    if contextual.lengths != isolated.lengths:
        raise ValueError(f"a blend mixes the same tokens: {contextual.lengths} in context, {isolated.lengths} alone")
    mixed = functional.normalize((1 - weight) * contextual.rows + weight * isolated.rows, dim=1)
    return Vectors(mixed, contextual.lengths)


def cut_parts(readings: Sequence[Reading], budget: int | None) -> Iterator[Reading]:
    """The readings joined to parts of at most `budget` tokens each; None: to one.

    A reading of more is read in pieces; the least is a window, or a chunk that is read alone, whatever the budget.
    """
    waiting: list[Reading] = []
    tokens = 0
    for reading in readings if budget is None else [piece for one in readings for piece in split(one)]:
        if waiting and budget is not None and tokens + reading.tokens > budget:
            yield join(waiting)
            waiting, tokens = [], 0
        waiting.append(reading)
        tokens += reading.tokens
    if waiting:
        yield join(waiting)


def _groups(batch: Batch) -> list[tuple[Reading, ...]]:
    """Contextual, isolated and queries, without those that the step leaves out; queries are always last."""
    return [units for units in (batch.contextual, batch.isolated, batch.queries) if units]


def _gradient(leaf: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
