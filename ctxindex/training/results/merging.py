"""Merging weights: a model between the one that was tuned and the one it was tuned from.

    merged = (1 - share) base + share tuned

Training for context costs some of what a model knew before; a merged model has most of both. Computed in float32 and
stored in the base's dtype. What training did not change stays what it is to the last bit.
Source: "Robust fine-tuning of zero-shot models", arXiv 2109.01903 (the interpolation of weights); that it
may help a model tuned with InSeNT is a suggestion in arXiv 2505.24782.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ctxindex.encoding.cde.settings import TENSORS
from ctxindex.encoding.model_files import OTHER_WEIGHTS, weight_files
from ctxindex.errors import ConfigError, ModelError

if TYPE_CHECKING:
    import torch

_SAFETENSORS = ".safetensors"
_NAMED = 3
"""How many tensors a message names."""


def merge_states(
    base: Mapping[str, torch.Tensor], tuned: Mapping[str, torch.Tensor], share: float
) -> dict[str, torch.Tensor]:
    """Merge two state dicts of one architecture.

    Args:
        base: The weights before training.
        tuned: The weights after it: the same names, shapes and dtypes.
        share: What the tuned weights count, 0 to 1.

    Returns:
        New tensors by the same names, in the order, the dtypes and on the devices of the base.

    Raises:
        ConfigError: a share out of its range.
        ModelError: names, shapes or dtypes differ, or tensors of whole numbers do.
    """
    if not 0 <= share <= 1:
        raise ConfigError(f"the share of the tuned weights, {share}, must be 0 to 1")
    _require_same_names(base, tuned)
    return {name: _merged(name, tensor, tuned[name], share) for name, tensor in base.items()}


def merge_folders(base: Path, tuned: Path, share: float, into: Path) -> None:
    """Merge the weights of two model folders into a third, which gets all other files from the tuned one.

    The folders may have their weights in different files: tensors are found by the subfolder they lie in (the modules
    of Sentence-Transformers have one each) and their name. Weights in other formats than safetensors are not copied,
    and neither are those of another precision beside what is loaded (`model.fp16.safetensors`), since they would be
    those of the tuned model. `into` appears complete, or not at all.

    Raises:
        ConfigError: a share out of its range.
        ModelError: `into` is there already; a folder has no safetensors, or damaged ones; see also `merge_states`.
    """
    from safetensors import SafetensorError

    if into.exists():
        raise ModelError(f"{into} is there already: merge into a new folder")
    olds, news = _tensors_of(base), _tensors_of(tuned)
    _require_same_names(olds, news)
    weights = _weights_of(tuned)
    left = OTHER_WEIGHTS | {_SAFETENSORS}
    copied = [file for file in tuned.rglob("*") if file.is_file() and file.suffix not in left]
    partial = into.with_name(f"{into.name}.{uuid.uuid4().hex}.tmp")
    try:
        for source in sorted([*copied, *weights]):
            target = partial / source.relative_to(tuned)
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.suffix == _SAFETENSORS:
                _merge_file(source, target, _prefix(source, tuned), olds, share)
            else:
                shutil.copyfile(source, target)
        partial.rename(into)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"cannot write {into}: {error}") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _merged(name: str, base: torch.Tensor, tuned: torch.Tensor, share: float) -> torch.Tensor:
    import torch

    if base.shape != tuned.shape or base.dtype != tuned.dtype:
        raise ModelError(
            f"{name} is {_kind(base)} in the base model and {_kind(tuned)} in the tuned one: "
            "only a model and what was tuned from it can be merged"
        )
    tuned = tuned.detach().to(base.device)
    base = base.detach()
    if not base.is_floating_point():
        if not torch.equal(base, tuned):
            raise ModelError(f"{name} holds whole numbers, and not the same in both models: it cannot be merged")
        return base.clone()
    wide = torch.promote_types(base.dtype, torch.float32)
    between = torch.lerp(base.to(wide), tuned.to(wide), share).to(base.dtype)
    # Between two infinities (masks that a model keeps among its buffers) lies no number.
    return torch.where(base == tuned, base, between)


def _kind(tensor: torch.Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def _require_same_names(base: Mapping[str, object], tuned: Mapping[str, object]) -> None:
    for one, other, which in ((base, tuned, "base"), (tuned, base, "tuned")):
        alone = [name for name in one if name not in other]
        if alone:
            more = f" and {len(alone) - _NAMED} more" if len(alone) > _NAMED else ""
            raise ModelError(
                f"only the {which} model has {', '.join(alone[:_NAMED])}{more}: "
                "only a model and what was tuned from it can be merged"
            )


def _tensors_of(folder: Path) -> dict[str, Path]:
    """Each tensor's name, after that of its subfolder, and the file it lies in."""
    from safetensors import SafetensorError, safe_open

    found: dict[str, Path] = {}
    for file in _weights_of(folder):
        try:
            with safe_open(file, framework="pt") as tensors:
                names = list(tensors.keys())
        except (OSError, SafetensorError) as error:
            raise ModelError(f"cannot read {file}: {error}") from None
        for name in names:
            if (full := _prefix(file, folder) + name) in found:
                raise ModelError(f"{folder} has {full} twice, in {found[full].name} and in {file.name}")
            found[full] = file
    return found


def _weights_of(folder: Path) -> list[Path]:
    """The files of the weights that are loaded from a folder and those below it."""
    places = sorted({file.parent for file in folder.rglob(f"*{_SAFETENSORS}")}) or [folder]
    own = {place / TENSORS for place in places if (place / TENSORS).is_file()}  # a CDE model's, beside the others
    return sorted(own.union(*map(weight_files, places)))


def _prefix(file: Path, folder: Path) -> str:
    inside = file.parent.relative_to(folder).as_posix()
    return "" if inside == "." else f"{inside}/"


def _merge_file(file: Path, target: Path, prefix: str, olds: Mapping[str, Path], share: float) -> None:
    """Write the file that has the tensors of `file`, merged, and its metadata, without which nobody could load it."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    with safe_open(file, framework="pt") as tensors:
        names, metadata = list(tensors.keys()), tensors.metadata()
        tuned = {prefix + name: tensors.get_tensor(name) for name in names}
    base: dict[str, torch.Tensor] = {}
    for source in {olds[name] for name in tuned}:
        with safe_open(source, framework="pt") as tensors:
            base |= {name: tensors.get_tensor(name[len(prefix) :]) for name in tuned if olds[name] == source}
    merged = merge_states(base, tuned, share)
    save_file({name[len(prefix) :]: tensor.contiguous() for name, tensor in merged.items()}, target, metadata=metadata)
