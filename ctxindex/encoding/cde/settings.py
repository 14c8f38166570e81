"""What a native CDE model says of itself: `cde.json` beside the weights of its second stage. Reads JSON; no torch.

    model.safetensors, modules.json, …    the second stage, an ordinary Sentence-Transformers folder
    cde.json                              these settings
    cde.safetensors                       projection, null vector, biases, output head
    first_stage/                          the first stage, a model folder; only where it is none of those below

The first stage has no folder where both stages are the same network, and where it is a model that can be had by its
name and is the same wherever and whenever it is had (`minilm`): then the settings name it, with the digest of its
weights and of its files. What the name is decides nothing, and neither does where the model lies.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from ctxindex.encoding.backbones import BACKBONES, BackboneFacts
from ctxindex.encoding.model_files import read_object
from ctxindex.errors import ModelError

SETTINGS = "cde.json"
TENSORS = "cde.safetensors"
FIRST_STAGE = "first_stage"
VERSION = 1

LAYERS = {
    "bert": "encoder.layer",
    "roberta": "encoder.layer",
    "xlm-roberta": "encoder.layer",
    "camembert": "encoder.layer",
    "distilbert": "transformer.layer",
    "nomic_bert": "layers",
    "modernbert": "layers",
    "eurobert": "layers",
    "qwen3": "layers",
    "mpnet": "encoder.layer",
}
"""Kinds of transformers that can be a second stage, and where each keeps its layers."""

_PADDED = {"mpnet"}
"""Those that read a context though their rows cannot be packed."""


@dataclass(frozen=True, slots=True)
class NativeCde:
    """The settings of a native CDE model.

    `context_size` is how many texts the model was trained with at most; any number can be read. With `share_stages` one
    network is both stages; else the first stage is the model called `first_stage`, with the `digest` and the `files` of
    `Checkpoint` that `first_stage_digest` and `first_stage_files` say, or lies in the folder where that is empty.
    `output_head` is whether a residual MLP stands behind the pooling. `context_bias_init` is what the bias of context
    scores was before training.
    """

    context_size: int = 512
    share_stages: bool = False
    first_stage: str = ""
    first_stage_digest: str = ""
    output_head: bool = False
    context_bias_init: float = -2.0
    version: int = VERSION
    first_stage_files: str = ""

    def unnamed(self) -> NativeCde:
        """The settings of the same model with its first stage in the folder."""
        return replace(self, first_stage="", first_stage_digest="", first_stage_files="")

    def described(self) -> str:
        """What the settings say themselves of the model's vectors: not which model the first stage is."""
        values = asdict(self.unnamed())
        del values["first_stage_files"]  # which folders of earlier releases do not have
        return json.dumps(values, sort_keys=True)

    def to_json(self) -> str:
        """The settings as they stand in the file."""
        return json.dumps(asdict(self), indent=2) + "\n"


def read_cde(folder: Path) -> NativeCde | None:
    """The settings in `folder`; None where the model there is no native CDE model.

    Raises:
        ModelError: the file cannot be read, is of another version, or a setting is missing, unknown or no good.
    """
    file = folder / SETTINGS
    if not file.is_file():
        return None
    values = read_object(file)
    if values.get("version") != VERSION:
        raise ModelError(
            f"{file}: version is {values.get('version')!r}, this ctxindex reads {VERSION}: upgrade ctxindex"
        )
    known = {field.name: type(field.default) for field in fields(NativeCde)}
    values = {"first_stage_files": "", **values}  # earlier releases did not write it
    if values.keys() != known.keys():
        wrong = ", ".join(sorted(values.keys() ^ known.keys()))
        raise ModelError(f"{file}: fields are {', '.join(known)}; missing or unknown: {wrong}")
    for name, kind in known.items():
        if type(values[name]) is not kind and (kind is not float or type(values[name]) is not int):
            raise ModelError(f"{file}: {name} is {values[name]!r}, and must be of the kind {kind.__name__}")
    if values["context_size"] < 1:
        raise ModelError(f"{file}: context_size is {values['context_size']}, and must be 1 or more")
    return NativeCde(**values)


def require_second_stage(facts: BackboneFacts, folder: Path) -> None:
    """Check that a transformer can read context tokens before its text.

    Raises:
        ModelError: it is of a kind that cannot.
    """
    names = ", ".join(BACKBONES[kind] for kind in LAYERS)
    if facts.remote or facts.kind not in LAYERS:
        raise ModelError(f"{folder} is a {facts.name}: the second stage of a CDE model can be one of {names}")
    if not facts.packable and facts.kind not in _PADDED:
        raise ModelError(
            f"{folder} is a {facts.name} whose tokens do not see all of a text, and the second stage of a CDE model is "
            f"one whose tokens do: choose a bidirectional model ({names})"
        )
