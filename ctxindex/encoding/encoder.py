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
from ctxindex.encoding.colbert import query_length
from ctxindex.encoding.runtime import require_known
from ctxindex.errors import ConfigError, MismatchError
from ctxindex.metering import Meter
from ctxindex.spec import METHODS, EncoderSpec, Method

if TYPE_CHECKING:
    from ctxindex.encoding.colbert import ColbertLayout
    from ctxindex.encoding.local import LocalEncoder
    from ctxindex.types import ChunkedDocument, EncodedDocument, FailedDocument, FloatArray, Tokenizer

DEFAULT_MODEL = "minilm"
WINDOW_OVERLAP = 10
"""The most chunks that neighbouring windows share; in practice a quarter of the window is the tighter bound."""

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
        """Each document with its chunks' unit vectors, or why it has none; in the order in which they are done."""
        ...

    def encode_queries(self, queries: Sequence[str]) -> FloatArray | list[FloatArray]:
        """(queries, dim) float32, unit rows: the model's ordinary embedding of a text, with the query prefix.

        An encoder of multivectors gives a list: for each query (query vectors, dim) float32, unit rows.
        """
        ...


@dataclass(frozen=True, slots=True)
class EncoderOptions:
    """What a user may choose about an encoder; None takes what the model's files say.

    `max_tokens` lowers the window. `device` and `batch_tokens` (the padded size of a batch) decide nothing beyond
    rounding, and are no part of a spec.

    The last three are for late interaction: `pooling` says which special tokens keep their vectors ("strict": none),
    `pool_factor` by what the vectors of a chunk are reduced, and `skiplist` whether the tokens that the model's files
    name are left out ("model") or kept ("none").
    """

    method: Method | None = None
    max_tokens: int | None = None
    dtype: str = "float32"
    device: str = "auto"
    batch_tokens: int | None = None
    pooling: Literal["strict", "inclusive", "compat"] | None = None
    pool_factor: int | None = None
    skiplist: Literal["none", "model"] | None = None


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
    require_known(options.device, options.dtype)
    with meter.time("model"):
        checkpoint = open_checkpoint(model)
        spec = _spec(checkpoint, options)
    if checkpoint.colbert is not None:
        from ctxindex.encoding.late_interaction import LateInteractionEncoder

        return LateInteractionEncoder(checkpoint, spec, options, meter)
    return LocalEncoder(checkpoint, spec, options, meter)


def restore_encoder(
    stored: EncoderSpec, *, model: str | None = None, device: str = "auto", meter: Meter | None = None
) -> LocalEncoder:
    """The encoder that an index was built with, from its stored spec; `model` says where the files are now.

    Raises:
        ModelError: the model cannot be found or used.
        MismatchError: it is another model than the one that made the index.
    """
    options = EncoderOptions(stored.method, stored.max_tokens, stored.dtype, device)
    if stored.multivector:
        options = replace(options, pooling=stored.pooling, pool_factor=stored.pool_factor, skiplist=stored.skiplist)
    encoder = load_encoder(model or stored.model, options, meter)
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
    require_method(checkpoint, method)
    if checkpoint.colbert is not None:
        return _multivector_spec(checkpoint, checkpoint.colbert, options)
    if (options.pooling, options.pool_factor, options.skiplist) != (None, None, None):
        raise ConfigError(
            f"--pool-factor and --skiplist are for late interaction; {checkpoint.name} gives one vector a chunk"
        )
    late = method == "late"
    return EncoderSpec(
        model=checkpoint.name,
        digest=checkpoint.digest,
        method=method,
        dim=checkpoint.dim,
        max_tokens=_max_tokens(checkpoint, options.max_tokens),
        pooling="strict" if late else "inclusive",
        join="sep" if late else "none",
        overlap=WINDOW_OVERLAP if late else 0,
        owner="centre" if late else "none",
        query_prefix=checkpoint.query_prefix,
        document_prefix=checkpoint.document_prefix,
        dtype=options.dtype,
    )


def require_method(checkpoint: Checkpoint, method: Method) -> None:
    """Check that the model gives vectors of the kind that the method stores.

    Raises:
        ConfigError: one vector a text was asked of a late-interaction model, or the reverse.
    """
    several = checkpoint.colbert is not None
    if several and method != "late-interaction":
        raise ConfigError(
            f"--method {method} needs a model that gives one vector a text, and {checkpoint.name} is a "
            "late-interaction model, which gives one a token: leave --method out, or choose another model"
        )
    if not several and method == "late-interaction":
        raise ConfigError(
            f"--method late-interaction needs a late-interaction model (ColBERT, PyLate), and {checkpoint.name} gives "
            "one vector a text: use --method late or independent, or choose another model"
        )


def _multivector_spec(checkpoint: Checkpoint, layout: ColbertLayout, options: EncoderOptions) -> EncoderSpec:
    factor = 1 if options.pool_factor is None else options.pool_factor
    if factor < 1:
        raise ConfigError(f"--pool-factor {factor}: 1 keeps all token vectors, 2 about half of them, and so on")
    if options.skiplist not in (None, "none", "model"):
        raise ConfigError(f"--skiplist {options.skiplist} is neither none nor model")
    max_tokens = _max_tokens(checkpoint, options.max_tokens)
    expansion = layout.expansion
    return EncoderSpec(
        model=checkpoint.name,
        digest=checkpoint.digest,
        method="late-interaction",
        dim=checkpoint.dim,
        max_tokens=max_tokens,
        pooling=options.pooling or "strict",
        join="sep",
        overlap=WINDOW_OVERLAP,
        owner="centre",
        query_prefix=checkpoint.query_prefix,
        document_prefix=checkpoint.document_prefix,
        dtype=options.dtype,
        multivector=True,
        storage="float16",
        pool_factor=factor,
        skiplist=options.skiplist or "none",
        query_length=query_length(layout, max_tokens),
        query_expansion="none" if expansion is None else expansion.describe(),
    )


def _max_tokens(checkpoint: Checkpoint, asked: int | None) -> int:
    if asked is None:
        return checkpoint.max_tokens
    if not _SMALLEST_WINDOW <= asked <= checkpoint.max_tokens:
        raise ConfigError(
            f"--max-tokens {asked}: windows of {checkpoint.name} have {_SMALLEST_WINDOW} to {checkpoint.max_tokens}"
        )
    return asked
