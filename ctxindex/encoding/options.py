"""What a user may choose about an encoder, and the spec that follows from it and the model's files."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, TypeVar

from ctxindex.encoding.checkpoint import Checkpoint
from ctxindex.encoding.colbert import ColbertLayout, query_length
from ctxindex.encoding.fitness import (
    choose_dim,
    choose_window,
    counts_as_forced,
    require_fit,
    require_rotary,
    text_pooling,
)
from ctxindex.encoding.trained import FILE, TrainedSettings
from ctxindex.errors import ConfigError, ModelError
from ctxindex.spec import (
    ISOLATED,
    JOINS,
    METHODS,
    NULL_CONTEXT,
    OWNERS,
    POOLINGS,
    WINDOWS,
    ChunkPooling,
    EncoderSpec,
    Isolated,
    Join,
    Method,
    Owner,
    PoolingName,
    Windows,
)

_T = TypeVar("_T")

DEFAULT_DTYPE = "float32"
CONTEXT_SHARE = 32
"""Of a window, one in so many tokens is context on each side of the chunks it owns."""

SHARED_CHUNKS = 10
"""The most chunks in two windows, with another owner than "centre"; in practice a quarter of the window is tighter."""

TOKEN_OVERLAP = 512
"""Tokens that windows of tokens share, if they take no more than a quarter: the default of jina-ai/late-chunking."""

_WINDOWS = ("join", "pooling", "windows", "window_overlap", "owner", "anchor", "anchor_title", "blend", "isolated")
"""Options of every method that reads chunks in windows."""

OF_TOKENS = ("pool_factor", "skiplist")
"""Options of late interaction."""


@dataclass(frozen=True, slots=True)
class EncoderOptions:
    """What a user may choose about an encoder; None takes what the model's files say, or the default.

    What a trained model says of itself (`ctxindex.json`) are defaults of its method; 0 and False are choices.

    `max_tokens` lowers the window, "model" to the length that the model was trained with. `dims` keeps the first
    numbers of each vector. `force_mean` takes means of a model that was not trained for them, `trust_remote_code` lets
    code from the model's folder run. `dtype` None or "auto" is chosen by what the machine can do. `device`, `threads`
    (of the CPU) and `batch_tokens` (the size of a batch) decide nothing beyond rounding, and are no part of a spec.

    `join`, `pooling`, `windows`, `owner`, `anchor` (tokens of the document's head), `anchor_title`, `blend` and
    `isolated` are those of `EncoderSpec` and go with the methods `late`, `late-interaction` and `cde`; `windows`
    "chunk" with the last two: it is what published CDE models do where nothing is said. `window_overlap` is the spec's
    `overlap` where that counts tokens.

    The last two are for late interaction: `pool_factor` says by what the vectors of a chunk are reduced, and `skiplist`
    whether the tokens that the model's files name are left out ("model") or kept ("none").
    """

    method: Method | None = None
    max_tokens: int | Literal["model"] | None = None
    dtype: str | None = None
    device: str = "auto"
    threads: int | None = None
    batch_tokens: int | None = None
    dims: int | None = None
    force_mean: bool = False
    trust_remote_code: bool = False
    anchor: int | None = None
    anchor_title: bool | None = None
    owner: Owner | None = None
    join: Join | None = None
    pooling: ChunkPooling | None = None
    windows: Windows | None = None
    window_overlap: int | None = None
    blend: float | None = None
    isolated: Isolated | None = None
    pool_factor: int | None = None
    skiplist: Literal["none", "model"] | None = None

    @classmethod
    def of(
        cls,
        spec: EncoderSpec,
        device: str = "auto",
        *,
        threads: int | None = None,
        trust_remote_code: bool = False,
    ) -> EncoderOptions:
        """The options that give `spec` again, with the model that made it."""
        values = {**asdict(spec), "window_overlap": window_overlap(spec)}
        values["owner"] = None if spec.owner == "none" else spec.owner
        names = ["method", "max_tokens", "dtype", "force_mean"]
        if spec.windows == "chunk":
            names += ["windows"]
        elif spec.method != "independent":
            names += _WINDOWS
        names += OF_TOKENS if spec.multivector else ()
        chosen: dict[str, Any] = {name: values[name] for name in names}
        return cls(**chosen, dims=spec.dim, device=device, threads=threads, trust_remote_code=trust_remote_code)


def make_spec(checkpoint: Checkpoint, options: EncoderOptions) -> EncoderSpec:
    """The spec of the encoder that the options ask for; what they leave out is as the model was trained.

    Raises:
        ModelError: the model does not fit the method, or what it says of itself does not fit the model.
        ConfigError: an option does not fit the model or the method.
    """
    method = options.method or checkpoint.method
    if method not in METHODS:
        raise ConfigError(f"--method {method} is none of {', '.join(METHODS)}")
    force_mean = counts_as_forced(checkpoint, options.force_mean)
    require_fit(checkpoint, method, force_mean)
    options = replace(options, method=method, force_mean=force_mean)
    if checkpoint.trained is not None and checkpoint.trained.method == method:
        options = _with_defaults(checkpoint, options, checkpoint.trained)
    return _spec(checkpoint, options, method)


def _with_defaults(checkpoint: Checkpoint, options: EncoderOptions, trained: TrainedSettings) -> EncoderOptions:
    """The options with what the model was trained with, where they say nothing and nothing they say forbids it.

    A default that does not go with what was chosen is left out; only what was chosen itself is ever refused. Whether
    it goes is found by trying, so that one set of rules decides about both.
    """
    method, file = trained.method, checkpoint.folder / FILE
    try:
        _spec(checkpoint, EncoderOptions(method=method, force_mean=options.force_mean, **trained.options), method)
    except ConfigError as error:
        raise ModelError(f"{file} does not fit itself or the model: {error}") from None
    for name, value in trained.options.items():
        if getattr(options, name) is not None or (name == "window_overlap" and not _same_windows(options, trained)):
            continue
        tried = replace(options, **{name: value})
        try:
            _spec(checkpoint, tried, method)
        except ConfigError:
            continue
        options = tried
    return options


def _same_windows(options: EncoderOptions, trained: TrainedSettings) -> bool:
    """Whether windows are those that the model's overlap is for; with others the number means something else."""
    chosen, own = ((_or(one.windows, "window"), _or(one.owner, "centre")) for one in (options, trained))
    return chosen == own


def _spec(checkpoint: Checkpoint, options: EncoderOptions, method: Method) -> EncoderSpec:
    force_mean = options.force_mean
    spec = EncoderSpec(
        model=checkpoint.name,
        digest=checkpoint.digest,
        method=method,
        dim=checkpoint.dim,
        max_tokens=choose_window(checkpoint, options.max_tokens),
        pooling="strict",
        join="none",
        overlap=0,
        owner="none",
        query_prefix=checkpoint.query_prefix,
        document_prefix=checkpoint.document_prefix,
        dtype=options.dtype or DEFAULT_DTYPE,
        force_mean=force_mean,
        files=checkpoint.files,
        context=NULL_CONTEXT if method == "cde" and checkpoint.published is None else "",
    )
    if checkpoint.published is not None and options.windows is None:
        options = replace(options, windows="chunk")  # as it was trained
    alone = options.windows == "chunk"
    if checkpoint.colbert is not None:
        read = _alone_spec(spec, options, "inclusive") if alone else _windows_spec(checkpoint, spec, options)
        return _multivector_spec(read, checkpoint.colbert, options)
    if any(getattr(options, name) is not None for name in OF_TOKENS):
        raise ConfigError(
            f"--pool-factor and --skiplist are for late interaction; {checkpoint.name} gives one vector a chunk"
        )
    spec = replace(spec, dim=choose_dim(checkpoint, options.dims))
    if alone:
        return _alone_spec(spec, options, text_pooling(checkpoint, force_mean))
    if method in ("late", "cde"):
        return _windows_spec(checkpoint, spec, options)
    _refuse(options, _WINDOWS, "--method late, late-interaction or cde", method)
    return replace(spec, pooling=text_pooling(checkpoint, force_mean))


def _alone_spec(spec: EncoderSpec, options: EncoderOptions, pooling: PoolingName) -> EncoderSpec:
    """Each chunk in a window of its own, pooled as a text: `independent`, where that is no method of its own."""
    if spec.method not in ("cde", "late-interaction"):
        raise ConfigError(
            "--windows chunk goes with --method cde and late-interaction; with one vector a chunk and without a corpus "
            "context it is --method independent"
        )
    _refuse(options, [name for name in _WINDOWS if name != "windows"], "other --windows", "chunk")
    return replace(spec, windows="chunk", pooling=pooling)


def _windows_spec(checkpoint: Checkpoint, spec: EncoderSpec, options: EncoderOptions) -> EncoderSpec:
    """What is common to methods that read chunks in windows; what is left out is the default."""
    anchor = _or(options.anchor, 0)
    if not 0 <= anchor <= spec.max_tokens // 4:
        raise ConfigError(f"--anchor {anchor} must be 0 to a quarter of the window ({spec.max_tokens // 4} tokens)")
    spec = replace(
        spec,
        join=_one_of(JOINS, _or(options.join, "sep"), "join"),
        pooling=_one_of(POOLINGS, _or(options.pooling, "strict"), "pooling"),
        windows=_one_of(WINDOWS, _or(options.windows, "window"), "windows"),
        overlap=SHARED_CHUNKS,
        owner=_one_of(OWNERS, _or(options.owner, "centre"), "owner"),
        anchor=anchor,
        anchor_title=bool(options.anchor_title),
        blend=_blend(options),
        isolated=_one_of(ISOLATED, _or(options.isolated, "chunk"), "isolated"),
    )
    _require_policy(spec, options)
    if spec.windows == "window":
        if spec.owner == "centre":
            return replace(spec, overlap=_overlap(spec, options, spec.max_tokens // CONTEXT_SHARE, 4))
        _refuse(options, ("window_overlap",), "--owner centre or --windows token-window", f"--owner {spec.owner}")
        return spec
    _refuse(options, ("owner", "anchor"), "--windows window", spec.windows)
    if spec.windows == "full":
        require_rotary(checkpoint)
        _refuse(options, ("window_overlap",), "--windows window or token-window", "full")
        return replace(spec, overlap=0, owner="none")
    _refuse(options, ("anchor_title",), "--windows window or full", "token-window")
    if spec.join != "raw":
        raise ConfigError("--windows token-window cuts the text as it stands, wherever it falls: add --join raw")
    return replace(spec, overlap=_overlap(spec, options, min(TOKEN_OVERLAP, spec.max_tokens // 4), 2), owner="none")


def _overlap(spec: EncoderSpec, options: EncoderOptions, default: int, least_share: int) -> int:
    """The tokens that neighbouring windows share, at most one in `least_share` of a window."""
    overlap = _or(options.window_overlap, default)
    most = spec.max_tokens // least_share
    if not 0 <= overlap <= most:
        raise ConfigError(f"--window-overlap {overlap} must be 0 to {most} tokens with windows of {spec.max_tokens}")
    return overlap


def window_overlap(spec: EncoderSpec) -> int | None:
    """The overlap of the spec where it counts tokens, so that --window-overlap can choose it; else None."""
    return spec.overlap if spec.windows == "token-window" or spec.owner == "centre" else None


def _require_policy(spec: EncoderSpec, options: EncoderOptions) -> None:
    """Refuse what a policy that pools special tokens cannot go with."""
    policy = f"--pooling {spec.pooling}"
    if spec.pooling == "strict":
        return
    titled = "anchor_title" if spec.anchor_title else "isolated" if options.isolated in ("title", "opening") else None
    if titled:
        flag = titled.replace("_", "-")
        raise ConfigError(f"--{flag} puts the title between CLS and what {policy} pools as one: leave one out")
    if spec.pooling == "inclusive":
        return
    if spec.join != "sep":
        raise ConfigError(f"{policy} repeats code that joins chunks by separators: it goes with --join sep")
    for name in ("anchor", "blend"):
        if getattr(options, name):
            raise ConfigError(f"{policy} repeats code that has no --{name}: leave one of both out")


def _blend(options: EncoderOptions) -> float:
    blend = _or(options.blend, 0.0)
    if not 0 <= blend < 1:
        alone = "" if options.method == "late-interaction" else " (1 is --method independent)"
        raise ConfigError(f"--blend {blend} must be at least 0 and less than 1{alone}")
    return blend


def _multivector_spec(spec: EncoderSpec, layout: ColbertLayout, options: EncoderOptions) -> EncoderSpec:
    factor = _or(options.pool_factor, 1)
    if factor < 1:
        raise ConfigError(f"--pool-factor {factor}: 1 keeps all token vectors, 2 about half of them, and so on")
    if options.skiplist not in (None, "none", "model"):
        raise ConfigError(f"--skiplist {options.skiplist} is neither none nor model")
    if options.dims not in (None, spec.dim):
        raise ConfigError(
            f"--dims {options.dims}: token vectors of {spec.model} are kept whole, {spec.dim} numbers each"
        )
    if spec.owner == "mean":
        raise ConfigError("--owner mean is for one vector a chunk; with late interaction it is centre or first")
    if spec.blend and spec.pooling != "strict":
        raise ConfigError(
            f"--blend mixes the two vectors of each token of a chunk, and --pooling {spec.pooling} keeps those of "
            "special tokens, which have no second: leave one of both out"
        )
    expansion = layout.expansion
    return replace(
        spec,
        multivector=True,
        storage="float16",
        pool_factor=factor,
        skiplist=_or(options.skiplist, "none"),
        query_length=query_length(layout, spec.max_tokens),
        query_expansion="none" if expansion is None else expansion.describe(),
    )


def _refuse(options: EncoderOptions, names: Collection[str], home: str, chosen: str) -> None:
    for name in names:
        value = getattr(options, name)
        if value or (name == "window_overlap" and value is not None):  # 0 of others is what they are without
            raise ConfigError(f"--{name.replace('_', '-')} goes with {home}, not with {chosen}")


def _or(value: _T | None, default: _T) -> _T:
    """`value`, or `default` where nothing was said; 0 and False say something."""
    return default if value is None else value


def _one_of(known: Collection[Any], value: Any, name: str) -> Any:
    if value not in known:
        raise ConfigError(f"--{name} {value} is none of {', '.join(known)}")
    return value
