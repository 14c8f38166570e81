r"""The corpus context of an index: sampled and made with its first ingest, stored with its spec, never changed.

Vectors of two contexts cannot be compared, so all documents and queries of an index are read with one. It is made of
the documents of the first ingest, before any of them is written, and goes into the store in the same step as the spec,
which names it: an index has its context from its first moment on, and a run that was killed before has written nothing
and samples the same again. Documents that come later are read with what is there. A new context is a new index.

What is stored is small: the vectors that the first stage made, and where the texts stood. Their text is not kept, and
what the second stage makes of them is worked out again when the model is loaded.

    {"format": 1, "context_id": …, "sample": [[doc_id, ordinal, content hash], …], "shape": [512, 384], …}\n
    512 x 384 numbers, float32, little-endian
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ctxindex.encoding.cde.corpus_context import CorpusContext, document_place, sample_context
from ctxindex.errors import DocumentError, MismatchError, UsageError
from ctxindex.loading import SkippedSource, Source
from ctxindex.metering import Meter
from ctxindex.spec import NULL_CONTEXT, SAMPLINGS, EncoderSpec, Sampling
from ctxindex.types import Chunk, ChunkedDocument, Chunker, Document, FailedDocument, Tokenizer

if TYPE_CHECKING:
    from ctxindex.encoding.cde.context_encoder import ContextEncoder

SEED = 0
"""Of the sample that a new index is made with."""

_SHOWN = 10
"""Documents that an error names."""

_FORMAT = 1
_NUMBERS = "<f4"

Load: TypeAlias = Callable[[Source], Document | FailedDocument | SkippedSource]


@dataclass(frozen=True, slots=True)
class SampledChunk:
    """Where a text of the context stood: in which document, as its chunk of what number, and what that held then."""

    doc_id: str
    ordinal: int
    content_hash: str


@dataclass(frozen=True, eq=False)
class FrozenContext:
    """The corpus context of an index, and where it is from.

    `context` is without texts and layers. `documents` counts what was found for the first ingest, whether or not it
    could be read: reading stops once the sample is full. `made_at` is a time in ISO 8601, UTC.
    """

    context: CorpusContext
    sample: tuple[SampledChunk, ...]
    documents: int
    seed: int
    made_at: str
    sampling: Sampling = SAMPLINGS[0]

    def to_bytes(self) -> bytes:
        """The form that a store keeps."""
        numbers = np.ascontiguousarray(self.context.vectors, dtype=_NUMBERS)
        values = {
            "format": _FORMAT,
            "context_id": self.context.context_id,
            "model": self.context.model,
            "prefix": self.context.prefix,
            "sample": [[one.doc_id, one.ordinal, one.content_hash] for one in self.sample],
            "documents": self.documents,
            "seed": self.seed,
            "sampling": self.sampling,
            "made_at": self.made_at,
            "shape": list(numbers.shape),
            "sha256": hashlib.sha256(numbers.tobytes()).hexdigest(),
        }
        return json.dumps(values).encode() + b"\n" + numbers.tobytes()

    @classmethod
    def from_bytes(cls, content: bytes) -> FrozenContext:
        """The inverse of `to_bytes`.

        Raises:
            MismatchError: it is damaged, or was written by another version.
        """
        head, _, numbers = content.partition(b"\n")
        try:
            values: Mapping[str, Any] = json.loads(head)
            if values["format"] != _FORMAT:
                raise MismatchError(
                    f"the index's corpus context has format {values['format']}, this ctxindex reads {_FORMAT}: use the "
                    "ctxindex release that wrote it, or ingest into a new index (--index NAME)"
                )
            if hashlib.sha256(numbers).hexdigest() != values["sha256"] or len(numbers) != 4 * math.prod(
                values["shape"]
            ):
                raise ValueError("its vectors are not those that were written")
            vectors = np.frombuffer(numbers, _NUMBERS).reshape(values["shape"]).astype(np.float32)
            context = CorpusContext(values["context_id"], values["model"], vectors, prefix=values["prefix"])
            sample = tuple(SampledChunk(*one) for one in values["sample"])
            drawn = values.get("sampling", SAMPLINGS[0])
            return cls(context, sample, values["documents"], values["seed"], values["made_at"], drawn)
        except (ValueError, KeyError, TypeError) as error:
            raise MismatchError(
                f"the index's corpus context is damaged ({error}), and its vectors mean nothing without it: ingest "
                "into a new index (--index NAME)"
            ) from None


def freeze_context(
    encoder: ContextEncoder,
    sources: Sequence[Source],
    load: Load,
    chunker: Chunker,
    meter: Meter,
    *,
    failures: Sequence[FailedDocument] = (),
    seed: int = SEED,
    sampling: Sampling = SAMPLINGS[0],
) -> FrozenContext:
    """Make the context of a new index out of its first documents; the same for the same documents in any order.

    No more documents are read than the sample needs: by document, they are taken in the order of their places in it.

    Args:
        encoder: makes it.
        sources: the documents.
        load: reads one.
        chunker: cuts it.
        meter: measures both.
        failures: what was found besides and can be no document; counted, and told where there is no context.
        seed: of the sample.
        sampling: how it is drawn.

    Raises:
        UsageError: no document has any text; the message says of each why, and what to do.
        ModelError: the model cannot be loaded, or memory is too short.
    """
    hashes: dict[str, str] = {}
    unreadable: list[str] = []

    def read() -> Iterator[ChunkedDocument]:
        for source in sorted(sources, key=lambda source: document_place(seed, source.doc_id)):
            one = _read(source, load, chunker, encoder.tokenizer, meter)
            if isinstance(one, str):
                unreadable.append(f"{source.doc_id}: {one}")
                continue
            hashes[one.document.doc_id] = one.document.content_hash
            yield one
            if sampling == "by-document" and len(hashes) == encoder.context_size:
                return

    chosen = sample_context(read(), encoder.context_size, seed, sampling)
    if not chosen:
        raise _nothing_to_sample(encoder, [*unreadable, *(f"{one.doc_id}: {one.reason}" for one in failures)])
    context = encoder.encode_context([one.text for one in chosen], seed=seed)
    sample = tuple(SampledChunk(one.doc_id, one.ordinal, hashes[one.doc_id]) for one in chosen)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return FrozenContext(context, sample, len(sources) + len(failures), seed, now, sampling)


def _nothing_to_sample(encoder: ContextEncoder, unreadable: Sequence[str]) -> UsageError:
    """With the failures, of which no record can be made: an index without a context would be without one for good."""
    shown = [f"  {one}" for one in unreadable[:_SHOWN]]
    if len(unreadable) > _SHOWN:
        shown.append(f"  … and {len(unreadable) - _SHOWN:,} more")
    lines = [
        f"{encoder.spec.model} reads documents in the context of their corpus, and none found here has any text to "
        "make one of, so no index was made and nothing was recorded:",
        *shown,
        "mend one of these or add a document with text, and ingest again; or read without a corpus where the model can "
        "(--context null), and failures are recorded",
    ]
    return UsageError("\n".join(lines))


def _read(source: Source, load: Load, chunker: Chunker, tokenizer: Tokenizer, meter: Meter) -> ChunkedDocument | str:
    """The document with the chunks that hold something the model reads, or why it gives none."""
    try:
        with meter.time("load"):
            document = load(source)
        if not isinstance(document, Document):
            return document.reason
        with meter.time("chunk"):
            chunks: Sequence[Chunk] = chunker.chunk(document)
    except DocumentError as error:
        return error.reason
    counts = tokenizer.count([chunk.text for chunk in chunks])
    said = tuple(chunk for chunk, count in zip(chunks, counts, strict=True) if count and chunk.text.strip())
    return ChunkedDocument(document, said) if said else "no text"


def has_frozen_context(encoder: EncoderSpec) -> bool:
    """Whether an index with this encoder keeps a corpus context."""
    return encoder.context not in ("", NULL_CONTEXT)


def thaw_context(stored: bytes | None, encoder: EncoderSpec) -> FrozenContext:
    """What the store holds, once it is known to be the context that the index's encoder names.

    Raises:
        MismatchError: there is none, it is damaged, or it is that of another index.
    """
    if stored is None:
        raise MismatchError(
            f"the index was built with the corpus context {encoder.context[:12]}, and its store holds none: restore "
            "the store as it was, or ingest into a new index (--index NAME)"
        )
    frozen = FrozenContext.from_bytes(stored)
    if frozen.context.context_id != encoder.context:
        raise MismatchError(
            f"the index was built with the corpus context {encoder.context[:12]}, and its store holds another, "
            f"{frozen.context.context_id[:12]}: restore the store as it was, or ingest into a new index (--index NAME)"
        )
    return frozen
