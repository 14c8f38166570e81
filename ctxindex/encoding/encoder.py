"""The encoder seam, and the door to it: `load_encoder`.

An encoder takes whole documents and gives as many vectors as there are chunks. Documents stream in and out; it may
look ahead to fill its batches, but a document's vectors never depend on what shares a batch with it. An encoder behind
an API that takes nested lists of chunks fits the same shape.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Protocol

from ctxindex.encoding.checkpoint import Checkpoint, open_checkpoint
from ctxindex.encoding.runtime import require_known
from ctxindex.errors import ConfigError, MismatchError
from ctxindex.metering import Meter
from ctxindex.spec import METHODS, EncoderSpec, Method

if TYPE_CHECKING:
    from ctxindex.encoding.local import LocalEncoder
    from ctxindex.types import ChunkedDocument, EncodedDocument, FailedDocument, FloatArray, Tokenizer

DEFAULT_MODEL = "minilm"
WINDOW_OVERLAP = 10
"""The most chunks that neighbouring windows share; in practice a quarter of the window is the tighter bound."""

DEFAULT_DTYPE = "float32"
LATE_OPTIONS = ("anchor", "anchor_title", "owner", "blend", "isolated")

_SMALLEST_WINDOW = 16


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
        """Each document with one unit vector a chunk, or why it has none; in the order in which they are done."""
        ...

    def encode_queries(self, queries: Sequence[str]) -> FloatArray:
        """(queries, dim) float32, unit rows: the model's ordinary embedding of a text, with the query prefix.

        Raises:
            UsageError: a query without any token.
        """
        ...


@dataclass(frozen=True, slots=True)
class EncoderOptions:
    """What a user may choose about an encoder; None takes what the model's files say, or the default.

    `max_tokens` lowers the window. `anchor` (tokens of the document's head), `anchor_title`, `owner`, `blend` and
    `isolated` are those of `EncoderSpec` and go with the method `late` alone. `device` and `batch_tokens` (the padded
    size of a batch) decide nothing beyond rounding, and are no part of a spec.
    """

    method: Method | None = None
    max_tokens: int | None = None
    anchor: int | None = None
    anchor_title: bool | None = None
    owner: Literal["centre", "first", "mean"] | None = None
    blend: float | None = None
    isolated: Literal["chunk", "title"] | None = None
    dtype: str | None = None
    device: str = "auto"
    batch_tokens: int | None = None

    @classmethod
    def of(cls, spec: EncoderSpec, device: str) -> EncoderOptions:
        """The options that give `spec` again."""
        chosen = {name: getattr(spec, name) for name in ("method", "max_tokens", "dtype")}
        if spec.method == "late":
            chosen.update({name: getattr(spec, name) for name in LATE_OPTIONS})
        return cls(**chosen, device=device)


def load_encoder(
    model: str = DEFAULT_MODEL, options: EncoderOptions | None = None, meter: Meter | None = None
) -> LocalEncoder:
    """An encoder for the model of that name: `minilm`, a local folder, or `owner/model` on the hub.

    Files are read and the weights' digest is checked here; torch is imported with the first forward pass.

    Raises:
        ModelError: the model cannot be found or used.
        ConfigError: an option does not fit the model.
    """
    from ctxindex.encoding.local import LocalEncoder

    options = options or EncoderOptions()
    meter = meter or Meter()
    require_known(options.device, options.dtype or DEFAULT_DTYPE)
    with meter.time("model"):
        checkpoint = open_checkpoint(model)
        spec = _spec(checkpoint, options)
    return LocalEncoder(checkpoint, spec, options, meter)


def restore_encoder(
    stored: EncoderSpec, *, model: str | None = None, device: str = "auto", meter: Meter | None = None
) -> LocalEncoder:
    """The encoder that an index was built with, from its stored spec; `model` says where the files are now.

    Raises:
        ModelError: the model cannot be found or used.
        MismatchError: it is another model than the one that made the index.
    """
    encoder = load_encoder(model or stored.model, EncoderOptions.of(stored, device), meter)
    if replace(encoder.spec, model=stored.model) != stored:
        wrong = [
            f"  {name}: index {getattr(stored, name)!r}, model {getattr(encoder.spec, name)!r}"
            for name in stored.__dataclass_fields__
            if name != "model" and getattr(stored, name) != getattr(encoder.spec, name)
        ]
        raise MismatchError(
            f"the model {encoder.spec.model} is not the one that built this index:\n" + "\n".join(wrong) + "\n"
            "give the original with --model, or ingest into a new index (--index NAME)"
        )
    return encoder


def _spec(checkpoint: Checkpoint, options: EncoderOptions) -> EncoderSpec:
    method = options.method or checkpoint.method
    if method not in METHODS:
        raise ConfigError(f"--method {method} is none of {', '.join(METHODS)}")
    spec = EncoderSpec(
        model=checkpoint.name,
        digest=checkpoint.digest,
        method=method,
        dim=checkpoint.dim,
        max_tokens=_max_tokens(checkpoint, options.max_tokens),
        pooling="inclusive",
        join="none",
        overlap=0,
        owner="none",
        query_prefix=checkpoint.query_prefix,
        document_prefix=checkpoint.document_prefix,
        dtype=options.dtype or DEFAULT_DTYPE,
    )
    return _late_spec(spec, options) if method == "late" else _without_late_options(spec, options)


def _late_spec(spec: EncoderSpec, options: EncoderOptions) -> EncoderSpec:
    """Late chunking: what is left out is the default of the method."""
    blend = options.blend or 0.0
    if not 0 <= blend < 1:
        raise ConfigError(f"--blend {blend} must be at least 0 and less than 1 (1 is --method independent)")
    anchor = options.anchor or 0
    if not 0 <= anchor <= spec.max_tokens // 4:
        raise ConfigError(f"--anchor {anchor} must be 0 to a quarter of the window ({spec.max_tokens // 4} tokens)")
    return replace(
        spec,
        pooling="strict",
        join="sep",
        overlap=WINDOW_OVERLAP,
        owner=options.owner or "centre",
        anchor=anchor,
        anchor_title=bool(options.anchor_title),
        blend=blend,
        isolated=options.isolated or "chunk",
    )


def _without_late_options(spec: EncoderSpec, options: EncoderOptions) -> EncoderSpec:
    for name in LATE_OPTIONS:
        if getattr(options, name):
            raise ConfigError(f"--{name.replace('_', '-')} goes with --method late, not with {spec.method}")
    return spec


def _max_tokens(checkpoint: Checkpoint, asked: int | None) -> int:
    if asked is None:
        return checkpoint.max_tokens
    if not _SMALLEST_WINDOW <= asked <= checkpoint.max_tokens:
        raise ConfigError(
            f"--max-tokens {asked}: windows of {checkpoint.name} have {_SMALLEST_WINDOW} to {checkpoint.max_tokens}"
        )
    return asked
