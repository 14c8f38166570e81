"""The encoder seam, and the door to it: `load_encoder`.

An encoder takes whole documents and gives as many vectors as there are chunks. Documents stream in and out; it may
look ahead to fill its batches, but a document's vectors never depend on what shares a batch with it. An encoder behind
an API that takes nested lists of chunks fits the same shape.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias, cast

from ctxindex.encoding.checkpoint import Checkpoint, open_checkpoint
from ctxindex.encoding.colbert import query_length
from ctxindex.encoding.fitness import choose_dim, choose_window, counts_as_forced, require_fit, text_pooling
from ctxindex.encoding.runtime import require_known
from ctxindex.errors import ConfigError, MismatchError
from ctxindex.metering import Meter
from ctxindex.spec import METHODS, EncoderSpec, Method

if TYPE_CHECKING:
    from ctxindex.encoding.colbert import ColbertLayout
    from ctxindex.encoding.local import LocalEncoder
    from ctxindex.types import ChunkedDocument, EncodedDocument, FailedDocument, FloatArray, Tokenizer

MultivectorPooling: TypeAlias = Literal["strict", "inclusive", "compat"]
DEFAULT_MODEL = "minilm"
WINDOW_OVERLAP = 10
"""The most chunks that neighbouring windows share; in practice a quarter of the window is the tighter bound."""


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

    `max_tokens` lowers the window, "model" to the length that the model was trained with. `dims` keeps the first
    numbers of each vector. `force_mean` takes means of a model that was not trained for them, `trust_remote_code` lets
    code from the model's folder run. `device` and `batch_tokens` (the padded size of a batch) decide nothing beyond
    rounding, and are no part of a spec.

    The last three are for late interaction: `pooling` says which special tokens keep their vectors ("strict": none),
    `pool_factor` by what the vectors of a chunk are reduced, and `skiplist` whether the tokens that the model's files
    name are left out ("model") or kept ("none").
    """

    method: Method | None = None
    max_tokens: int | Literal["model"] | None = None
    dtype: str = "float32"
    device: str = "auto"
    batch_tokens: int | None = None
    dims: int | None = None
    force_mean: bool = False
    trust_remote_code: bool = False
    pooling: MultivectorPooling | None = None
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
        checkpoint = open_checkpoint(model, trust_remote_code=options.trust_remote_code)
        spec = _spec(checkpoint, options)
    if checkpoint.colbert is not None:
        from ctxindex.encoding.late_interaction import LateInteractionEncoder

        return LateInteractionEncoder(checkpoint, spec, options, meter)
    return LocalEncoder(checkpoint, spec, options, meter)


def restore_encoder(
    stored: EncoderSpec,
    *,
    model: str | None = None,
    device: str = "auto",
    trust_remote_code: bool = False,
    meter: Meter | None = None,
) -> LocalEncoder:
    """The encoder that an index was built with, from its stored spec; `model` says where the files are now.

    Raises:
        ModelError: the model cannot be found or used.
        MismatchError: it is another model than the one that made the index.
    """
    options = EncoderOptions(
        stored.method,
        stored.max_tokens,
        stored.dtype,
        device,
        dims=stored.dim,
        force_mean=stored.force_mean,
        trust_remote_code=trust_remote_code,
    )
    if stored.multivector:
        options = replace(
            options,
            pooling=cast("MultivectorPooling", stored.pooling),
            pool_factor=stored.pool_factor,
            skiplist=stored.skiplist,
        )
    require_known(device, stored.dtype)
    try:
        encoder = load_encoder(model or stored.model, options, meter)
    except ConfigError as error:  # what the index was built with does not fit this model
        raise MismatchError(
            f"the model {model or stored.model} is not the one that built this index: {error}"
        ) from None
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
    force_mean = counts_as_forced(checkpoint, options.force_mean)
    require_fit(checkpoint, method, force_mean)
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
        dim=choose_dim(checkpoint, options.dims),
        max_tokens=choose_window(checkpoint, options.max_tokens),
        pooling="strict" if late else text_pooling(checkpoint, force_mean),
        join="sep" if late else "none",
        overlap=WINDOW_OVERLAP if late else 0,
        owner="centre" if late else "none",
        query_prefix=checkpoint.query_prefix,
        document_prefix=checkpoint.document_prefix,
        dtype=options.dtype,
        force_mean=force_mean,
    )


def _multivector_spec(checkpoint: Checkpoint, layout: ColbertLayout, options: EncoderOptions) -> EncoderSpec:
    factor = 1 if options.pool_factor is None else options.pool_factor
    if factor < 1:
        raise ConfigError(f"--pool-factor {factor}: 1 keeps all token vectors, 2 about half of them, and so on")
    if options.skiplist not in (None, "none", "model"):
        raise ConfigError(f"--skiplist {options.skiplist} is neither none nor model")
    if options.dims not in (None, checkpoint.dim):
        raise ConfigError(
            f"--dims {options.dims}: token vectors of {checkpoint.name} are kept whole, {checkpoint.dim} numbers"
        )
    max_tokens = choose_window(checkpoint, options.max_tokens)
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
