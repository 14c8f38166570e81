"""The gradient of a batch through two stages, in parts: exactly that of one pass, in the memory of a part.

The first stage makes the context of its texts; the second reads every query and document in that context. The loss
needs the vectors of all, and each vector leads back to all of the context. So gradients are kept at two places:

    1. first stage, in parts, without a graph            -> context E
    2. second stage in E, in parts, without a graph      -> vectors of queries and documents
    3. the loss of all vectors, backward                 -> a gradient for each vector
    4. second stage again, a part at a time, with its graph, each with the gradient of its vectors: what reaches E
       from all parts is added up
    5. first stage again, a part at a time, with its graph and the gradient of its part of E

What is random in a pass (dropout in a model) must be the same when it is done again: the state of the generators is
kept before each part, and put back for its second time. What is withheld of the context (`context`) is drawn before,
for the whole batch. Source: arXiv 2410.02525, its two-stage gradient caching, after "Scaling Deep Contrastive Learning
Batch Size under Memory Limited Setup", arXiv 2101.06983, section 3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Generic, Protocol, TypeAlias, TypeVar

import torch

from ctxindex.training.contextual.context import withheld
from ctxindex.training.objective import Backward, StepLoss

Text = TypeVar("Text")
Read = TypeVar("Read", contravariant=True)

Around: TypeAlias = Callable[[], AbstractContextManager[object]]


class TwoStage(Protocol[Read]):
    """A model of two stages. What a text is (a string, a row of ids) is its own matter; dim is that of its contexts."""

    def first(self, texts: Sequence[Read]) -> torch.Tensor:
        """The context vectors of texts, (texts, dim); of one, nothing depends on the others."""
        ...

    def second(self, texts: Sequence[Read], context: torch.Tensor) -> torch.Tensor:
        """The vectors of texts, (texts, width), each read in a context; a text may have several, in its place.

        `context` is (slots, dim), the same for all, or (texts, slots, dim).
        """
        ...


@dataclass(frozen=True, slots=True, eq=False)
class ContextualBatch(Generic[Text]):
    """What a step reads.

    Attributes:
        context: the texts that the first stage reads.
        groups: those of the second stage, such as queries and documents; the loss has the vectors of each group.
        drops: for each group (texts, slots) bool, where the null vector stands for the context; None for nowhere.

    Raises:
        ValueError: no context, an empty group, or drops of another form.
    """

    context: Sequence[Text]
    groups: Sequence[Sequence[Text]]
    drops: Sequence[torch.Tensor] | None = None

    def __post_init__(self) -> None:
        if not self.context or not self.groups or not all(self.groups):
            raise ValueError("a step needs a context, and texts in every group")
        if self.drops is not None:
            expected = [(len(group), len(self.context)) for group in self.groups]
            found = [tuple(drops.shape) for drops in self.drops]
            if found != expected:
                raise ValueError(f"drops of {found} for groups and contexts of {expected}")


Loss: TypeAlias = Callable[[list[torch.Tensor]], StepLoss]
"""Gives the loss of the vectors of all groups, each (vectors, width), float32 at least."""


@dataclass(frozen=True, slots=True)
class PartSizes:
    """Texts of a part in each stage; None takes all at once.

    The second stage reads the context with every text, so its parts are the smaller ones.

    Raises:
        ValueError: a part of no text.
    """

    first: int | None = None
    second: int | None = None

    def __post_init__(self) -> None:
        if any(size is not None and size < 1 for size in (self.first, self.second)):
            raise ValueError(f"parts of {self.first} and {self.second} texts: 1 at least")


class TwoStageGradient(Generic[Text]):
    """Gradients of a loss into the weights of both stages.

    Args:
        model: what is trained.
        loss: of all vectors.
        null: (dim,), stands where a batch withholds the context; needed where one does.
        sizes: of parts; with neither size, a step is one pass with its whole graph.
        train_first: whether the first stage is trained; where it is frozen, nothing is sent back through it.
    """

    def __init__(
        self,
        model: TwoStage[Text],
        loss: Loss,
        *,
        null: torch.Tensor | None = None,
        sizes: PartSizes | None = None,
        train_first: bool = True,
    ) -> None:
        self._model = model
        self._loss = loss
        self._null = null
        self._sizes = sizes or PartSizes()
        self._train_first = train_first

    def step(
        self,
        batch: ContextualBatch[Text],
        backward: Backward = torch.autograd.backward,
        *,
        autocast: Around = nullcontext,
        unfinished: Around = nullcontext,
    ) -> StepLoss:
        """Gradients of a batch's loss into the weights, added to those that are there.

        Args:
            batch: what is read.
            backward: where gradients go; it may scale them.
            autocast: what passes run in.
            unfinished: what all parts but the last run in, so that devices exchange gradients once.

        Returns:
            The loss, without its graph.

        Raises:
            ValueError: a batch withholds its context, and there is no null vector.
        """
        if batch.drops is not None and self._null is None:
            raise ValueError("a batch that withholds its context needs a null vector")
        if self._sizes == PartSizes():
            with autocast():
                found = self._loss(self._vectors(batch))
            backward(found.total)
            return StepLoss(found.total.detach(), found.log)
        firsts, context = self._read_context(batch, autocast)
        found, seconds = self._read_groups(batch, context, autocast)
        for number, part in enumerate(seconds):
            is_last = not self._train_first and number == len(seconds) - 1
            with nullcontext() if is_last else unfinished():
                with autocast(), part.state.replayed():
                    again = self._second(batch, part, context)
                backward((again * part.gradient).sum())
        if self._train_first:
            self._send_to_first(batch, firsts, _gradient(context), autocast, unfinished)
        return StepLoss(found.total.detach(), found.log)

    def _vectors(self, batch: ContextualBatch[Text]) -> list[torch.Tensor]:
        """Those of all groups in one pass, with the graph of both stages."""
        with torch.set_grad_enabled(self._train_first):
            context = _wide(self._model.first(batch.context))
        whole = [_Part(number, slice(0, len(group))) for number, group in enumerate(batch.groups)]
        return [self._second(batch, part, context) for part in whole]

    def _read_context(self, batch: ContextualBatch[Text], autocast: Around) -> tuple[list[_Part], torch.Tensor]:
        """The parts of the first stage, and the context as a leaf that gathers a gradient."""
        parts, read = [], []
        with torch.no_grad(), autocast():
            for place in _places(len(batch.context), self._sizes.first):
                parts.append(_Part(0, place))
                read.append(_wide(self._model.first(batch.context[place])))
        # What a weight was expanded to is no leaf, even without a graph: nothing would gather a gradient there.
        return parts, torch.cat(read).detach().requires_grad_(self._train_first)

    def _read_groups(
        self, batch: ContextualBatch[Text], context: torch.Tensor, autocast: Around
    ) -> tuple[StepLoss, list[_Part]]:
        """The loss, and the parts of the second stage, each with the gradient of its vectors."""
        parts, leaves = [], []
        with torch.no_grad(), autocast():
            for number, group in enumerate(batch.groups):
                own, read = [], []
                for place in _places(len(group), self._sizes.second):
                    own.append(_Part(number, place))
                    read.append(self._second(batch, own[-1], context))
                    own[-1].vectors = len(read[-1])
                parts.append(own)
                leaves.append(torch.cat(read))
        for leaf in leaves:
            leaf.requires_grad_()
        with autocast():
            found = self._loss(leaves)
        torch.autograd.backward(found.total)
        for own, leaf in zip(parts, leaves, strict=True):
            gradients = torch.split(_gradient(leaf), [part.vectors for part in own])
            for part, gradient in zip(own, gradients, strict=True):
                part.gradient = gradient
        return found, [part for own in parts for part in own]

    def _second(self, batch: ContextualBatch[Text], part: _Part, context: torch.Tensor) -> torch.Tensor:
        if batch.drops is not None and self._null is not None:
            context = withheld(context, self._null, batch.drops[part.group][part.place])
        return _wide(self._model.second(batch.groups[part.group][part.place], context))

    def _send_to_first(
        self,
        batch: ContextualBatch[Text],
        parts: Sequence[_Part],
        gradient: torch.Tensor,
        autocast: Around,
        unfinished: Around,
    ) -> None:
        for number, part in enumerate(parts):
            with nullcontext() if number == len(parts) - 1 else unfinished():
                with autocast(), part.state.replayed():
                    again = _wide(self._model.first(batch.context[part.place]))
                # Not through the step's `backward`: whatever that scales, the gradient of the context has it already.
                torch.autograd.backward(again, gradient[part.place])


class RandomState:
    """The state of torch's generators (that of the CPU, and that of the CUDA device in use) when this was made."""

    def __init__(self) -> None:
        self._cpu = torch.get_rng_state()
        self._cuda = torch.cuda.get_rng_state() if _cuda_in_use() else None

    def put_back(self) -> None:
        """Set the generators to this state."""
        torch.set_rng_state(self._cpu)
        if self._cuda is not None:
            torch.cuda.set_rng_state(self._cuda)

    @contextmanager
    def replayed(self) -> Iterator[None]:
        """The generators in this state within, and as they were before afterwards."""
        before = RandomState()
        self.put_back()
        try:
            yield
        finally:
            before.put_back()


class _Part:
    """Texts of a group that are read together; made when they are read first, as it keeps the generators' state."""

    def __init__(self, group: int, place: slice) -> None:
        self.group = group
        self.place = place
        self.state = RandomState()
        self.vectors = 0
        self.gradient = torch.empty(0)


def _places(count: int, size: int | None) -> Iterator[slice]:
    step = size or count
    return (slice(start, min(start + step, count)) for start in range(0, count, step))


def _wide(vectors: torch.Tensor) -> torch.Tensor:
    """Float32 at least: what is added up over many parts would lose its last bits otherwise."""
    return vectors.to(torch.promote_types(vectors.dtype, torch.float32))


def _gradient(leaf: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(leaf) if leaf.grad is None else leaf.grad


def _cuda_in_use() -> bool:
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]
