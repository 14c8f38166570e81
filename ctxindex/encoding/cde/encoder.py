"""Contextual document embeddings: vectors that depend on the corpus they are searched in, through a sample of it.

    sample of the corpus   --first stage-->   E, a vector a text   --projection-->   C context tokens
    context tokens         --second stage-->  keys and values of every layer          once a corpus, kept
    a text                 --second stage-->  each token looks at its row and, in every layer, at those keys

What is common in a corpus says little there, and what is rare says much; a model that is shown a sample can know which
is which. Documents and queries are read by the same second stage with the same context. The paper (arXiv 2410.02525)
puts the context tokens before each text, in one sequence. Here three things are otherwise, so that a context costs
little, and does no harm to a model that has not learnt of it yet:

- *One position.* All context tokens have the first position of the model, where the text begins too: they take none
  away from it, and their order means nothing.
- *Read once.* Context tokens look only at each other, never at the text. So what a layer makes of them is the same for
  every text, and is worked out once (`CorpusContext.layers`); a text brings no context tokens of its own, and only its
  attention grows (`attention.context`).
- *A bias.* In layer l the scores of text tokens on context keys get b_l - ln C. By -ln C the attention that goes to the
  context does not depend on how many texts it has: they may be few or many, and one that is there twice counts for two
  halves. b_l is learned. At its start of -2 a model gives the vectors it gave before, but for a thousandth; at minus
  infinity exactly these.

Without a corpus the model reads with its *null context*: one learned context token. The first stage is read by none of
this: its vectors are means of its last states, over all tokens, as they are, and of no use for search.

Document rows are those of late chunking (`late`): a chunk is in the context of its document and of its corpus. With
windows of one chunk it is in that of its corpus alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ctxindex.encoding.backbone import Backbone
from ctxindex.encoding.cde.context_encoder import ContextEncoder
from ctxindex.encoding.cde.corpus_context import CorpusContext, context_id
from ctxindex.encoding.cde.model import ContextParts, SecondStage, load_parts
from ctxindex.encoding.cde.settings import TENSORS, NativeCde
from ctxindex.encoding.checkpoint import Checkpoint
from ctxindex.encoding.head import Head
from ctxindex.encoding.local import LocalEncoder, Task
from ctxindex.encoding.options import EncoderOptions, make_spec
from ctxindex.encoding.pooling import MeanPool
from ctxindex.errors import ConfigError, ModelError, UsageError
from ctxindex.metering import Meter
from ctxindex.spec import NULL_CONTEXT, EncoderSpec
from ctxindex.types import Chunk, ChunkedDocument, Document

if TYPE_CHECKING:
    from ctxindex.types import FloatArray


class FirstStage(LocalEncoder):
    """A model whose states say what a text is about to the second stage; its vectors are not for search."""

    @classmethod
    def of(
        cls, checkpoint: Checkpoint, options: EncoderOptions, meter: Meter, backbone: Backbone | None = None
    ) -> FirstStage:
        """The first stage in a folder, with the device and the precision of `options`."""
        chosen = EncoderOptions(
            method="independent",
            dtype=options.dtype,
            device=options.device,
            threads=options.threads,
            batch_tokens=options.batch_tokens,
            force_mean=True,
        )
        # The mean over all tokens whatever the folder says of pooling, which is what its own vectors are made by.
        spec = replace(make_spec(checkpoint, chosen), pooling="inclusive", force_mean=True)
        return cls(checkpoint, spec, chosen, meter, backbone)

    def mean_states(self, texts: Sequence[str]) -> FloatArray:
        """The mean of the last states of each text, (texts, width) float32, not normalised.

        A text longer than a window is read in pieces, and is the mean over all of them.

        Raises:
            UsageError: a text without any token.
            ModelError: there is not enough memory for a text.
        """
        tasks: list[Task[int]] = []
        for number, text in enumerate(texts):
            rows = self.document_rows(ChunkedDocument(Document("", text), (Chunk(0, 0, len(text), text),)))
            if not rows or not text.strip():
                raise UsageError(
                    f"there is nothing in text {number} of the context, {text[:50]!r}, that the model can read"
                )
            tasks += [Task(number, row) for row in rows]
        pool = MeanPool(len(texts))
        for task, sums in self._through(tasks):
            if sums is None:
                raise ModelError(f"there is not enough memory to read a text of {task.length} tokens")
            for place, total in zip(task.row.places, sums, strict=True):
                pool.add(task.owner, total, place.end - place.start)
        return pool.means()


class OutputHead(Head):
    """What stands behind the pooling of a CDE model: its own residual MLP, then the modules of its second stage."""

    def __init__(self, checkpoint: Checkpoint, dim: int, shared: _Shared) -> None:
        super().__init__(checkpoint.layers, dim)
        self._shared = shared

    def __call__(self, pooled: FloatArray) -> FloatArray:
        """See `Head.__call__`."""
        import torch

        with torch.inference_mode():
            finished: FloatArray = self._shared.parts().finish(torch.from_numpy(pooled)).numpy()
        return super().__call__(finished)


class CdeEncoder(ContextEncoder):
    """Implements `Encoder` with a native CDE model; with the null context, until `with_context` gives it another."""

    def __init__(self, checkpoint: Checkpoint, spec: EncoderSpec, options: EncoderOptions, meter: Meter) -> None:
        super().__init__(checkpoint, spec, options, meter)
        self._options = options
        self._shared = _Shared(checkpoint)
        if self._shared.settings.output_head:
            self._head = OutputHead(checkpoint, spec.dim, self._shared)

    @property
    def settings(self) -> NativeCde:
        """What the model says of itself."""
        return self._shared.settings

    @property
    def context_size(self) -> int:
        """See `ContextEncoder.context_size`; fewer will do."""
        return self.settings.context_size

    def encode_context(self, texts: Sequence[str], *, seed: int | None = None) -> CorpusContext:
        """Make a context of a sample of the corpus (`sample_context`): any number of texts, in any order.

        No text need be repeated or left out, so `seed` decides nothing here.

        Raises:
            UsageError: no texts, or one without any token.
            ModelError: the model cannot be loaded, or memory is too short.
        """
        if not texts:
            raise UsageError("a corpus context is made of one text or more; without a corpus, leave the context out")
        first = self._first_stage()
        vectors = first.mean_states(texts)
        if vectors.shape[1] != self._width:
            raise ModelError(
                f"the first stage of {self.spec.model} makes vectors of {vectors.shape[1]} numbers, and the second was "
                f"made for {self._width}: put the first stage back that the model was made with"
            )
        prefix = first.spec.document_prefix
        reading = {"max_tokens": first.spec.max_tokens, "dtype": first.spec.dtype}
        name = context_id(self.model_id, texts, prefix, **reading)
        return CorpusContext(name, self.model_id, vectors, self._read(vectors), prefix, tuple(texts), reading)

    def null_context(self) -> CorpusContext:
        """The model's own stand-in for a context, as `with_context(None)` takes it."""
        nothing = np.empty((0, self._width), dtype=np.float32)
        return CorpusContext(NULL_CONTEXT, self.model_id, nothing, self._read(None))

    def with_context(self, context: CorpusContext | None) -> CdeEncoder:
        """The same encoder, and the same model in memory, reading with that context; None is the null context.

        Raises:
            MismatchError: the context was made by another model.
            ConfigError: its arrays are of other shapes than the model reads, or have values that are not numbers.
            ModelError: the model's own tensors cannot be read.
        """
        if context is not None:
            self._require_own(context)
        if context is None or context.is_null:
            return self._reading_with(None, NULL_CONTEXT)
        self._require_shapes(context)
        return self._reading_with(context, context.context_id)

    def first_vectors(self, texts: Sequence[str]) -> FloatArray:
        """See `ContextEncoder.first_vectors`."""
        return self._first_stage().mean_states(texts)

    def load(self) -> Backbone:
        """See `LocalEncoder.load`."""
        if self._backbone is None:
            layers = None if self._context is None else self._context.layers
            if layers is None:
                layers = self._read(None if self._context is None else self._context.vectors)
            self._backbone = self._second_stage().bind(layers)
        return self._backbone

    @property
    def _width(self) -> int:
        """Numbers in a vector of the first stage."""
        return self._shared.parts().projection[0].shape[1]

    def _require_shapes(self, context: CorpusContext) -> None:
        vectors, layers, facts = context.vectors, context.layers, self._checkpoint.facts
        fits = vectors.ndim == 2 and len(vectors) > 0 and vectors.shape[1] == self._width
        if layers is not None:
            fits = fits and layers.ndim == 5 and layers.shape[:2] == (facts.layers, 2)
            fits = fits and layers.shape[3] == len(vectors) and layers.shape[2] * layers.shape[4] == facts.hidden
        if not fits or not all(np.isfinite(one).all() for one in (vectors, layers) if one is not None):
            told = " and layers of ".join(
                " x ".join(map(str, one.shape)) for one in (vectors, layers) if one is not None
            )
            raise ConfigError(
                f"{self.spec.model} reads a context of vectors of {self._width} finite numbers, and what its "
                f"{facts.layers} layers of {facts.hidden} make of each; this one has vectors of {told}: make it with "
                "encode_context"
            )

    def _first_stage(self) -> FirstStage:
        """Made where it is needed and not kept: reading with a context does without it."""
        options = replace(self._options, dtype=self.spec.dtype)
        checkpoint = self._checkpoint.first_stage
        if checkpoint is None:
            return FirstStage.of(self._checkpoint, options, self._meter, self._second_stage())
        return FirstStage.of(checkpoint, options, self._meter)

    def _second_stage(self) -> SecondStage:
        if self._shared.second_stage is None:
            self._shared.second_stage = self._open(SecondStage, parts=self._shared.parts())
        return self._shared.second_stage

    def _read(self, vectors: FloatArray | None) -> FloatArray:
        try:
            return self._second_stage().read_context(vectors)
        except MemoryError as error:
            raise ModelError(f"there is not enough memory for a corpus context of this size: {error}") from None


@dataclass(slots=True)
class _Shared:
    """What encoders of one model with different contexts have in common, loaded with the first use."""

    checkpoint: Checkpoint
    second_stage: SecondStage | None = None
    loaded: ContextParts | None = None

    @property
    def settings(self) -> NativeCde:
        settings = self.checkpoint.cde
        assert settings is not None  # `require_fit` has seen to that
        return settings

    def parts(self) -> ContextParts:
        if self.loaded is None:
            file = self.checkpoint.folder / TENSORS
            self.loaded = load_parts(file, self.checkpoint.facts, head=self.settings.output_head)
        return self.loaded
