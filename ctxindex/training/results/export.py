"""A trained model as a folder that ctxindex and sentence-transformers open: the base's own files, with new weights.

The layout stays that of the base (Sentence-Transformers or PyLate), so whatever opened the base opens the result. What
was trained as means is written as means: a bare transformers folder gets the two files that say how it is pooled, and
a model that pooled otherwise and was forced says "mean" from now on. Trained tensors are written in float32, since
what a few hundred steps change is less than half precision tells apart. They stand under the names that they have in
the base's files; where transformers has names of its own for them (it renames some when it loads them), all stand under
these in one file. Files are put together in a folder beside the target and moved when all are there.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctxindex.encoding.model_files import read_object, weight_files
from ctxindex.encoding.modules import TRANSFORMER_SETTINGS, read_entries
from ctxindex.errors import ModelError

if TYPE_CHECKING:
    import torch

    from ctxindex.encoding.checkpoint import Checkpoint

    State = Mapping[str, torch.Tensor]
    Heads = Mapping[Path, Mapping[str, torch.Tensor]]

_WEIGHTS = "model.safetensors"
_NOT_COPIED = {".bin", ".ckpt", ".h5", ".md", ".msgpack", ".onnx", ".ot", ".pt", ".pth"}
"""Weights of other formats would be those of the base, and its card speaks of another model."""

_SKIPPED_FOLDERS = {"onnx", "openvino", "training", ".git", ".cache"}

_RENAMED = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}
"""How names in old files end, and in transformers."""

_POOLED = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
]


def write_model(
    checkpoint: Checkpoint, transformer: State, heads: Heads, into: Path, *, force_mean: bool = False
) -> None:
    """Write the folder of a trained model; files that are there already are replaced.

    Args:
        checkpoint: the base.
        transformer: its trained tensors by the names of the transformers model.
        heads: those of modules behind it, by the file that they were read from and their names there.
        into: the new folder; what it holds besides stays.
        force_mean: whether means were trained of a model that pools otherwise, or does not say how.

    Raises:
        ModelError: a trained tensor is not as the base's files have it, or the folder cannot be written.
    """
    partial = into / ".partial"
    try:
        shutil.rmtree(partial, ignore_errors=True)
        _copy(checkpoint, partial)
        _write_weights(checkpoint, transformer, heads, partial)
        _say_float32(partial / checkpoint.backbone.relative_to(checkpoint.folder) / "config.json")
        if checkpoint.kind == "transformers":
            _say_pooling(checkpoint, partial)
        elif force_mean:
            _say_mean(checkpoint, partial)
        for source in sorted(partial.rglob("*")):
            target = into / source.relative_to(partial)
            if source.is_dir():
                target.mkdir(parents=True, exist_ok=True)
            else:
                source.replace(target)
    except OSError as error:
        raise ModelError(f"cannot write {into}: {error}") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _copy(checkpoint: Checkpoint, into: Path) -> None:
    """All but weights; code only where the model cannot be read without."""
    left = _NOT_COPIED if checkpoint.facts.remote else _NOT_COPIED | {".py"}
    # Those of another precision are left out as well: they would be the base's.
    written = set(checkpoint.backbone.glob("*.safetensors"))
    for source in sorted(checkpoint.folder.rglob("*")):
        place = source.relative_to(checkpoint.folder)
        if source.is_dir() or _SKIPPED_FOLDERS & set(place.parts) or source.suffix in left or source in written:
            continue
        (into / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, into / place)


def _write_weights(checkpoint: Checkpoint, transformer: State, heads: Heads, partial: Path) -> None:
    changed: dict[Path, dict[str, Any]] = {file: dict(tensors) for file, tensors in heads.items()}
    left = set(transformer)
    own = {}
    for file in weight_files(checkpoint.backbone):
        own[file] = _names(file, left)
        left -= set(own[file].values())
    # What a file leaves out is made anew whenever the model is loaded (a pooler, buffers): it was not trained.
    if any(not is_made_anew(name) for name in left):
        kept = set().union(*(names.values() for names in own.values()))
        _write_by_own_names(checkpoint, transformer, kept, changed, partial)
    else:
        for file, names in own.items():
            changed[file] = {name: transformer[one] for name, one in names.items()} | changed.get(file, {})
    for file, tensors in changed.items():
        _replace(file, partial / file.relative_to(checkpoint.folder), tensors)


def _write_by_own_names(
    checkpoint: Checkpoint, transformer: State, kept: set[str], changed: dict[Path, dict[str, Any]], partial: Path
) -> None:
    """All of the transformer in one file, by the names that transformers has for its tensors."""
    from safetensors.torch import save_file

    tensors = {name: _stored(tensor) for name, tensor in transformer.items() if name in kept or not is_made_anew(name)}
    for file in weight_files(checkpoint.backbone):
        tensors |= {name: _stored(tensor) for name, tensor in changed.pop(file, {}).items()}
    folder = partial / checkpoint.backbone.relative_to(checkpoint.folder)
    for index in folder.glob("*.safetensors.index.json"):
        index.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / _WEIGHTS, metadata={"format": "pt"})


def _names(file: Path, wanted: Iterable[str]) -> dict[str, str]:
    """The name of each wanted tensor in the file -> its name in the model, which has no prefix of its kind."""
    from safetensors import safe_open

    known = set(wanted)
    with safe_open(file, framework="pt") as tensors:
        stored = list(tensors.keys())
    found = {name: name for name in stored if name in known}
    taken = set(found.values())
    for name in stored:
        renamed = _renamed(name)
        for own in (renamed, renamed.partition(".")[2]):
            if name not in found and own in known and own not in taken:
                found[name] = own
                taken.add(own)
    return found


def _renamed(name: str) -> str:
    """What transformers calls a tensor of that name in a file."""
    ending = next((old for old in _RENAMED if name.endswith(old)), None)
    return name if ending is None else name.removesuffix(ending) + _RENAMED[ending]


def _replace(file: Path, target: Path, changed: State) -> None:
    """Write the safetensors `file` to `target`, with some of its tensors replaced."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    with safe_open(file, framework="pt") as held:
        metadata = held.metadata()
        tensors = {name: held.get_tensor(name) for name in held.keys()}  # noqa: SIM118  # it is no dict
    for name, tensor in changed.items():
        if tensors[name].shape != tensor.shape:
            raise ModelError(f"{name} is {tuple(tensors[name].shape)} in {file.name} and was trained otherwise")
        tensors[name] = _stored(tensor)
    target.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, target, metadata=metadata or {"format": "pt"})


