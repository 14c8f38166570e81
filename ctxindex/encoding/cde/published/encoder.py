"""Published contextual document embeddings: `jxm/cde-small-v1` and `-v2`, with the numbers of their authors' code.

CDE conditions the vector of every text on a sample of the corpus that it is searched in. A *first stage* makes one
vector of each of a fixed number of texts of the corpus (512 in both checkpoints); together they are the corpus context.
A *second stage* reads them in front of every text, document and query alike, as if they were its first words:

    context    512 texts of the corpus -> first stage -> (512, 768), once for a corpus
    vector     [context | 8 soft tokens | CLS, prefix, text, SEP] -> second stage -> states of the text -> mean
               -> output layers -> unit length

Everything looks at everything, so the context is read anew with each text, and 520 positions are added to it. In v1 the
context's order is nothing to the vectors, since all of it stands at one rotary position; in v2 it is.

What follows from how the checkpoints were trained:

- exactly as many vectors as the model was trained with make a context; `fill_context` repeats some where a corpus is
  too small, as `encode_context` does when it is given a seed. Fewer would move the text to positions that v1 does not
  rotate.
- there is no vector without a context: the weights hold none that stands for its absence. Without a corpus, the authors
  take any texts, the same for documents and queries.
- vectors of different contexts cannot be compared: those of documents and queries must come from one encoder, and its
  `CorpusContext` has to be kept with the vectors.

A document's chunks are read alone (`windows` "chunk"), as the model was trained. With other windows they are read
together (late chunking), behind the context too, and a chunk is the mean of its own tokens' states.

Sources: "Contextual Document Embeddings", arXiv 2410.02525; what is published beside the weights.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import numpy as np

from ctxindex.encoding.backbone import Backbone
from ctxindex.encoding.cde.context_encoder import ContextEncoder
from ctxindex.encoding.cde.corpus_context import CorpusContext, context_id
from ctxindex.encoding.cde.published.layout import PublishedLayout
from ctxindex.encoding.cde.published.model import PublishedModel
from ctxindex.encoding.checkpoint import Checkpoint
from ctxindex.encoding.head import Head
from ctxindex.encoding.independent import independent_rows
from ctxindex.encoding.job import DocumentJob
from ctxindex.encoding.local import Task, Waiting
from ctxindex.encoding.rows import Frame, Row
from ctxindex.errors import ConfigError, ModelError, UsageError
from ctxindex.metering import Meter
from ctxindex.spec import NULL_CONTEXT, EncoderSpec
from ctxindex.types import ChunkedDocument, EncodedDocument, FailedDocument

if TYPE_CHECKING:
    from ctxindex.encoding.options import EncoderOptions
    from ctxindex.encoding.tokenizer import Ids
    from ctxindex.types import FloatArray

SEED = 42
"""What fills up a context that is too small where nobody says otherwise, as in mteb's evaluation of these models."""


def fill_context(vectors: FloatArray, size: int, seed: int = SEED) -> FloatArray:
    """Exactly `size` rows of `vectors`, (any number, hidden) float32: all, a sample, or all and some of them again.

    Rows are drawn without replacement where there are enough. Where there are too few, each is taken as often as any
    other, give or take one. The same rows, size and seed give the same result.

    Raises:
        UsageError: there are no rows.
    """
    return vectors[_draw(len(vectors), size, seed)]


