"""What a user asks of an index's vectors, and whether it agrees with the spec that the index already has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from ctxindex.chunking import DEFAULT_CHUNK_SIZE, DEFAULT_CHUNKER
from ctxindex.encoding import EncoderOptions, open_checkpoint
from ctxindex.encoding.fitness import TRAINED_WINDOW, choose_window, counts_as_forced
from ctxindex.encoding.known_models import default_model
from ctxindex.encoding.options import window_overlap
from ctxindex.encoding.runtime import AUTO
from ctxindex.errors import ConfigError, MismatchError
from ctxindex.spec import (
    NULL_CONTEXT,
    SAMPLINGS,
    ChunkerSpec,
    ChunkPooling,
    EncoderSpec,
    IndexSpec,
    Isolated,
    Join,
    Method,
    Owner,
    Sampling,
    Windows,
)

_OF_THE_ENCODER = (
    "method",
    "max_tokens",
    "join",
    "pooling",
    "windows",
    "owner",
    "anchor",
    "anchor_title",
    "blend",
    "isolated",
    "force_mean",
    "dtype",
    "pool_factor",
    "skiplist",
)
"""Settings that an encoder's spec has by the same name."""

_NOTHING: Mapping[str, Any] = {}

CORPUS_CONTEXT = "corpus"
"""The `context` that is a sample of the documents themselves."""


@dataclass(frozen=True, slots=True)
class IndexOptions:
    """The settings that decide vectors; None where the user said nothing. Units of sizes are those of `chunk_unit`.

    `context` is where a CDE encoder's context comes from: "corpus", the default, for a sample of the documents, "null"
    for the model's own stand-in; in an evaluation also a dataset or documents, by name. `context_seed` draws the
    sample, in the way called `context_sampling`.
    """

    model: str | None = None
    method: Method | None = None
    chunker: str | None = None
    chunk_size: int | None = None
    chunk_unit: Literal["tokens", "chars"] | None = None
    chunk_overlap: int | None = None
    max_tokens: int | Literal["model"] | None = None
    dtype: str | None = None
    join: Join | None = None
    pooling: ChunkPooling | None = None
    windows: Windows | None = None
    window_overlap: int | None = None
    owner: Owner | None = None
    anchor: int | None = None
    anchor_title: bool | None = None
    blend: float | None = None
    isolated: Isolated | None = None
    dims: int | None = None
    force_mean: bool | None = None
    pool_factor: int | None = None
    skiplist: Literal["none", "model"] | None = None
    context: str | None = None
    context_seed: int | None = None
    context_sampling: Sampling | None = None

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """The names of the settings."""
        return tuple(field.name for field in fields(cls))

    def chunker_spec(self) -> ChunkerSpec:
        """The chunker of a new index."""
        unit: Literal["tokens", "chars"] = self.chunk_unit or "tokens"
        size = DEFAULT_CHUNK_SIZE if self.chunk_size is None else self.chunk_size
        if self.chunk_size is None and unit == "chars":
            size = DEFAULT_CHUNK_SIZE * 4
        return ChunkerSpec(self.chunker or DEFAULT_CHUNKER, size, unit, self.chunk_overlap or 0)

    def encoder_options(
        self, device: str, *, threads: int | None = None, trust_remote_code: bool = False
    ) -> EncoderOptions:
        """The encoder of a new index."""
        return EncoderOptions(
            method=self.method,
            max_tokens=self.max_tokens,
            dtype=self.dtype,
            device=device,
            threads=threads,
            dims=self.dims,
            force_mean=bool(self.force_mean),
            trust_remote_code=trust_remote_code,
            join=self.join,
            pooling=self.pooling,
            windows=self.windows,
            window_overlap=self.window_overlap,
            owner=self.owner,
            anchor=self.anchor,
            anchor_title=self.anchor_title,
            blend=self.blend,
            isolated=self.isolated,
            pool_factor=self.pool_factor,
            skiplist=self.skiplist,
        )

    @property
    def model_name(self) -> str:
        """The model of a new index."""
        return self.model or default_model()


