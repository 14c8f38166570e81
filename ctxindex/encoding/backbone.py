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

from ctxindex.encoding.attention.context import AttentionContext
from ctxindex.encoding.attention.packed import NAME, register
from ctxindex.encoding.backbones import BackboneFacts
from ctxindex.encoding.head import build_steps
from ctxindex.encoding.linear import speed_up
from ctxindex.encoding.model_files import read_object
from ctxindex.encoding.modules import Layer
from ctxindex.encoding.rows import Row
from ctxindex.encoding.runtime import keep_freed_memory, resolve_device, resolve_dtype, use_threads
from ctxindex.encoding.token_states import TokenStates
from ctxindex.errors import ModelError
from ctxindex.metering import Meter

if TYPE_CHECKING:
    import torch

    from ctxindex.encoding.tokenizer import Ids
    from ctxindex.types import FloatArray

_MEMORY_SIGNS = ("not enough memory", "can't allocate memory", "out of memory")
"""What torch says in a plain RuntimeError: on a CPU, and on MPS."""


class Backbone(Protocol):
    """A network that gives every token a state. Methods raise MemoryError where a batch does not fit."""

    def place_sums(self, rows: Sequence[Row]) -> FloatArray:
        """The sum of the states over each place of each row, in order: (places of all rows, dim) float32.

        Rows may differ in length; a row's result does not depend on the other rows beyond rounding.
        """
        ...


class TransformerBackbone:
    """A transformers encoder, loaded from `folder` at construction, for rows of at most `max_tokens`.

    Where the class lets attention be replaced, rows are packed without padding (`ctxindex.encoding.packing`).

    Args:
        folder: the model's files.
        facts: what its configuration says.
        max_tokens: the longest row, unless positions are rotary.
        pad_id: id of the token that padding is made of.
        dtype: name of the type that the forward pass runs in.
        device: where it runs.
        threads: of the CPU; None takes those this process may use.
        meter: measures the forward pass.
        layers: go over every state.
        remote_code: lets the class come from the folder's own Python files.

    Raises:
        ModelError: the folder cannot be loaded.
    """

    def __init__(
        self,
        folder: Path,
        *,
        facts: BackboneFacts,
        max_tokens: int,
        pad_id: int,
        dtype: str,
        device: str,
        meter: Meter,
        threads: int | None = None,
        layers: Sequence[Layer] = (),
        remote_code: bool = False,
    ) -> None:
        with meter.time("model"):
            self._device = resolve_device(device)
            if facts.packable:
                register()
            attention = NAME if facts.packable else None
            self._model = load_transformer(folder, resolve_dtype(dtype), remote_code, attention).to(self._device)
            if self._device.type == "cpu":
                use_threads(threads)
                keep_freed_memory()
                if not facts.remote:  # such code may look at the layers themselves
                    speed_up(self._model)
            self._steps = build_steps(layers, self._device, resolve_dtype(dtype))
        self._read = TokenStates(self._model, facts, max_tokens, pad_id)
        self._meter = meter

    def place_sums(self, rows: Sequence[Row], context: AttentionContext | None = None) -> FloatArray:
        """See `Backbone.place_sums`; all tokens look at `context`."""
        import torch

        with torch.inference_mode(), out_of_memory_told(self._device):
            states, starts = self._states([row.ids for row in rows], context=context)
            spans = [
                (start + place.start, start + place.end)
                for row, start in zip(rows, starts, strict=True)
                for place in row.places
            ]
            if self._device.type == "cpu":
                # Numpy adds in this thread: a parallel region for each of many small sums waits longer than it works.
                array = states.float().numpy()
                return np.stack([array[start:end].sum(axis=0) for start, end in spans])
            sums: FloatArray = torch.stack([states[start:end].float().sum(dim=0) for start, end in spans]).cpu().numpy()
        return sums

    def _states(
        self, rows: Sequence[Ids], attended: Sequence[int] | None = None, context: AttentionContext | None = None
    ) -> tuple[torch.Tensor, Sequence[int]]:
        """As of `TokenStates`, with the layers that go over every state."""
        import torch

        with self._meter.time("forward"):
            states, starts = self._read(rows, self._device, attended, context)
            for step in self._steps:
                states = step(states)
            if self._device.type != "cpu":
                torch.accelerator.synchronize()
        return states, starts


@contextmanager
def out_of_memory_told(device: torch.device) -> Iterator[None]:
    """Turns every way in which torch says that memory is short into MemoryError."""
    import torch

    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and not any(sign in str(error) for sign in _MEMORY_SIGNS):
            raise
        if device.type == "cuda":
            torch.cuda.empty_cache()
        raise MemoryError(str(error).splitlines()[0]) from None


def load_transformer(folder: Path, dtype: torch.dtype, remote_code: bool, attention: str | None) -> Any:
    """The transformer in `folder`, for inference, with the attention of that name where there is one.

    Raises:
        ModelError: transformers cannot load it.
    """
    from transformers import AutoModel

    factory: Any = AutoModel
    if not remote_code and read_object(folder / "config.json", missing_ok=True).get("model_type") == "mpnet":
        from ctxindex.encoding.attention.mpnet import ContextualMPNet as factory
    # Without a choice of ours transformers takes SDPA wherever the class has it, which MPNet, for one, has not.
    chosen: dict[str, Any] = {} if attention is None else {"attn_implementation": attention}
    try:
        with _quiet():
            model = factory.from_pretrained(
                folder, dtype=dtype, use_safetensors=True, trust_remote_code=remote_code, **chosen
            )
    except Exception as error:  # transformers raises many kinds for a folder it cannot load
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"cannot load the model in {folder}: {reason}") from None
    if getattr(model.config, "use_cache", False):  # of decoders, for words to come
        model.config.use_cache = False
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
