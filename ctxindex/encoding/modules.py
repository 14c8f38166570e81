"""The modules of a Sentence-Transformers folder (`modules.json`) as data: which there are, in order, and what they say.

Type names come in three generations, `sentence_transformers.models.Dense`,
`sentence_transformers.base.modules.dense.Dense` and `pylate.models.Dense.Dense`; the last part is what counts.
Source: sentence-transformers 6.2, base/modules and sentence_transformer/modules.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from ctxindex.encoding.model_files import integer, read_any, read_object, tensor_names, weight_files
from ctxindex.errors import ModelError

ACTIVATIONS = ("Identity", "Tanh", "ReLU", "GELU", "SiLU", "Sigmoid", "LeakyReLU", "Mish", "Softplus", "ELU", "SELU")
"""The activations of torch.nn that a Dense module may name; nothing else is ever imported by a name from a file."""

Level: TypeAlias = Literal["tokens", "sentence"]
"""What a module works on: every token's state, or the pooled vector."""


_TRANSFORMER_FILES = tuple(
    f"sentence_{name}_config.json"
    for name in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
"""Names that the settings of a Transformer module have had."""

TRANSFORMER_SETTINGS = _TRANSFORMER_FILES[0]
"""The one that is written today."""


@dataclass(frozen=True, slots=True)
class ModuleEntry:
    """One line of `modules.json`: the type's last name, and the folder of its files."""

    kind: str
    full_type: str
    folder: Path


@dataclass(frozen=True, slots=True)
class DenseLayer:
    """`activation(x @ weight.T + bias)`, plus `x` (or `x @ residual.T` where sizes differ) with `residual`.

    `weights` is the safetensors file; the tensors are `linear.weight` (out_features, in_features), `linear.bias`
    (out_features,) with `bias`, and `residual.weight` (out_features, in_features). `activation` is in `ACTIVATIONS`.
    """

    in_features: int
    out_features: int
    weights: Path
    bias: bool = False
    activation: str = "Identity"
    residual: bool = False
    level: Level = "sentence"


@dataclass(frozen=True, slots=True)
class LayerNormLayer:
    """`torch.nn.LayerNorm` over `dim` values; tensors `norm.weight` and `norm.bias`, each (dim,), in `weights`."""

    dim: int
    weights: Path
    level: Level = "sentence"


@dataclass(frozen=True, slots=True)
class NormalizeLayer:
    """Division by the L2 norm."""

    level: Level = "sentence"


Layer: TypeAlias = DenseLayer | LayerNormLayer | NormalizeLayer


def read_entries(folder: Path) -> list[ModuleEntry]:
    """What `modules.json` lists, in order; an empty list where there is no such file.

    Raises:
        ModelError: the file is damaged, or leads out of the folder.
    """
    file = folder / "modules.json"
    if not file.is_file():
        return []
    listed = read_any(file)
    try:
        entries = [
            ModuleEntry(str(module["type"]).rsplit(".", 1)[-1], str(module["type"]), folder / str(module["path"]))
            for module in listed
        ]
    except (TypeError, KeyError):
        raise ModelError(f"{file} is not a list of modules") from None
    for entry in entries:
        if not entry.folder.absolute().resolve().is_relative_to(folder.resolve()):
            raise ModelError(f"{file} names the folder {entry.folder}, which is outside of the model")
    return entries


def transformer_settings_file(folder: Path) -> Path | None:
    """Whichever of the files of a Transformer module's settings is in its folder."""
    return next((folder / name for name in _TRANSFORMER_FILES if (folder / name).is_file()), None)


def read_transformer_settings(folder: Path) -> dict[str, Any]:
    """The settings of a Transformer module, from whichever of its files is there.

    Raises:
        ModelError: the file is damaged, or asks for something else than the states of a text.
    """
    file = transformer_settings_file(folder)
    settings = {} if file is None else read_object(file)
    if settings.get("transformer_task", "feature-extraction") != "feature-extraction":
        raise ModelError(f"{file} is for {settings['transformer_task']}; supported are models of feature-extraction")
    if "message" in (settings.get("modality_config") or {}):
        raise ModelError(f"{file} puts texts into a chat template, which is not supported")
    return settings


def read_layer(entry: ModuleEntry, default: Level) -> Layer:
    """A Dense, LayerNorm or Normalize module.

    Args:
        entry: its line in `modules.json`.
        default: what it works on where its file does not say.

    Raises:
        ModelError: its files are missing or damaged, or it is of another kind.
    """
    config = read_object(entry.folder / "config.json", missing_ok=True)
    level = _level(config, entry, default)
    if entry.kind == "Normalize":
        return NormalizeLayer(level)
    if entry.kind == "LayerNorm":
        return LayerNormLayer(integer(config, "dimension", entry.folder / "config.json"), _weights(entry.folder), level)
    if entry.kind == "Dense":
        return _dense(config, entry.folder, level)
    raise ModelError(f"{entry.folder} is a module of the type {entry.full_type}, which is not supported")


def read_activation(name: str | None, file: Path) -> str:
    """The activation called by a dotted torch name, as one of `ACTIVATIONS`.

    Raises:
        ModelError: it is not on that list.
    """
    short = (name or "torch.nn.Tanh").rsplit(".", 1)[-1]  # Tanh is the default of the Dense module
    if short not in ACTIVATIONS or not (name or "torch.").startswith("torch."):
        raise ModelError(f"{file} asks for the activation {name}; supported are torch.nn's {', '.join(ACTIVATIONS)}")
    return short


def _dense(config: dict[str, Any], folder: Path, level: Level) -> DenseLayer:
    file = folder / "config.json"
    layer = DenseLayer(
        in_features=integer(config, "in_features", file),
        out_features=integer(config, "out_features", file),
        weights=_weights(folder),
        bias=bool(config.get("bias", True)),
        activation=read_activation(config.get("activation_function"), file),
        residual=bool(config.get("use_residual", False)),
        level=level,
    )
    require_shape(layer)
    return layer


def require_shape(layer: DenseLayer) -> None:
    """Check that the weights are there and of the size that the configuration says.

    Raises:
        ModelError: they are not.
    """
    shapes = tensor_names(layer.weights)
    expected: dict[str, tuple[int, ...]] = {"linear.weight": (layer.out_features, layer.in_features)}
    if layer.bias:
        expected["linear.bias"] = (layer.out_features,)
    if layer.residual and layer.in_features != layer.out_features:
        expected["residual.weight"] = (layer.out_features, layer.in_features)
    for name, shape in expected.items():
        if shapes.get(name) != shape:
            raise ModelError(f"{layer.weights} should hold {name} of shape {shape}, and has {shapes.get(name)}")


def _level(config: dict[str, Any], entry: ModuleEntry, default: Level) -> Level:
    keys = ("module_input_name", "module_output_name")
    names = {str(config[key]) for key in keys if config.get(key) is not None}
    if not names:
        return default
    if names == {"token_embeddings"}:
        return "tokens"
    if names == {"sentence_embedding"}:
        return "sentence"
    raise ModelError(f"{entry.folder / 'config.json'}: a module between {' and '.join(sorted(names))} is not supported")


def _weights(folder: Path) -> Path:
    files = weight_files(folder)
    if len(files) > 1:
        raise ModelError(f"{folder} has {len(files)} files of weights; a single module has one")
    return files[0]
