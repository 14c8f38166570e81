"""The two stages of a published CDE checkpoint as networks; torch comes in here.

    first stage    text -> states -> mean -> Linear, GELU, Linear -> one row of the context matrix, of any length
    second stage   [context matrix | soft tokens | text] -> states of the text -> (mean) -> Linear, ReLU, Linear

The context matrix and the soft tokens are put in where the text's word embeddings are, so the transformer's first
LayerNorm goes over all of them. Words come from the authors' whole embedding module instead, which in ModernBERT ends
with that norm and in NomicBERT has added the vector of the token type: both therefore happen to them twice.
Attention goes both ways over all of it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ctxindex.encoding.backbone import out_of_memory_told
from ctxindex.encoding.cde.published.layout import FIRST, SECOND, SOFT, PublishedLayout, StageName
from ctxindex.encoding.cde.published.weights import CONTEXT_LAYERS, OUTPUT_LAYERS, PublishedWeights
from ctxindex.encoding.linear import speed_up
from ctxindex.encoding.runtime import keep_freed_memory, resolve_device, resolve_dtype, use_threads

if TYPE_CHECKING:
    import torch

    from ctxindex.encoding.rows import Row
    from ctxindex.encoding.tokenizer import Ids
    from ctxindex.metering import Meter
    from ctxindex.types import FloatArray

_STEP = 16
"""Padded texts are as long as a multiple of it, for the sake of kernels that keep something for every shape."""


class PublishedModel:
    """The weights of a published checkpoint, each stage brought into memory when it is first needed.

    Args:
        layout: what the folder says.
        dtype: name of the type that the forward passes run in; what follows a mean is float32.
        device: where they run.
        threads: of the CPU; None takes those this process may use.
        pad_id: id of the token that padding is made of.
        meter: measures loading and forward passes.
    """

    def __init__(
        self, layout: PublishedLayout, *, dtype: str, device: str, threads: int | None, pad_id: int, meter: Meter
    ) -> None:
        self.layout = layout
        self.pad_id = pad_id
        self.meter = meter
        self._dtype_name, self._device_name, self._threads = dtype, device, threads
        self._second: Any = None
        self._output: Callable[[torch.Tensor], torch.Tensor] | None = None
        self._weights = PublishedWeights(layout)

    @property
    def device(self) -> torch.device:
        """Where forward passes run.

        Raises:
            ConfigError: this machine has no such device.
        """
        return resolve_device(self._device_name)

    def first(self) -> PublishedFirstStage:
        """The first stage; it is needed once for each corpus, and kept by the caller alone.

        Raises:
            ModelError: the weights are damaged, or not those of this layout.
        """
        return PublishedFirstStage(self, self._transformer(FIRST))

    def second(self, context: FloatArray) -> PublishedSecondStage:
        """The second stage behind the context matrix (context size, hidden) float32.

        Raises:
            ModelError: the weights are damaged, or not those of this layout.
        """
        if self._second is None:
            self._second = self._transformer(SECOND)
        return PublishedSecondStage(self, self._second, context)

    def context_vectors(self, means: FloatArray) -> FloatArray:
        """The rows of the context matrix for the means of first-stage states; both (rows, hidden) float32."""
        import torch

        return self._apply(self._weights.two_layers(CONTEXT_LAYERS, torch.nn.functional.gelu), means)

    def output_vectors(self, means: FloatArray) -> FloatArray:
        """The model's vectors, of any length, for means of second-stage states; both (rows, hidden) float32."""
        import torch

        if self._output is None:
            self._output = self._weights.two_layers(OUTPUT_LAYERS, torch.nn.functional.relu)
        made = self._apply(self._output, means)
        return made + means if self.layout.switches.residual else made

    def soft_tokens(self) -> torch.Tensor:
        """The constant vectors between context and text, (soft tokens, hidden) float32."""
        import torch

        with torch.inference_mode():
            layers = self._weights.two_layers(SOFT, torch.nn.functional.relu)
            made = layers(torch.ones(self.layout.hidden))
        return made.view(self.layout.soft_tokens, self.layout.hidden)

    def null_vector(self) -> FloatArray:
        """The vector that stands for no context, (hidden,) float32, where `layout.null`."""
        return self._weights.null_vector()

    def _apply(self, layers: Callable[[torch.Tensor], torch.Tensor], means: FloatArray) -> FloatArray:
        import torch

        with torch.inference_mode():
            made: FloatArray = layers(torch.from_numpy(np.ascontiguousarray(means))).numpy()
        return made

    def _transformer(self, stage: StageName) -> Any:
        """The transformer of a stage, for inference, where it is to run."""
        with self.meter.time("model"):
            if self.device.type == "cpu":
                use_threads(self._threads)
                keep_freed_memory()
            model = self._weights.transformer(stage, resolve_dtype(self._dtype_name)).to(self.device)
            if self.device.type == "cpu":
                speed_up(model)
        return model


