"""Trained weights as a model: what they are of, how the model says that it is read, and that it opens as it was.

Whether a base can be written is found out before it is trained (`require_same`): the untrained weights are written,
and opened as anybody would open them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctxindex.encoding.checkpoint import open_checkpoint
from ctxindex.encoding.colbert import STANFORD
from ctxindex.encoding.model_files import read_object
from ctxindex.encoding.modules import TRANSFORMER_SETTINGS, DenseLayer, LayerNormLayer, transformer_settings_file
from ctxindex.encoding.options import EncoderOptions, make_spec
from ctxindex.encoding.trained import TrainedSettings, write_settings
from ctxindex.errors import CtxIndexError, ModelError
from ctxindex.training.results.export import is_made_anew, write_model

if TYPE_CHECKING:
    import torch

    from ctxindex.encoding.checkpoint import Checkpoint
    from ctxindex.spec import EncoderSpec

    State = Mapping[str, torch.Tensor]

_NOT_OF_SETTINGS = {"model", "digest", "files", "force_mean"}
"""What of a spec is the base's, or is no force any more where means are what the folder says."""


def write_tuned(checkpoint: Checkpoint, spec: EncoderSpec, state: State, into: Path) -> None:
    """Write the folder of a model that was trained as `spec` reads it, with what it says of itself (`ctxindex.json`).

    Args:
        checkpoint: the base.
        spec: of the encoder in training.
        state: the weights by the names of `merged_state`.
        into: the new folder; what it holds besides stays.

    Raises:
        ModelError: as `write_model`.
    """
    into.mkdir(parents=True, exist_ok=True)
    transformer, heads = parts_of(checkpoint, state)
    write_model(checkpoint, transformer, heads, into, force_mean=spec.force_mean)
    write_settings(into, settings_of(spec, checkpoint))
    if (into / "modules.json").is_file() or (into / STANFORD).is_file():
        say_length(into, into / checkpoint.backbone.relative_to(checkpoint.folder), spec)


def say_length(folder: Path, backbone: Path, spec: EncoderSpec) -> None:
    """Let other programs read as much of a text as a window of ours holds, and not what they cut the base's texts to.

    Args:
        folder: of the model, in the layout of sentence-transformers, PyLate or Stanford's ColBERT.
        backbone: the folder of its transformer.
        spec: how it was read in training.

    Raises:
        ModelError: a file of settings is damaged.
    """
    name = "document_length" if spec.multivector else "max_seq_length"
    file = transformer_settings_file(backbone)
    if (folder / STANFORD).is_file():
        name, file = "doc_maxlen", folder / STANFORD
    elif file is None or (spec.multivector and name not in read_object(file)):
        file = folder / "config_sentence_transformers.json" if spec.multivector else backbone / TRANSFORMER_SETTINGS
    values = read_object(file, missing_ok=True) | {name: spec.max_tokens}
    file.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def require_same(checkpoint: Checkpoint, spec: EncoderSpec, state: State, folder: Path) -> None:
    """Open what `write_tuned` wrote as anybody would, and check that it is read as `spec` says, with these weights.

    Raises:
        ModelError: it is not.
    """
    import torch

    from ctxindex.encoding.backbone import load_transformer

    remote = checkpoint.facts.remote
    try:
        written = open_checkpoint(str(folder), trust_remote_code=remote)
        found = asdict(make_spec(written, EncoderOptions(dtype=spec.dtype)))
    except CtxIndexError as error:
        raise ModelError(f"{checkpoint.name} cannot be written so that it opens again: {error}") from None
    wanted = asdict(spec)
    other = [name for name in wanted if name not in _NOT_OF_SETTINGS and found[name] != wanted[name]]
    # In a base whose files leave a tensor out, transformers makes it anew, each time another.
    stored, _ = parts_of(checkpoint, state)
    loaded = load_transformer(written.backbone, torch.float32, remote, None).state_dict()
    other += [
        name
        for name, tensor in stored.items()
        if not is_made_anew(name) and not (name in loaded and torch.equal(loaded[name], tensor.cpu().float()))
    ]
    if other:
        raise ModelError(
            f"{checkpoint.name} cannot be written so that it opens as it was: {other[0]} differs, and "
            f"{len(other) - 1} more; save the model again with save_pretrained, and train that"
        )


def settings_of(spec: EncoderSpec, checkpoint: Checkpoint) -> TrainedSettings:
    """What the tuned model says of itself: how it was read in training, where that is not all that the base can do."""
    options = asdict(EncoderOptions.of(spec))
    whole = {"max_tokens": checkpoint.max_tokens, "dims": checkpoint.dim}
    names = {field.name for field in fields(TrainedSettings)}
    return TrainedSettings(
        **{name: value for name, value in options.items() if name in names and whole.get(name) != value}
    )


def parts_of(checkpoint: Checkpoint, state: State) -> tuple[dict[str, torch.Tensor], dict[Path, dict[str, Any]]]:
    """The transformer's weights by their names in it; those of the modules behind it, by the file each is read from."""
    prefix = "transformer."
    transformer = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    heads: dict[Path, dict[str, Any]] = {}
    behind = checkpoint.colbert.dense if checkpoint.colbert else checkpoint.layers
    for group, layers in (("token_layers", checkpoint.token_layers), ("layers", behind)):
        for number, layer in enumerate(layers):
            if isinstance(layer, DenseLayer | LayerNormLayer):
                own = f"{group}.{number}.weights."
                named = {name.removeprefix(own): tensor for name, tensor in state.items() if name.startswith(own)}
                weights = {name.replace("_", "."): tensor for name, tensor in named.items()}
                heads.setdefault(layer.weights, {}).update(weights)
    return transformer, heads