def _draw(count: int, size: int, seed: int) -> list[int]:
    """Which of `count` things make `size`; in order where they are as many."""
    if not count:
        raise UsageError("a corpus context needs at least one text")
    if count == size:
        return list(range(size))
    random = np.random.default_rng(seed)
    rounds = [random.permutation(count) for _ in range(-(-size // count))]
    return [int(number) for number in np.concatenate(rounds)[:size]]


class PublishedCdeEncoder(ContextEncoder):
    """Implements `Encoder` with a published CDE checkpoint; it encodes nothing before it has a context.

    `encode_context` makes one, and `with_context` gives the encoder that uses it.
    """

    def __init__(self, checkpoint: Checkpoint, spec: EncoderSpec, options: EncoderOptions, meter: Meter) -> None:
        super().__init__(checkpoint, spec, options, meter)
        self._layout = cast("PublishedLayout", checkpoint.published)
        self._model = PublishedModel(
            self._layout,
            dtype=spec.dtype,
            device=options.device,
            threads=options.threads,
            pad_id=self.tokenizer.pad_id,
            meter=meter,
        )
        self._head = _OutputHead(self._model, spec.dim)
        self._colon = int(self.tokenizer.ids([": "])[0][0])
        self._lead = self._layout.lead

    @property
    def context_size(self) -> int:
        """How many texts make a context, neither more nor fewer."""
        return self._layout.context_size

    def encode_context(self, texts: Sequence[str], *, seed: int | None = None) -> CorpusContext:
        """The context of a corpus of which `texts` are a sample; each is read behind the document prefix, and cut.

        With a `seed` any number of texts will do: too many are sampled, too few repeated (as in `fill_context`).

        Raises:
            ConfigError: not as many texts as the model was trained with, and no seed.
            UsageError: no text at all, or one without any token.
            ModelError: the weights cannot be loaded, or a text does not fit in memory.
        """
        if seed is None and len(texts) != self.context_size:
            raise ConfigError(
                f"{self.spec.model} was trained with a context of {self.context_size} texts, and here are "
                f"{len(texts)}: give as many, or a seed to sample too many and repeat too few"
            )
        drawn = _draw(len(texts), self.context_size, SEED if seed is None else seed)
        used = sorted(set(drawn))
        vectors = self.first_vectors([texts[number] for number in used])[np.searchsorted(used, drawn)]
        read, prefix = tuple(texts[number] for number in drawn), self.spec.document_prefix
        reading = {"max_tokens": self.spec.max_tokens, "dtype": self.spec.dtype}
        name = context_id(self.model_id, read, prefix, **reading)
        return CorpusContext(name, self.model_id, vectors, prefix=prefix, texts=read, reading=reading)

    def with_context(self, context: CorpusContext | None) -> PublishedCdeEncoder:
        """This encoder behind `context`; both share the model in memory.

        None is the null context, which only checkpoints trained with sequence dropout have.

        Raises:
            MismatchError: the context was made by another model.
            ConfigError: the context is of another size, or there is no null context.
        """
        if context is None or context.is_null:
            context = self._null_context()
        self._require_own(context)
        wanted = self.context_size, self._layout.hidden
        if context.vectors.shape != wanted or not np.isfinite(context.vectors).all():
            raise ConfigError(
                f"{self.spec.model} reads a context of {wanted[0]} vectors of {wanted[1]} finite numbers, neither more "
                f"nor fewer, and this one is {' x '.join(map(str, context.vectors.shape))}: make it with "
                "encode_context, or fill it up with fill_context"
            )
        return self._reading_with(context, context.context_id)

    def encode_documents(self, documents: Iterable[ChunkedDocument]) -> Iterator[EncodedDocument | FailedDocument]:
        """See `Encoder.encode_documents`.

        Raises:
            UsageError: there is no context.
        """
        self._require_context()
        return super().encode_documents(documents)

    def encode_queries(self, queries: Sequence[str]) -> FloatArray:
        """See `Encoder.encode_queries`. A query longer than the model reads is cut, with a warning in the log.

        Raises:
            UsageError: there is no context, or a query without any token.
        """
        self._require_context()
        return super().encode_queries(queries)

    def query_rows(self, queries: Sequence[str]) -> list[Row]:
        """See `LocalEncoder.query_rows`."""
        return [self._instructed(row) for row in super().query_rows(queries)]

    def document_rows(self, source: ChunkedDocument) -> list[Row]:
        """See `LocalEncoder.document_rows`."""
        return self._pooled(super().document_rows(source))

    def load(self) -> Backbone:
        """Bring the second stage into memory now, instead of with the first batch.

        Raises:
            UsageError: there is no context.
            ModelError: the weights cannot be loaded.
            ConfigError: this machine has not the device asked for.
        """
        if self._backbone is None:
            self._backbone = self._model.second(self._require_context().vectors)
        return self._backbone

    def _require_context(self) -> CorpusContext:
        if self._context is None:
            raise UsageError(
                f"{self.spec.model} makes no vectors without a corpus context: in Python, pass {self.context_size} "
                "texts of the corpus to its encoder's encode_context, and what that gives to with_context"
            )
        return self._context

    def _null_context(self) -> CorpusContext:
        if not self._layout.null:
            raise ConfigError(
                f"{self.spec.model} has no vector that stands for no context, since it was never trained without one: "
                f"make a context with encode_context, of {self.context_size} texts of the corpus; where there is no "
                "corpus yet, of any texts, and keep it: vectors of another context cannot be compared with these"
            )
        return CorpusContext(NULL_CONTEXT, self.model_id, np.tile(self._model.null_vector(), (self.context_size, 1)))

    def first_vectors(self, texts: Sequence[str]) -> FloatArray:
        """See `ContextEncoder.first_vectors`; each text is read behind the document prefix, and cut."""
        frame = self._frame(self.spec.document_prefix)
        rows: list[Row] = []
        for text, ids in zip(texts, self.tokenizer.ids([frame.lead + text for text in texts]), strict=True):
            if not len(ids) or not text.strip():
                raise UsageError(f"there is nothing in the context's text {text!r} that the model can read")
            rows += independent_rows([ids[: frame.room - 1]], frame)
        stage = copy.copy(self)
        stage._backbone, stage._lead = self._model.first(), 0
        means = np.empty((len(rows), self._layout.hidden), dtype=np.float32)
        for task, sums in stage._through([Task(number, row) for number, row in enumerate(rows)]):
            if sums is None:
                raise ModelError(f"there is not enough memory to read a context text of {task.length} tokens")
            means[task.owner] = sums[0] / np.float32(task.length)
        return self._model.context_vectors(means)

    def _through(self, tasks: Sequence[Task[Waiting]]) -> Iterator[tuple[Task[Waiting], FloatArray | None]]:
        """See `LocalEncoder._through`: what stands in front of a row counts in its batch."""
        return super()._through([_LedTask(task.owner, task.row, self._lead) for task in tasks])

    def _job(self, source: ChunkedDocument, rows: list[Row], n_tokens: int) -> DocumentJob:
        return super()._job(source, self._pooled(rows), n_tokens)

    def _pooled(self, rows: list[Row]) -> list[Row]:
        """A document's rows; those of chunks alone are pooled as the model pools any text."""
        return [self._instructed(row) for row in rows] if self.spec.join == "none" else rows

    def _instructed(self, row: Row) -> Row:
        """A text of its own without its prefix in the mean, where the model is to be read so."""
        if self._pooling != "no-prompt":
            return row
        (place,) = row.places
        return replace(row, places=(replace(place, start=self._after_prefix(row.ids)),))

    def _after_prefix(self, ids: Ids) -> int:
        """The position after the first colon behind CLS; 0 where there is none: the authors' rule, whatever it hits."""
        colons = np.flatnonzero(ids[1:] == self._colon)
        return int(colons[0]) + 2 if len(colons) else 0

    def _frame(self, prefix: str) -> Frame:
        frame = super()._frame(prefix)
        return replace(frame, prompt_length=self._after_prefix(frame.opening))


@dataclass(frozen=True, slots=True)
class _LedTask(Task[Waiting]):
    """A row that is read behind `lead` positions of context."""

    lead: int = 0

    @property
    def length(self) -> int:
        """Positions that the model reads."""
        return self.lead + self.row.length


class _OutputHead(Head):
    """The second stage's own last layers, then the first `dim` numbers, then unit length."""

    def __init__(self, model: PublishedModel, dim: int) -> None:
        super().__init__((), dim)
        self._model = model

    def __call__(self, pooled: FloatArray) -> FloatArray:
        """See `Head.__call__`."""
        return super().__call__(self._model.output_vectors(pooled))