class _Stage(ABC):
    """A transformer and how rows of ids go through it."""

    def __init__(self, model: PublishedModel, transformer: Any) -> None:
        self._model = model
        self._transformer = transformer
        self._device = model.device

    def place_sums(self, rows: Sequence[Row]) -> FloatArray:
        """See `ctxindex.encoding.backbone.Backbone.place_sums`."""
        import torch

        with torch.inference_mode(), out_of_memory_told(self._device), self._model.meter.time("forward"):
            states = self._states(*self._padded([row.ids for row in rows]))
            sums = [
                states[number, place.start : place.end].float().sum(dim=0)
                for number, row in enumerate(rows)
                for place in row.places
            ]
            values: FloatArray = torch.stack(sums).cpu().numpy()
        return values

    @abstractmethod
    def _states(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """States (rows, tokens, hidden) for ids and mask, both (rows, tokens) int64."""

    def _padded(self, rows: Sequence[Ids]) -> tuple[torch.Tensor, torch.Tensor]:
        import torch

        length = -(-max(map(len, rows)) // _STEP) * _STEP
        ids = np.full((len(rows), length), self._model.pad_id, dtype=np.int64)
        mask = np.zeros((len(rows), length), dtype=np.int64)
        for number, row in enumerate(rows):
            ids[number, : len(row)] = row
            mask[number, : len(row)] = 1
        return torch.from_numpy(ids).to(self._device), torch.from_numpy(mask).to(self._device)


class PublishedFirstStage(_Stage):
    """Implements `Backbone` with the first stage: texts alone, as the transformer reads any."""

    def _states(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        states: torch.Tensor = self._transformer(input_ids=ids, attention_mask=mask).last_hidden_state
        return states


class PublishedSecondStage(_Stage):
    """Implements `Backbone` with the second stage: every row is read behind the context and the soft tokens.

    Args:
        model: the checkpoint.
        transformer: its second stage.
        context: the context matrix, (context size, hidden) float32.
    """

    def __init__(self, model: PublishedModel, transformer: Any, context: FloatArray) -> None:
        import torch

        super().__init__(model, transformer)
        layout, words = model.layout, self._embeddings()
        with torch.inference_mode():
            lead = torch.cat([torch.from_numpy(np.ascontiguousarray(context)), model.soft_tokens()])
            lead = lead.to(self._device, words.weight.dtype)
            # The stock class adds the type's vector to all it reads; what is to have none has it taken off before.
            self._lead = lead - self._type() if layout.switches.token_types == "training" else lead

    def _states(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        import torch

        rows, length = ids.shape
        lead = len(self._lead)
        inputs = torch.cat([self._lead.expand(rows, -1, -1), self._words(ids)], dim=1)
        positions = context_positions(self._model.layout, length).to(self._device)
        seen = torch.cat([torch.ones(rows, lead, dtype=mask.dtype, device=self._device), mask], dim=1)
        states: torch.Tensor = self._transformer(
            inputs_embeds=inputs, attention_mask=seen, position_ids=positions[None]
        ).last_hidden_state
        return states[:, lead:]

    def _words(self, ids: torch.Tensor) -> torch.Tensor:
        """What stands for the text in front of the transformer, (rows, tokens, hidden)."""
        if self._model.layout.kind == "modernbert":
            made: torch.Tensor = self._transformer.embeddings(input_ids=ids)
            return made
        words: torch.Tensor = self._embeddings()(ids)
        return words if self._model.layout.switches.token_types == "training" else words + self._type()

    def _embeddings(self) -> Any:
        return self._transformer.get_input_embeddings()

    def _type(self) -> Any:
        """The vector of token type 0, (hidden,); ModernBERT has no token types, and a zero."""
        if self._model.layout.kind == "modernbert":
            return 0.0
        return self._transformer.embeddings.token_type_embeddings.weight[0]


def context_positions(layout: PublishedLayout, tokens: int) -> torch.Tensor:
    """The rotary position of context, soft tokens and `tokens` tokens of text, (all,) int64.

    In v1 the authors leave the context out of rotation, which is to rotate it as at position 0; what follows is rotated
    by its place in the whole row, and in v2 everything is.
    """
    import torch

    positions = torch.arange(layout.lead + tokens)
    if layout.unrotated:
        positions[: layout.context_size] = 0
    return positions
