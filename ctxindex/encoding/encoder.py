"""The encoder seam, and the door to it: `load_encoder`.

An encoder takes whole documents and gives as many vectors as there are chunks. Documents stream in and out; it may
look ahead to fill its batches, but a document's vectors never depend on what shares a batch with it. An encoder behind
an API that takes nested lists of chunks fits the same shape.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ctxindex.encoding.checkpoint import open_checkpoint
from ctxindex.encoding.known_models import default_model
from ctxindex.encoding.options import EncoderOptions, make_spec
from ctxindex.encoding.runtime import AUTO, choose_dtype, require_known
from ctxindex.errors import ConfigError, MismatchError, ModelError
from ctxindex.metering import Meter
from ctxindex.spec import NULL_CONTEXT, EncoderSpec

if TYPE_CHECKING:
    from ctxindex.encoding.cde.context_encoder import ContextEncoder
    from ctxindex.encoding.cde.corpus_context import CorpusContext
    from ctxindex.encoding.local import LocalEncoder
    from ctxindex.types import ChunkedDocument, EncodedDocument, FailedDocument, FloatArray, Tokenizer


class Encoder(Protocol):
    """Turns the chunks of documents, and queries, into vectors."""

    @property
    def spec(self) -> EncoderSpec:
        """What decides the vectors."""
        ...

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer, which chunking measures with."""
        ...

    def encode_documents(self, documents: Iterable[ChunkedDocument]) -> Iterator[EncodedDocument | FailedDocument]:
        """Each document with its chunks' unit vectors, or why it has none; in the order in which they are done."""
        ...

    def encode_queries(self, queries: Sequence[str]) -> FloatArray | list[FloatArray]:
        """(queries, dim) float32, unit rows: the model's ordinary embedding of a text, with the query prefix.

        An encoder of multivectors gives a list: for each query (query vectors, dim) float32, unit rows.

        Raises:
            UsageError: a query without any token.
        """
        ...


def as_context_encoder(encoder: Encoder) -> ContextEncoder | None:
    """The encoder, where it reads with a corpus context; None where it reads none."""
    if encoder.spec.method != "cde":
        return None
    from ctxindex.encoding.cde.context_encoder import ContextEncoder

    return encoder if isinstance(encoder, ContextEncoder) else None


def load_encoder(
    model: str | None = None, options: EncoderOptions | None = None, meter: Meter | None = None
) -> LocalEncoder:
    """An encoder for the model of that name: `minilm`, a local folder, or `owner/model` on the hub.

    Without a name it is the model that comes with ctxindex, or `minilm` where there is none (`default_model`).

    Files are read and the weights' digest is checked here, and a precision is chosen where none is given; the network
    is loaded with the first forward pass. A CDE model reads with its null context until it is given another one
    (`ContextEncoder.with_context`); a published one has none, and encodes nothing before.

    Raises:
        ModelError: the model cannot be found or used.
        ConfigError: an option does not fit the model.
    """
    from ctxindex.encoding.local import LocalEncoder

    options = options or EncoderOptions()
    meter = meter or Meter()
    require_known(options.device, options.dtype or AUTO, options.threads)
    with meter.time("model"):
        if options.dtype in (None, AUTO):
            options = replace(options, dtype=choose_dtype(options.device))
        checkpoint = open_checkpoint(model or default_model(), trust_remote_code=options.trust_remote_code)
        spec = make_spec(checkpoint, options)
    if checkpoint.colbert is not None:
        from ctxindex.encoding.late_interaction import LateInteractionEncoder

        return LateInteractionEncoder(checkpoint, spec, options, meter)
    if checkpoint.published is not None:
        from ctxindex.encoding.cde.published.encoder import PublishedCdeEncoder

        return PublishedCdeEncoder(checkpoint, spec, options, meter)
    if spec.method == "cde":
        from ctxindex.encoding.cde.encoder import CdeEncoder

        return CdeEncoder(checkpoint, spec, options, meter)
    return LocalEncoder(checkpoint, spec, options, meter)


