"""The network of a native CDE model in training: both stages, and what stands between them, with their graph.

It goes the way of inference (`encoding.cde.encoder`): the mean states of the first stage are projected to context
tokens, each layer of the second stage makes keys and values of them, and rows are read in their presence. A text that
is `bare` is read with the null vector as its only context token, which is what a text without any context is in use; so
what a step reads is read in two contexts at most, however many texts have lost theirs.

The first stage has one of three forms: vectors that were made before (frozen), the second one's own transformer, read
without a context (shared), or a transformer of its own (trained).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from ctxindex.encoding.attention.context import AttentionContext
from ctxindex.encoding.cde.model import ContextParts, layer_numbers, load_parts, read_layers
from ctxindex.encoding.cde.settings import TENSORS
from ctxindex.training.model import ContextualModel
from ctxindex.training.readings import Reading, join

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ctxindex.encoding.cde.encoder import CdeEncoder, FirstStage
    from ctxindex.encoding.checkpoint import Checkpoint
    from ctxindex.training.contextual.pairs import Text
    from ctxindex.types import FloatArray

PARTS = "parts."
FIRST = "first_stage."
"""How the names of what a base does not have begin in the weights of a model, and those of a first stage."""

BIAS = "bias"
"""The biases of context scores among what a base does not have."""


class TwoStageModel(ContextualModel):
    """Implements `TwoStage`: what `TwoStageGradient` takes.

    Args:
        encoder: whose rows are read.
        checkpoint: the CDE model's files.
        device: where it is trained.
        first: the first stage, where it is trained beside the second; else the two are one, unless it is frozen.

    Raises:
        ModelError: the files cannot be loaded.
    """

    frozen: torch.Tensor | None

    def __init__(
        self,
        encoder: CdeEncoder,
        checkpoint: Checkpoint,
        device: str = "auto",
        *,
        first: FirstStage | None = None,
    ) -> None:
        super().__init__(encoder, checkpoint, device)
        parts = load_parts(checkpoint.folder / TENSORS, checkpoint.facts, head=encoder.settings.output_head)
        self._named = {name: name.replace(".", "_") for name in parts.tensors()}
        self.parts = torch.nn.ParameterDict({self._named[name]: one for name, one in parts.tensors().items()})
        # A dictionary, so that its modules are not counted twice.
        self._numbers = layer_numbers(self.transformer, checkpoint.facts)
        self._facts = checkpoint.facts
        self.register_buffer("frozen", None, persistent=False)
        self.first_stage: ContextualModel | None = None
        if first is not None and checkpoint.first_stage is not None:
            self.first_stage = ContextualModel(first, checkpoint.first_stage, device)
            self.first_stage.layers = torch.nn.ModuleList()  # nothing reads what stands behind its pooling
        self.to(self.device)

    def freeze(self, vectors: FloatArray) -> None:
        """Take the first stage as it is: (texts, width) float32, what it makes of each text by its number."""
        self.frozen = torch.from_numpy(vectors).to(self.device)

    def first(self, texts: Sequence[Text]) -> torch.Tensor:
        """(texts, hidden): context tokens, with the null vector in slots that are withheld."""
        parts = self._parts()
        given = [text for text in texts if not text.bare]
        null = parts.null[None]
        if not given:
            return null.expand(len(texts), -1)
        known = torch.cat([null, parts.tokens(self._of_first_stage(given)).to(null.dtype)])
        places, following = [], 1
        for text in texts:
            places.append(0 if text.bare else following)
            following += not text.bare
        return known[torch.tensor(places, device=known.device)]

    def second(self, texts: Sequence[Text], context: torch.Tensor) -> torch.Tensor:
        """(vectors, dim) float32, those of each text's items in the place of the text.

        `context` is what `first` gave, (slots, hidden); bare texts are read with the null context instead.
        """
        made: dict[int, torch.Tensor] = {}
        for bare in (False, True):
            own = [number for number, text in enumerate(texts) if text.bare is bare]
            readings = [_reading(texts[number]) for number in own]
            if own:
                tokens = self._parts().tokens(None) if bare else context
                vectors = self._head(self.means(join(readings), self._context(tokens)))
                made |= zip(own, torch.split(vectors, [reading.items for reading in readings]), strict=True)
        return torch.cat([made[number] for number in range(len(texts))])

    def _of_first_stage(self, texts: Sequence[Text]) -> torch.Tensor:
        """(texts, width): mean states."""
        if self.frozen is not None:
            return self.frozen[torch.tensor([text.number for text in texts], device=self.frozen.device)]
        reader = self if self.first_stage is None else self.first_stage
        return reader.means(join([_reading(text) for text in texts]))

    def _context(self, tokens: torch.Tensor) -> AttentionContext:
        bias = self._parts().bias
        return AttentionContext(self._numbers, read_layers(self.transformer, self._numbers, self._facts, tokens), bias)

    def _parts(self) -> ContextParts:
        return ContextParts.of({name: self.parts[own] for name, own in self._named.items()})

    def _head(self, values: torch.Tensor) -> torch.Tensor:
        with torch.autocast(values.device.type, enabled=False):
            values = self._parts().finish(values)
        return super()._head(values)


def parts_in(state: Mapping[str, torch.Tensor], like: ContextParts) -> ContextParts:
    """The parts among the weights of a model, which has them under other names than files have."""
    return ContextParts.of({name: state[PARTS + name.replace(".", "_")] for name in like.tensors()})


def _reading(text: Text) -> Reading:
    if text.reading is None:
        raise ValueError("a text of a frozen first stage has nothing to be read")
    return text.reading
