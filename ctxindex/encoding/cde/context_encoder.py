"""What all encoders that read with a corpus context have in common, native CDE models and published ones.

Such an encoder makes a context of a sample of the corpus, and gives the encoder that reads with it; both have the same
model in memory. A context belongs to the model that made it: another one makes other vectors of the same texts.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Self

from ctxindex.encoding.cde.corpus_context import CorpusContext, drift
from ctxindex.encoding.local import LocalEncoder
from ctxindex.errors import MismatchError

if TYPE_CHECKING:
    from ctxindex.types import FloatArray


class ContextEncoder(LocalEncoder, ABC):
    """Implements `Encoder` with a model of two stages, of which the first reads a sample of the corpus."""

    _context: CorpusContext | None = None
    _was_given_context = False

    @property
    def model_id(self) -> str:
        """sha256, hex, of both stages and all that decides what they read: what a context is made for."""
        return hashlib.sha256(f"{self.spec.digest} {self.spec.files}".encode()).hexdigest()

    @property
    def context(self) -> CorpusContext | None:
        """The context that this encoder reads with; None where it has been given none."""
        return self._context

    @property
    def was_given_context(self) -> bool:
        """Whether this encoder reads as `with_context` said, be it with the null context; not as it was loaded."""
        return self._was_given_context

    @property
    @abstractmethod
    def context_size(self) -> int:
        """How many texts make a context, where the corpus has as many."""

    @abstractmethod
    def encode_context(self, texts: Sequence[str], *, seed: int | None = None) -> CorpusContext:
        """Make a context of a sample of the corpus (`sample_context`).

        Args:
            texts: chunks of the corpus.
            seed: of what fills a context up, or leaves some out, where the model wants an exact number of texts.

        Raises:
            UsageError: no texts, or one without any token.
            ModelError: the model cannot be loaded, or memory is too short.
        """

    @abstractmethod
    def with_context(self, context: CorpusContext | None) -> Self:
        """The same encoder, and the same model in memory, reading with that context; None is the null context.

        Raises:
            MismatchError: the context was made by another model.
            ConfigError: its arrays do not fit the model, or the model has no null context.
        """

    @abstractmethod
    def first_vectors(self, texts: Sequence[str]) -> FloatArray:
        """What the first stage makes of each text: (texts, width) float32, rows as those of `CorpusContext.vectors`.

        Raises:
            UsageError: a text without any token.
            ModelError: the model cannot be loaded, or memory is too short.
        """

    def drift(self, context: CorpusContext, texts: Sequence[str]) -> float:
        """How far the corpus that `texts` were drawn from has moved from a context; see `corpus_context.drift`.

        A text that is there twice, here or in the context, counts once.

        Raises:
            MismatchError: the context was made by another model.
            TooFewTextsError: fewer than two texts that differ, here or in the context.
            UsageError: a text without any token.
        """
        self._require_own(context)
        frozen = context.vectors
        if len(context.texts) == len(frozen):
            frozen = frozen[[context.texts.index(text) for text in dict.fromkeys(context.texts)]]
        return drift(frozen, self.first_vectors(list(dict.fromkeys(texts))))

    def _require_own(self, context: CorpusContext) -> None:
        if context.model != self.model_id:
            raise MismatchError(
                f"the corpus context {context.context_id[:12]} was made by another model than {self.spec.model}: take "
                "that model, or make the context anew, and with it the index"
            )

    def _reading_with(self, context: CorpusContext | None, name: str) -> Self:
        """This encoder with another context, which is called `name` in its spec."""
        other = copy(self)
        other._context = context
        other._was_given_context = True
        other._backbone = None
        other.spec = replace(self.spec, context=name)
        return other