def context_source(encoder: EncoderSpec) -> str | None:
    """What --context says for an index with this encoder; None with a method that reads no corpus context."""
    if encoder.method != "cde":
        return None
    return NULL_CONTEXT if encoder.context == NULL_CONTEXT else CORPUS_CONTEXT


def sample_settings(options: IndexOptions) -> dict[str, Any]:
    """What was asked for of the sample that a corpus context is made of: seed and sampling, where they were given."""
    given = {name: getattr(options, name) for name in ("context_seed", "context_sampling")}
    return {name: value for name, value in given.items() if value is not None}


def require_sample(options: IndexOptions) -> None:
    """Check that a sample can be drawn as asked for, where anything was.

    Raises:
        ConfigError: it cannot, or there is to be none.
    """
    given, seed = sample_settings(options), options.context_seed
    if given and options.context == NULL_CONTEXT:
        flags = " and ".join(f"--{name.replace('_', '-')}" for name in given)
        raise ConfigError(f"{flags}: there is no sample to draw with --context {NULL_CONTEXT}: leave one of them out")
    if seed is not None and seed < 0:
        raise ConfigError(f"--context-seed {seed} must be 0 or more")
    if options.context_sampling not in (None, *SAMPLINGS):
        raise ConfigError(f"--context-sampling {options.context_sampling} is none of {', '.join(SAMPLINGS)}")


def require_agreement(
    stored: IndexSpec,
    options: IndexOptions,
    loader: int,
    drawn: Mapping[str, Any] = _NOTHING,
    *,
    trust_remote_code: bool = False,
) -> None:
    """Check that what was asked for is what the index was built with.

    Args:
        stored: the spec of the index.
        options: what was asked for.
        loader: the version of the loader.
        drawn: seed and sampling of the index's corpus context by the names of the options, which no spec says; they are
            compared only where they are here.
        trust_remote_code: let Python code in a model's folder run.

    Raises:
        MismatchError: with the settings that differ, and what to do.
    """
    encoder = stored.encoder
    has: Mapping[str, Any] = {
        "chunker": stored.chunker.name,
        "chunk_size": stored.chunker.size,
        "chunk_unit": stored.chunker.unit,
        "chunk_overlap": stored.chunker.overlap,
        "dims": encoder.dim,
        "window_overlap": window_overlap(encoder),
        "context": context_source(encoder),
        **{name: getattr(encoder, name) for name in _OF_THE_ENCODER},
        **drawn,
    }
    asked = {name: value for name, value in asdict(options).items() if value is not None and name in has}
    if options.dtype == AUTO:  # the precision that was chosen when the index was made
        del asked["dtype"]
    asked.update(_of_the_model(stored, options, trust_remote_code))
    wrong = [
        f"  {name}: index {has[name]!r}, asked for {value!r}" for name, value in asked.items() if value != has[name]
    ]
    if options.model not in (None, encoder.model):
        other = open_checkpoint(str(options.model), trust_remote_code=trust_remote_code)
        if (other.digest, other.files) != (encoder.digest, encoder.files):
            what = "weights" if other.digest != encoder.digest else "tokenizer or configuration"
            wrong.insert(0, f"  model: index {encoder.model!r}, asked for {options.model!r} (other {what})")
    if stored.loader != loader:
        wrong.append(f"  loader: index version {stored.loader}, this ctxindex has version {loader}")
    if wrong:
        raise MismatchError(
            "the index was built with other settings:\n" + "\n".join(wrong) + "\n"
            "leave them out to go on with the index's own, or ingest into a new index (--index NAME)"
        )


def _of_the_model(stored: IndexSpec, options: IndexOptions, trust_remote_code: bool) -> dict[str, Any]:
    """What was asked for in words that only the model's files can put into values."""
    if options.max_tokens != TRAINED_WINDOW and not options.force_mean:
        return {}
    checkpoint = open_checkpoint(options.model or stored.encoder.model, trust_remote_code=trust_remote_code)
    values: dict[str, Any] = {}
    if options.max_tokens == TRAINED_WINDOW:
        values["max_tokens"] = choose_window(checkpoint, TRAINED_WINDOW)
    if options.force_mean:
        values["force_mean"] = counts_as_forced(checkpoint, True)
    return values
