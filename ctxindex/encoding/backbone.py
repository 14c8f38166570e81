"""The transformer itself: rows of ids in, sums of token states out. torch comes in here, when it is needed.

`Backbone` is the seam between the arithmetic of windows and the network, so that the first can be tested without the
second: a stand-in whose "state" is the token id shows every mistake of ownership as a wrong whole number.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ctxindex.encoding.head import build_steps
from ctxindex.encoding.modules import Layer
from ctxindex.encoding.rows import Row
from ctxindex.encoding.runtime import resolve_device, resolve_dtype
from ctxindex.errors import ModelError
from ctxindex.metering import Meter

if TYPE_CHECKING:
    import numpy.typing as npt
    import torch

    from ctxindex.types import FloatArray


_STEP = 16
"""Batches are as long as a multiple of it: for every new shape the kernels keep code and buffers, so that memory would
grow with the variety of lengths."""


class Backbone(Protocol):
    """A network that gives every token a state."""

    def place_sums(self, rows: Sequence[Row]) -> FloatArray:
        """The sum of the states over each place of each row, in order: (places of all rows, dim) float32.

        Rows may differ in length; a row's result does not depend on the other rows beyond rounding.
        """
        ...


class TransformerBackbone:
    """A transformers encoder, loaded from `folder` at construction, for rows of at most `max_tokens`.

    `layers` go over every state. `remote_code` lets the class come from the folder's own Python files.

    Raises:
        ModelError: the folder cannot be loaded.
    """

    def __init__(
        self,
        folder: Path,
        *,
        max_tokens: int,
        pad_id: int,
        dtype: str,
        device: str,
        meter: Meter,
        layers: Sequence[Layer] = (),
        remote_code: bool = False,
    ) -> None:
        with meter.time("model"):
            self._device = resolve_device(device)
            self._model = _load(folder, resolve_dtype(dtype), remote_code).to(self._device)
            self._steps = build_steps(layers, self._device, resolve_dtype(dtype))
        self._max_tokens = max_tokens
        self._pad_id = pad_id
        self._meter = meter

    def place_sums(self, rows: Sequence[Row]) -> FloatArray:
        """See `Backbone.place_sums`."""
        import torch

        spans = [(number, place.start, place.end) for number, row in enumerate(rows) for place in row.places]
        with torch.inference_mode():
            states = self._states(rows).float()  # (rows, longest, dim)
            if self._device.type == "cpu":
                # Numpy adds in this thread: a parallel region for each of many small sums waits longer than it works.
                array = states.numpy()
                return np.stack([array[number, start:end].sum(axis=0) for number, start, end in spans])
            sums: FloatArray = (
                torch.stack([states[number, start:end].sum(dim=0) for number, start, end in spans]).cpu().numpy()
            )
        return sums

    def _states(self, rows: Sequence[Row]) -> torch.Tensor:
        longest = self._padded(max(row.length for row in rows))
        ids = np.full((len(rows), longest), self._pad_id, dtype=np.int64)
        mask = np.zeros((len(rows), longest), dtype=np.int64)
        for number, row in enumerate(rows):
            ids[number, : row.length] = row.ids
            mask[number, : row.length] = 1
        return self._forward(ids, mask)

    def _padded(self, longest: int) -> int:
        """The length of a batch whose longest row has `longest` tokens."""
        return max(longest, min(-(-longest // _STEP) * _STEP, self._max_tokens))

    def _forward(self, ids: npt.NDArray[np.int64], mask: npt.NDArray[np.int64]) -> torch.Tensor:
        """The last hidden states, (rows, longest, hidden), for ids and attention mask, both (rows, longest)."""
        import torch

        inputs: dict[str, Any] = {"input_ids": torch.from_numpy(ids).to(self._device)}
        if not mask.all():  # full rows need no mask, and attention is faster without
            inputs["attention_mask"] = torch.from_numpy(mask).to(self._device)
        with self._meter.time("forward"):
            states: torch.Tensor = self._model(**inputs).last_hidden_state
            for step in self._steps:
                states = step(states)
            if self._device.type != "cpu":
                torch.accelerator.synchronize()
        return states


def _load(folder: Path, dtype: torch.dtype, remote_code: bool) -> Any:
    from transformers import AutoModel

    # Which attention runs is left to transformers: SDPA wherever the class has it, which MPNet, for one, has not.
    try:
        with _quiet():
            model = AutoModel.from_pretrained(folder, dtype=dtype, use_safetensors=True, trust_remote_code=remote_code)
    except Exception as error:  # transformers raises many kinds for a folder it cannot load
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"cannot load the model in {folder}: {reason}") from None
    return model.eval()


@contextmanager
def _quiet() -> Iterator[None]:
    """The loader reports weights it left out (the pooler, which token states do not pass through) and draws a bar."""
    from transformers.utils import logging as transformers_logging

    logging: Any = transformers_logging  # its functions carry no types
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        logging.enable_progress_bar()
