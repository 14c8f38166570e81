"""Rows of ids through a transformer: packed without padding where its attention can be replaced, else padded.

Inference and training read rows through the same door, so that a model is trained on what it will see.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ctxindex.encoding.attention.context import AttentionContext
from ctxindex.encoding.backbones import BackboneFacts
from ctxindex.encoding.packing import Packing

if TYPE_CHECKING:
    import numpy.typing as npt
    import torch

    from ctxindex.encoding.tokenizer import Ids

_STEP = 16
"""Padded batches are as long as a multiple of it: for every new shape the kernels keep code and buffers, so that memory
would grow with the variety of lengths."""


class TokenStates:
    """The states that a transformer gives to the tokens of rows.

    Args:
        model: the transformers model, with the attention `packed.NAME` where it is packable.
        facts: what its configuration says.
        max_tokens: the longest row, unless positions are rotary.
        pad_id: id of the token that padding is made of.
    """

    def __init__(self, model: Callable[..., Any], facts: BackboneFacts, max_tokens: int, pad_id: int) -> None:
        self._model = model
        self._facts = facts
        self._max_tokens = max_tokens
        self._pad_id = pad_id

    def __call__(
        self,
        rows: Sequence[Ids],
        device: torch.device,
        attended: Sequence[int] | None = None,
        context: AttentionContext | None = None,
    ) -> tuple[torch.Tensor, Sequence[int]]:
        """The last hidden states of all tokens, (tokens, hidden), and where each row begins in them.

        `attended` says how many tokens of each row, from its start, are looked at by the others; None means all. All
        tokens look at a `context`, which only a model that can be a second stage takes (`cde.settings`).
        """
        attended = attended or list(map(len, rows))
        more = {} if context is None else {"context": context}
        if not self._facts.packable:
            return self._padded(rows, attended, device, **more)
        order = sorted(range(len(rows)), key=lambda number: -len(rows[number]))
        packing = Packing(tuple(len(rows[number]) for number in order), tuple(attended[number] for number in order))
        ids, positions = packing.pack([rows[number] for number in order], self._pad_id, self._facts.padding)
        states = self._forward(device, ids, position_ids=positions, packing=packing, **more)
        starts = dict(zip(order, packing.starts, strict=False))
        return states.flatten(0, 1), [starts[number] for number in range(len(rows))]

    def _padded(
        self, rows: Sequence[Ids], attended: Sequence[int], device: torch.device, **more: AttentionContext
    ) -> tuple[torch.Tensor, Sequence[int]]:
        """As `__call__`, for a model that has to see every row padded to the longest."""
        longest = max(map(len, rows))
        longest = max(longest, min(-(-longest // _STEP) * _STEP, self._max_tokens))
        ids = np.full((len(rows), longest), self._pad_id, dtype=np.int64)
        mask = np.zeros((len(rows), longest), dtype=np.int64)
        for number, row in enumerate(rows):
            ids[number, : len(row)] = row
            mask[number, : attended[number]] = 1
        # Full rows need no mask, and attention is faster without.
        masked = {} if mask.all() else {"attention_mask": mask}
        states = self._forward(device, ids, **masked, **more)
        return states.flatten(0, 1), range(0, len(rows) * longest, longest)

    def _forward(self, device: torch.device, ids: npt.NDArray[np.int64], **inputs: Any) -> torch.Tensor:
        """The last hidden states, (rows, tokens, hidden), for ids (rows, tokens)."""
        import torch

        tensors = {
            name: torch.from_numpy(value).to(device) if isinstance(value, np.ndarray) else value
            for name, value in {"input_ids": ids, **inputs}.items()
        }
        states: torch.Tensor = self._model(**tensors).last_hidden_state
        return states