def restore_encoder(
    stored: EncoderSpec,
    *,
    model: str | None = None,
    device: str = "auto",
    threads: int | None = None,
    trust_remote_code: bool = False,
    meter: Meter | None = None,
    context: CorpusContext | None = None,
) -> LocalEncoder:
    """The encoder that an index was built with, from its stored spec; `model` says where the files are now.

    An index that was built with a corpus context is read with the same one: `context`. One that was built with the
    model's null context needs none given.

    Raises:
        ModelError: the model cannot be found or used.
        MismatchError: it is another model than the one that made the index, or another context.
    """
    options = EncoderOptions.of(stored, device, threads=threads, trust_remote_code=trust_remote_code)
    require_known(device, stored.dtype, threads)
    named = model or stored.model
    if model is None and Path(named).is_absolute() and not Path(named).exists():
        raise ModelError(
            f"the index was built with the model in {named}, and nothing is there now: give its folder with --model"
        )
    try:
        encoder = load_encoder(named, options, meter)
    except (ConfigError, ModelError) as error:  # what the index was built with does not fit this model
        wrong = _other_files(stored, named, trust_remote_code)
        if isinstance(error, ModelError) and not wrong:
            raise
        raise MismatchError(_another_model(stored, named, wrong or [str(error)])) from None
    its_own = (encoder.spec.digest, encoder.spec.files) == (stored.digest, stored.files)
    if context is not None and (its_own or not stored.context):
        encoder = _in_context(encoder, context)
    elif its_own and stored.context == NULL_CONTEXT and encoder.spec.context != NULL_CONTEXT:
        conditioned = as_context_encoder(encoder)
        encoder = encoder if conditioned is None else conditioned.with_context(None)
    if replace(encoder.spec, model=stored.model) != stored:
        if replace(encoder.spec, model=stored.model, context=stored.context) == stored:
            raise MismatchError(_other_context(encoder.spec, stored.context))
        passed_over = ("model",) if its_own else ("model", "context")  # with other weights no context is the index's
        wrong = [
            f"{name}: index {getattr(stored, name)!r}, model {getattr(encoder.spec, name)!r}"
            for name in stored.__dataclass_fields__
            if name not in passed_over and getattr(stored, name) != getattr(encoder.spec, name)
        ]
        raise MismatchError(_another_model(stored, named, wrong))
    return encoder


def _in_context(encoder: LocalEncoder, context: CorpusContext) -> LocalEncoder:
    """The encoder with a corpus context; only a CDE encoder reads with one."""
    conditioned = as_context_encoder(encoder)
    if conditioned is None:
        raise MismatchError(
            f"a corpus context is given, and {encoder.spec.model} reads none: leave it out if the index was built "
            "without one, or give the original model with --model"
        )
    return conditioned.with_context(context)


def _other_files(stored: EncoderSpec, model: str, trust_remote_code: bool) -> list[str]:
    """What tells the files of a model from those of a spec; nothing where they cannot be read."""
    try:
        found = open_checkpoint(model, trust_remote_code=trust_remote_code)
    except ModelError:
        return []
    pairs = {"digest": (stored.digest, found.digest), "files": (stored.files, found.files)}
    return [f"{name}: index {one!r}, model {other!r}" for name, (one, other) in pairs.items() if one != other]


def _another_model(stored: EncoderSpec, model: str, wrong: Sequence[str]) -> str:
    """What to say where `model` is not the one of the index."""
    original = "the original" if model == stored.model else stored.model
    lines = [f"the model {model} is not the one that built this index:", *(f"  {line}" for line in wrong)]
    return "\n".join([*lines, f"give {original} with --model, or ingest into a new index (--index NAME)"])


def _other_context(spec: EncoderSpec, stored: str) -> str:
    """What to say where the model is that of the index, and nothing but the context differs."""
    built, read = (
        {"": "no corpus context", NULL_CONTEXT: "the model's null context"}.get(one, f"the corpus context {one[:12]}")
        for one in (stored, spec.context)
    )
    return (
        f"the model {spec.model} is the one that built this index, but the index was built with {built}, and here is "
        f"{read}: give the context that was kept with the index, or ingest into a new index (--index NAME)"
    )
