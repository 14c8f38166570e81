"""The network of a late-interaction model: rows of ids in, a unit vector for every token out. torch comes in when used.

The transformer's states go through the folder's chain of Dense layers and are divided by their L2 norm, in float32
whatever the transformer runs in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from ctxindex.encoding.backbone import Backbone, TransformerBackbone, out_of_memory_told
from ctxindex.encoding.head import build_steps

if TYPE_CHECKING:
    from ctxindex.encoding.backbones import BackboneFacts
    from ctxindex.encoding.colbert import ColbertLayout
    from ctxindex.encoding.tokenizer import Ids
    from ctxindex.metering import Meter
    from ctxindex.types import FloatArray


class TokenBackbone(Backbone, Protocol):
    """A network that gives every token a unit vector."""

    def token_vectors(self, rows: Sequence[Ids], attended: Sequence[int]) -> list[FloatArray]:
        """The vectors of each row, (its length, dim) float32 with unit rows, or not finite where the model failed.

        Args:
            rows: token ids, special tokens included; rows may differ in length.
            attended: how many tokens of each row, from its start, the others attend to: all, save in a query that is
                filled up with tokens that are scored and not read.
        """
        ...


class ColbertBackbone(TransformerBackbone):
    """The model of a `ColbertLayout`, loaded at construction.

    Raises:
        ModelError: its files cannot be loaded.
    """

    def __init__(
        self,
        layout: ColbertLayout,
        *,
        facts: BackboneFacts,
        max_tokens: int,
        pad_id: int,
        dtype: str,
        device: str,
        meter: Meter,
        threads: int | None = None,
    ) -> None:
        import torch

        super().__init__(
            layout.backbone,
            facts=facts,
            max_tokens=max_tokens,
            pad_id=pad_id,
            dtype=dtype,
            device=device,
            meter=meter,
            threads=threads,
        )
        with meter.time("model"):
            self._chain = build_steps(layout.dense, self._device, torch.float32)

    def token_vectors(self, rows: Sequence[Ids], attended: Sequence[int]) -> list[FloatArray]:
        """See `TokenBackbone.token_vectors`."""
        import torch

        with torch.inference_mode(), out_of_memory_told(self._device):
            states, starts = self._states(rows, attended)
            states = states.float()
            for step in self._chain:
                states = step(states)
            norms = states.norm(dim=-1, keepdim=True)
            vectors = (states / norms).cpu().numpy()
        return [vectors[start : start + len(row)] for row, start in zip(rows, starts, strict=True)]
