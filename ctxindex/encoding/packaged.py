"""The model that comes inside this package: as its difference from MiniLM, made whole in the user's cache.

A folder in the cache is called after the difference and the settings it was made of, so a new release never meets an
old one. Its weights are checked on every opening against the sha256 that the difference knows, and what is damaged is
made anew. Such a folder takes 90 MB and may be deleted at any time.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ctxindex.encoding.difference import apply_difference, read_facts
from ctxindex.encoding.model_files import sha256
from ctxindex.encoding.modules import TRANSFORMER_SETTINGS
from ctxindex.encoding.runtime import cache_folder
from ctxindex.encoding.trained import FILE as SETTINGS_FILE
from ctxindex.errors import ModelError

FOLDER = Path(__file__).parents[1] / "models" / "minilm_insent"
"""Where the package keeps the difference, the settings and the card."""

DIFFERENCE = "difference.safetensors"

_NEEDED = (
    "config.json",
    "modules.json",
    "1_Pooling/config.json",
    "tokenizer.json",
    TRANSFORMER_SETTINGS,
    SETTINGS_FILE,
)
"""Files without which a folder would be read as another model, or not at all."""


def is_shipped() -> bool:
    """Whether this installation has the model; no more than a look at the disk."""
    return (FOLDER / DIFFERENCE).is_file() and (FOLDER / SETTINGS_FILE).is_file()


def model_folder(name: str, base: Callable[[], Path], *, instead: str, hint: str) -> Path:
    """The complete folder of the model, made where it is not there or not whole.

    Args:
        name: What the model is called.
        base: Finds the folder of the base model; called where the model has to be made.
        instead: The model to propose to a user whose installation has no such model.
        hint: What to do about a base that is another model.

    Raises:
        ModelError: this installation has no such model, the base is another one, or the cache cannot be written.
    """
    if not is_shipped():
        raise ModelError(
            f"this installation of ctxindex lacks the model {name} ({DIFFERENCE} and {SETTINGS_FILE} in {FOLDER}): "
            f"reinstall ctxindex, or use --model {instead}"
        )
    difference = FOLDER / DIFFERENCE
    said = "".join(
        sha256(FOLDER / name)[:8] for name in (SETTINGS_FILE, TRANSFORMER_SETTINGS) if (FOLDER / name).is_file()
    )
    made_of = f"{sha256(difference)[:16]}-{said}"
    try:
        folder = cache_folder() / "models" / f"{name}-{made_of}"
    except RuntimeError:
        raise ModelError(
            f"there is no home folder to keep the model {name} in: set XDG_CACHE_HOME to a folder that can be written"
        ) from None
    if not _is_whole(folder, read_facts(difference).weights_sha256):
        try:
            apply_difference(base(), difference, folder, hint=hint)
        except OSError as error:
            raise ModelError(
                f"cannot keep the model {name} in {folder.parent} ({error.strerror or error}): "
                "set XDG_CACHE_HOME to a folder that can be written and has 100 MB left"
            ) from None
    return folder


def _is_whole(folder: Path, expected: str) -> bool:
    weights = sorted(folder.rglob("*.safetensors"))
    try:
        return (
            all((folder / name).is_file() for name in _NEEDED) and len(weights) == 1 and sha256(weights[0]) == expected
        )
    except OSError:
        return False
