"""What the texts of a step are read in: documents of their own batch, some or all of them withheld now and then.

A batch of one cluster is a small domain, and its documents are the sample of it that a model has in use. They are drawn
anew in each step; queries and documents of a step share them, as they share the frozen context of an index. The
document that answers a query is mostly among them: the authors leave it in, and so does this.

So that a model does without a context, too, what it is given is withheld at random and replaced by a learned *null*
vector: single slots of a context, or all of it. Source: arXiv 2410.02525 and the authors' code, which withhold single
slots; that the whole of it may be withheld is ours, as "no corpus yet" is a state of its own in use. As an index is in
that state or not, `pairs` draws it for all texts of a step at once.

All is drawn for the whole batch from the generator of its step, so it does not depend on the parts it is read in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ctxindex.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch


@dataclass(frozen=True, slots=True)
class ContextDropout:
    """What share of the context is withheld, at random.

    Attributes:
        slot: the share of single slots, each text's by themselves.
        row: the share of texts that have no context at all; of a `PairSampler`, of the steps without any.

    Raises:
        ConfigError: a share that is none.
    """

    slot: float = 0.005
    row: float = 0.1

    def __post_init__(self) -> None:
        for name in ("slot", "row"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"context dropout of {name}s {getattr(self, name)} must be 0 to 1")

    def draw(self, texts: int, slots: int, rng: np.random.Generator) -> npt.NDArray[np.bool_]:
        """(texts, slots), True where the null vector stands in; as many draws whatever the shares are."""
        single, whole = rng.random((texts, slots)), rng.random((texts, 1))
        return (single < self.slot) | (whole < self.row)


def draw_context(documents: int, size: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Numbers of the documents of a batch that are its context, none twice: `size`, or all where there are fewer.

    Raises:
        ValueError: a context of no document.
    """
    if documents < 1 or size < 1:
        raise ValueError(f"a context of {size} out of {documents} documents: at least 1 of each")
    return rng.permutation(documents)[:size]


def withheld(context: torch.Tensor, null: torch.Tensor, drops: torch.Tensor) -> torch.Tensor:
    """The context of each text, with the null vector where it is withheld.

    Args:
        context: (slots, dim), which all texts share, with or without a graph.
        null: (dim,), of the same dtype.
        drops: (texts, slots) bool, as of `ContextDropout.draw`.

    Returns:
        (texts, slots, dim).
    """
    import torch

    return torch.where(drops[:, :, None].to(context.device), null.to(context.dtype), context)
