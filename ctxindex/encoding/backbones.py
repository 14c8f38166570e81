"""What the transformer of a model folder can read, from its config.json: which kind, its size, its window. No torch.

Only kinds that transformers itself implements are read by name. A model that brings code of its own (`auto_map` in its
config.json) runs that code in this process, which happens only with --trust-remote-code.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctxindex.encoding.model_files import integer, read_object
from ctxindex.errors import ModelError

BACKBONES = {
    "bert": "BERT",
    "roberta": "RoBERTa",
    "xlm-roberta": "XLM-RoBERTa",
    "camembert": "CamemBERT",
    "mpnet": "MPNet",
    "distilbert": "DistilBERT",
    "modernbert": "ModernBERT",
    "nomic_bert": "NomicBERT",
    "eurobert": "EuroBERT",
    "qwen3": "Qwen3",
}
"""`model_type` -> the name people know it by; all have native classes in transformers 5."""

_OFFSET_POSITIONS = {"roberta", "xlm-roberta", "camembert", "mpnet"}
"""Backbones whose position table starts after the padding index, so that it holds fewer positions than it has rows."""

_ABSOLUTE = _OFFSET_POSITIONS | {"bert", "distilbert"}
_CAUSAL = {"qwen3"}

_PACKABLE = {"bert", "roberta", "xlm-roberta", "camembert", "distilbert", "modernbert", "nomic_bert", "eurobert"}
"""Backbones whose attention can be replaced, and is all that looks from one token to another."""
_PADDING = 1
"""Id of the padding in a RoBERTa-like model whose config does not say."""


@dataclass(frozen=True, slots=True)
class BackboneFacts:
    """A transformer: `hidden` is the size of a state, `max_tokens` the most positions it was made for.

    `rotary` positions can be read beyond that length, absolute ones cannot. `causal` means that a token sees only what
    stands before it. `remote` means that the class comes with the model's own code. `packable` rows can lie behind each
    other without padding. Where positions begin behind that of a padding token, `padding` is its id.
    """

    kind: str
    hidden: int
    layers: int
    max_tokens: int
    rotary: bool
    causal: bool
    remote: bool = False
    packable: bool = False
    padding: int | None = None

    @property
    def name(self) -> str:
        """The kind as people call it."""
        return BACKBONES.get(self.kind, self.kind)


def read_backbone(folder: Path, *, trust_remote_code: bool = False) -> BackboneFacts:
    """The facts in `folder`/config.json.

    Raises:
        ModelError: it cannot be read, is of an unknown kind, or needs code that the user has not said may run.
    """
    file = folder / "config.json"
    config = read_object(file)
    kind = str(config.get("model_type"))
    old_nomic = kind == "nomic_bert" and "hidden_size" not in config  # its native class reads other names
    native = kind in BACKBONES and not old_nomic
    if not native:
        _require_trust(file, kind, config, trust_remote_code)
    return BackboneFacts(
        kind=kind,
        hidden=hidden_size(config, file),
        layers=_first(config, file, "num_hidden_layers", "n_layers", "n_layer"),
        max_tokens=_positions(config, kind, file),
        rotary=native and kind not in _ABSOLUTE,
        causal=kind in _CAUSAL and config.get("is_causal", True) is not False,
        remote=not native,
        packable=native and (kind in _PACKABLE or _looks_everywhere(config, kind)),
        padding=_padding(config) if kind in _OFFSET_POSITIONS else None,
    )


def _looks_everywhere(config: dict[str, Any], kind: str) -> bool:
    """Whether a decoder was made an encoder, every token of which sees the whole text: no mask is left to be kept."""
    local = config.get("use_sliding_window") or "sliding_attention" in (config.get("layer_types") or ())
    return kind in _CAUSAL and config.get("is_causal", True) is False and not local


def hidden_size(config: dict[str, Any], file: Path) -> int:
    """Numbers of a token's state.

    Raises:
        ModelError: the configuration, read from `file`, does not say.
    """
    return _first(config, file, "hidden_size", "dim", "n_embd")


def _require_trust(file: Path, kind: str, config: dict[str, Any], trusted: bool) -> None:
    if not config.get("auto_map"):
        raise ModelError(f"{file} is of the type {kind}; supported are {', '.join(BACKBONES.values())}")
    if not trusted:
        raise ModelError(
            f"{file} is of the type {kind}, which runs code from the model's own folder: read that code, "
            "then pass --trust-remote-code (in Python: trust_remote_code=True) to let it run"
        )


def _positions(config: dict[str, Any], kind: str, file: Path) -> int:
    rows = _first(config, file, "max_position_embeddings", "n_positions")
    if kind not in _OFFSET_POSITIONS:
        return rows
    return rows - _padding(config) - 1


def _padding(config: dict[str, Any]) -> int:
    padding = config.get("pad_token_id")
    return _PADDING if padding is None else int(padding)


def _first(config: dict[str, Any], file: Path, *names: str) -> int:
    return integer(config, next((name for name in names if name in config), names[0]), file)
