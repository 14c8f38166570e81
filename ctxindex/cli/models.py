"""`ctxindex models`: the models known by name, and everything that the files of one say."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from ctxindex.cli.options import json_option, trust_option
from ctxindex.cli.output import print_json, print_table

if TYPE_CHECKING:
    from ctxindex.encoding.backbones import BackboneFacts
    from ctxindex.encoding.checkpoint import Checkpoint
    from ctxindex.encoding.colbert import ColbertLayout
    from ctxindex.encoding.estimates import Estimates
    from ctxindex.encoding.known_models import KnownModel
    from ctxindex.encoding.trained import TrainedSettings


@click.group("models")
def command() -> None:
    """The models that ctxindex knows by name, and what the files of any model say."""


@command.command("list")
@json_option
def list_models(as_json: bool) -> None:
    """The models known by name; available means usable on this machine now, without a download.

    Any other Sentence-Transformers model can be given by its folder or its name on the hub.
    """
    from ctxindex.encoding.known_models import KNOWN_MODELS, local_folder

    found = [(model, _usable(model, local_folder(model.name))) for model in KNOWN_MODELS]
    if as_json:
        listed = [{**asdict(model), "available": available} for model, available in found]
        print_json({"schema": "ctxindex.models/1", "models": listed})
        return
    print_table([("NAME", "ENCODER", "DIMS", "WINDOW", "HERE", "WHAT IT IS")] + [_row(*each) for each in found])


def _usable(model: KnownModel, folder: Any) -> bool:
    from ctxindex.encoding.checkpoint import read_checkpoint
    from ctxindex.encoding.fitness import require_fit
    from ctxindex.errors import CtxIndexError
    from ctxindex.spec import METHODS

    if folder is None or model.encoder not in METHODS:
        return False
    try:
        checkpoint = read_checkpoint(folder, model.name, trust_remote_code=model.remote_code, local_only=True)
        require_fit(checkpoint, checkpoint.method, force_mean=False)
    except CtxIndexError:
        return False
    return True


def _row(model: KnownModel, available: bool) -> tuple[str, ...]:
    about = model.about + ("; needs --trust-remote-code" if model.remote_code else "")
    return (model.name, model.encoder, f"{model.dim:,}", f"{model.max_tokens:,}", "yes" if available else "no", about)


@command.command("show")
@click.argument("model", metavar="NAME|DIR")
@trust_option
@json_option
def show_model(model: str, trust_remote_code: bool, as_json: bool) -> None:
    """Everything that the files of a model say, and what it costs to run."""
    from ctxindex.encoding.checkpoint import open_checkpoint
    from ctxindex.encoding.estimates import estimate

    checkpoint = open_checkpoint(model, trust_remote_code=trust_remote_code)
    costs = estimate(checkpoint)
    if as_json:
        print_json({"schema": "ctxindex.model/1", **_as_json(checkpoint, costs)})
        return
    print_table([*_rows(checkpoint), *_costs(costs)])


def _rows(checkpoint: Checkpoint) -> list[tuple[str, str]]:
    facts, trained = checkpoint.facts, checkpoint.trained_tokens
    window = f"{checkpoint.max_tokens:,} tokens" + (", relative positions" if facts.rotary else "")
    if trained is not None:
        window += f"; trained with {trained:,} (--max-tokens model)"
    rows = [
        ("model", checkpoint.name),
        ("folder", str(checkpoint.folder)),
        ("layout", checkpoint.kind if checkpoint.colbert is None else f"late-interaction ({checkpoint.colbert.kind})"),
        *_stage_rows(checkpoint),
        ("own code", "yes, from the model's folder") if facts.remote else ("own code", "no"),
        ("vectors", f"{checkpoint.dim:,} numbers" + (" a token" if checkpoint.colbert else "")),
        ("pooling", _pooling(checkpoint)),
        ("modules", ", ".join(_layers(checkpoint)) or "none around the pooling"),
        ("window", window),
        ("query prefix", repr(checkpoint.query_prefix)),
        ("document prefix", repr(checkpoint.document_prefix)),
        ("methods", ", ".join(_methods(checkpoint)) or "none yet: late interaction"),
        ("weights", f"sha256 {checkpoint.digest}"),
    ]
    if checkpoint.trained is not None:
        rows.append(("trained for", _trained(checkpoint.trained)))
    return rows + (_colbert_rows(checkpoint.colbert) if checkpoint.colbert else [])


def _stage_rows(checkpoint: Checkpoint) -> list[tuple[str, str]]:
    """The transformers, and what a model with two of them says of a corpus context."""
    stages = _stages(checkpoint)
    if stages is None:
        return [("backbone", _backbone(checkpoint.facts))]
    first = "the second stage itself"
    if stages.first is not None:
        first = _backbone(stages.first) + (f", from {stages.model}" if stages.model else "")
    size = "no more and no fewer" if stages.fixed else "or any other number"
    null = "reads without one too (--context null)" if stages.null else "reads nothing without one"
    context = f"of {stages.context_size:,} texts, {size}; {null}"
    return [("first stage", first), ("second stage", _backbone(checkpoint.facts)), ("corpus context", context)]


def _backbone(facts: BackboneFacts) -> str:
    return f"{facts.name}, {facts.layers} layers of {facts.hidden}{', causal' if facts.causal else ''}"


class _Stages(NamedTuple):
    """What a CDE model has besides its second stage.

    `first` is the transformer of the first stage, None where it is the second one itself, and `model` the name of the
    model it is taken from, if any. As many as `context_size` texts make a context: so many and no others where that is
    `fixed`. `null` is whether the model reads without one.
    """

    first: BackboneFacts | None
    model: str
    context_size: int
    fixed: bool
    null: bool


def _stages(checkpoint: Checkpoint) -> _Stages | None:
    cde, published = checkpoint.cde, checkpoint.published
    if published is not None:
        return _Stages(published.first_facts, "", published.context_size, fixed=True, null=published.null)
    if cde is None:
        return None
    first = checkpoint.first_stage
    named = "" if first is None else cde.first_stage
    return _Stages(None if first is None else first.facts, named, cde.context_size, fixed=False, null=True)


def _trained(trained: TrainedSettings) -> str:
    """The method, and the defaults of the others by their flags."""
    said = [f"--{name.replace('_', '-')} {_value(value)}" for name, value in trained.options.items()]
    return ", ".join([trained.method, *said])


def _value(value: Any) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def _pooling(checkpoint: Checkpoint) -> str:
    if checkpoint.colbert is not None:
        return "none, a vector a token"
    if checkpoint.pooling is None:
        return "the folder does not say"
    return checkpoint.pooling.mode + ("" if checkpoint.pooling.include_prompt else ", without the prompt")


def _colbert_rows(layout: ColbertLayout) -> list[tuple[str, str]]:
    expansion = layout.expansion
    filled = "off"
    if expansion is not None:
        seen = "attended to" if expansion.attend else "not attended to"
        filled = f"{expansion.strategy}, to {expansion.length} tokens, {seen}"
    return [
        (
            "markers",
            f"{layout.query_marker.text!r} {layout.query_marker.ids}, "
            f"{layout.document_marker.text!r} {layout.document_marker.ids}",
        ),
        ("query length", str(layout.query_length or "as the window")),
        ("document length", str(layout.document_length or "as the window")),
        ("expansion", filled),
        ("skiplist", f"{len(layout.skiplist)} tokens, in {', '.join(layout.skiplist_tasks)}"),
    ]


def _costs(costs: Estimates) -> list[tuple[str, str]]:
    own = f", {costs.first_stage:,} of them in the first stage alone" if costs.first_stage else ""
    beside = f" beside a context of {costs.context}" if costs.context else ""
    return [
        ("parameters", f"{costs.parameters:,}{own}"),
        (
            "memory",
            f"estimate: {costs.memory_bytes / 1e9:,.2f} GB in float32, {costs.weight_bytes / 1e9:,.2f} of weights",
        ),
        (
            "speed",
            f"estimate: {costs.tokens_per_second:,} tokens/s in float32 on this CPU "
            f"({costs.flops_per_token / 1e6:,.0f} MFLOP a token in windows of {costs.window}{beside})",
        ),
    ]


def _methods(checkpoint: Checkpoint) -> list[str]:
    """The methods that the model can be used with, without and with insisting."""
    from ctxindex.encoding.fitness import require_fit
    from ctxindex.errors import ModelError
    from ctxindex.spec import METHODS

    methods: list[str] = []
    for method in METHODS:
        for force, word in ((False, ""), (True, " (--force-mean)")):
            try:
                require_fit(checkpoint, method, force)
            except ModelError:
                continue
            methods.append(method + word)
            break
    return methods


def _layers(checkpoint: Checkpoint) -> list[str]:
    layers = (*checkpoint.token_layers, *checkpoint.layers, *(checkpoint.colbert.dense if checkpoint.colbert else ()))
    return [_layer(layer) for layer in layers]


def _layer(layer: Any) -> str:
    name = type(layer).__name__.removesuffix("Layer")
    size = f" {layer.in_features} to {layer.out_features} {layer.activation}" if name == "Dense" else ""
    return f"{name}{size}{' per token' if layer.level == 'tokens' else ''}"


def _as_json(checkpoint: Checkpoint, costs: Estimates) -> dict[str, Any]:
    pooling, layout, trained = checkpoint.pooling, checkpoint.colbert, checkpoint.trained
    stages = _stages(checkpoint)
    values: dict[str, Any] = {
        "name": checkpoint.name,
        "folder": str(checkpoint.folder),
        "encoder": "late-interaction" if layout else checkpoint.method,
        "layout": checkpoint.kind,
        "backbone": asdict(checkpoint.facts),
        "dim": checkpoint.dim,
        "max_tokens": checkpoint.max_tokens,
        "trained_tokens": checkpoint.trained_tokens,
        "pooling": None if pooling is None else asdict(pooling),
        "modules": _layers(checkpoint),
        "query_prefix": checkpoint.query_prefix,
        "document_prefix": checkpoint.document_prefix,
        "methods": _methods(checkpoint),
        "trained": None if trained is None else {"method": trained.method, **trained.options},
        "digest": checkpoint.digest,
        "parameters": costs.parameters,
        "estimates": {name: value for name, value in asdict(costs).items() if name not in ("parameters",)},
    }
    if stages is not None:
        first = None if stages.first is None else asdict(stages.first)
        values["cde"] = {**stages._asdict(), "first": first}
    if layout is not None:
        values["late_interaction"] = {
            "kind": layout.kind,
            "query_marker": asdict(layout.query_marker),
            "document_marker": asdict(layout.document_marker),
            "query_length": layout.query_length,
            "document_length": layout.document_length,
            "expansion": None if layout.expansion is None else asdict(layout.expansion),
            "skiplist": sorted(layout.skiplist),
        }
    return values