def _stored(tensor: torch.Tensor) -> torch.Tensor:
    kept = tensor.detach().to("cpu", copy=True).contiguous()
    return kept.float() if kept.is_floating_point() else kept


def is_made_anew(name: str) -> bool:
    """Whether transformers makes a tensor of that name itself where a file leaves it out; no token state needs it."""
    return name.startswith("pooler.") or name.endswith(("position_ids", "inv_freq"))


def _say_float32(config: Path) -> None:
    values: dict[str, Any] = read_object(config)
    for name in {"dtype", "torch_dtype"} & values.keys():
        values[name] = "float32"
    config.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def _say_pooling(checkpoint: Checkpoint, partial: Path) -> None:
    """Means of tokens: what a bare transformers folder was trained for when it was trained here."""
    (partial / "modules.json").write_text(json.dumps(_POOLED, indent=2) + "\n", encoding="utf-8")
    (partial / "1_Pooling").mkdir(exist_ok=True)
    pooling = {"word_embedding_dimension": checkpoint.dim, "pooling_mode_mean_tokens": True}
    (partial / "1_Pooling" / "config.json").write_text(json.dumps(pooling, indent=2) + "\n", encoding="utf-8")
    settings = {"max_seq_length": checkpoint.max_tokens, "do_lower_case": False}
    (partial / TRANSFORMER_SETTINGS).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def _say_mean(checkpoint: Checkpoint, partial: Path) -> None:
    """Means of all tokens, in place of what the base's pooling says."""
    (entry,) = (one for one in read_entries(checkpoint.folder) if one.kind == "Pooling")
    file = partial / entry.folder.relative_to(checkpoint.folder) / "config.json"
    values = read_object(file)
    flags = [name for name in values if name.startswith("pooling_mode_")]
    values |= {name: name == "pooling_mode_mean_tokens" for name in flags}
    # Releases of sentence-transformers have one word for it, those before had a flag for each.
    values |= {"pooling_mode": "mean"} if "pooling_mode" in values or not flags else {"pooling_mode_mean_tokens": True}
    values |= {"include_prompt": True}
    file.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
