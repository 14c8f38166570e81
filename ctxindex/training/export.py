"""A trained model as a folder that ctxindex and sentence-transformers open: the base's own files, with new weights.

The layout stays that of the base (Sentence-Transformers or PyLate), so whatever opened the base opens the result; a
bare transformers folder gets the two files that say how it is pooled. Trained tensors are written in float32, since
what a few hundred steps change is less than half precision tells apart. Files are put together in a folder beside the
target and moved when all are there.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctxindex.encoding.model_files import read_object, weight_files
from ctxindex.errors import ModelError

if TYPE_CHECKING:
    import torch

    from ctxindex.encoding.checkpoint import Checkpoint

_NOT_COPIED = {".bin", ".ckpt", ".h5", ".md", ".msgpack", ".onnx", ".ot", ".pt", ".pth", ".py"}
"""Weights of other formats would be those of the base, and its card speaks of another model."""

_SKIPPED_FOLDERS = {"onnx", "openvino", "training", ".git", ".cache"}

_POOLED = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
]


def write_model(
    checkpoint: Checkpoint,
    transformer: Mapping[str, torch.Tensor],
    heads: Mapping[Path, Mapping[str, torch.Tensor]],
    into: Path,
    texts: Mapping[str, str] | None = None,
) -> None:
    """Write the folder of a trained model; files that are there already are replaced.

    Args:
        checkpoint: the base.
        transformer: its trained tensors by the names of the transformers model.
        heads: those of modules behind it, by the file that they were read from and their names there.
        into: the new folder; what it holds besides stays.
        texts: further files, by name: the card, the settings.

    Raises:
        ModelError: a trained tensor has no place in the base's files, or the folder cannot be written.
    """
    partial = into / ".partial"
    try:
        shutil.rmtree(partial, ignore_errors=True)
        _copy(checkpoint.folder, partial)
        _write_transformer(checkpoint, transformer, partial)
        for file, tensors in heads.items():
            _replace(file, partial / file.relative_to(checkpoint.folder), tensors)
        if checkpoint.kind == "transformers":
            _say_pooling(checkpoint, partial)
        for name, text in (texts or {}).items():
            (partial / name).write_text(text, encoding="utf-8")
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


def _copy(folder: Path, into: Path) -> None:
    for source in sorted(folder.rglob("*")):
        place = source.relative_to(folder)
        if source.is_dir() or _SKIPPED_FOLDERS & set(place.parts) or source.suffix in _NOT_COPIED:
            continue
        (into / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, into / place)


def _write_transformer(checkpoint: Checkpoint, trained: Mapping[str, torch.Tensor], partial: Path) -> None:
    left = set(trained)
    for file in weight_files(checkpoint.backbone):
        names = _names(file, left)
        left -= set(names.values())
        target = partial / file.relative_to(checkpoint.folder)
        _replace(file, target, {name: trained[own] for name, own in names.items()})
    # What a file leaves out is made anew whenever the model is loaded (a pooler, buffers): it was not trained.
    if missing := sorted(name for name in left if not _is_made_anew(name)):
        raise ModelError(
            f"{checkpoint.backbone} has no tensor for the trained {missing[0]} and {len(missing) - 1} more"
        )
    config = partial / checkpoint.backbone.relative_to(checkpoint.folder) / "config.json"
    values: dict[str, Any] = read_object(config)
    for name in {"dtype", "torch_dtype"} & values.keys():
        values[name] = "float32"
    config.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def _names(file: Path, wanted: Iterable[str]) -> dict[str, str]:
    """The name of each wanted tensor in the file -> its name in the model, which has no prefix of its kind."""
    from safetensors import safe_open

    known = set(wanted)
    with safe_open(file, framework="pt") as tensors:
        stored = list(tensors.keys())
    found = {name: name for name in stored if name in known}
    for name in stored:
        own = name.partition(".")[2]
        if name not in found and own in known and own not in found:
            found[name] = own
    return found


def _replace(file: Path, target: Path, changed: Mapping[str, torch.Tensor]) -> None:
    """Write the safetensors `file` again with some of its tensors replaced."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    with safe_open(file, framework="pt") as held:
        metadata = held.metadata()
        tensors = {name: held.get_tensor(name) for name in held.keys()}  # noqa: SIM118  # it is no dict
    for name, tensor in changed.items():
        if tensors[name].shape != tensor.shape:
            raise ModelError(f"{name} is {tuple(tensors[name].shape)} in {file.name} and was trained otherwise")
        tensors[name] = tensor.detach().to("cpu", copy=True).float().contiguous()
    save_file(tensors, target, metadata=metadata or {"format": "pt"})


def _is_made_anew(name: str) -> bool:
    return name.startswith("pooler.") or name.endswith(("position_ids", "inv_freq"))


def _say_pooling(checkpoint: Checkpoint, partial: Path) -> None:
    """Means of tokens: what a bare transformers folder was trained for when it was trained here."""
    (partial / "modules.json").write_text(json.dumps(_POOLED, indent=2) + "\n", encoding="utf-8")
    (partial / "1_Pooling").mkdir(exist_ok=True)
    pooling = {"word_embedding_dimension": checkpoint.dim, "pooling_mode_mean_tokens": True}
    (partial / "1_Pooling" / "config.json").write_text(json.dumps(pooling, indent=2) + "\n", encoding="utf-8")
    settings = {"max_seq_length": checkpoint.max_tokens, "do_lower_case": False}
    (partial / "sentence_bert_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
