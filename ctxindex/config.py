"""Settings and where they come from: flag > CTXINDEX_* variable > ctxindex.toml > the index's stored spec > default.

`ctxindex.toml` is looked for in the current folder and upwards; `[tool.ctxindex]` in a pyproject.toml does as well.
What is relative in a file (`path`, a model folder, the folder of a store) is relative to that file, and so is the
default path where a file was found. Secrets are not settings: a store reads its API key from its vendor's own variable,
and no file of ours ever holds one.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctxindex.errors import ConfigError

DEFAULT_STORE = "lancedb"
DEFAULT_INDEX = "default"
DEFAULT_PATH = ".ctxindex"

SETTINGS: dict[str, type] = {
    "store": str,
    "url": str,
    "index": str,
    "path": str,
    "model": str,
    "method": str,
    "chunker": str,
    "chunk_size": int,
    "chunk_unit": str,
    "chunk_overlap": int,
    "max_tokens": int,
    "join": str,
    "pooling": str,
    "windows": str,
    "window_overlap": int,
    "owner": str,
    "anchor": int,
    "anchor_title": bool,
    "blend": float,
    "isolated": str,
    "dims": int,
    "force_mean": bool,
    "dtype": str,
    "pool_factor": int,
    "skiplist": str,
    "context": str,
    "context_seed": int,
    "context_sampling": str,
    "device": str,
    "threads": int,
}
"""Every setting that a variable or a file may give, and its type.

`trust_remote_code` is not among them: that code may run is said at the call, and by no file that came with a folder.
"""

_WORDS = {"max_tokens": {"model"}}
"""Words that a setting takes besides its type's values."""

_KINDS = {int: "a whole number", float: "a number", str: "text"}

_FLAGS = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


@dataclass(frozen=True, slots=True)
class Setting:
    """A value, and where it came from in words for a person; None where nobody said anything."""

    value: Any
    origin: str


class Settings:
    """The settings of one call.

    Args:
        given: values from flags or arguments; None means not given.
        environ: the process environment.
        folder: where the search for a file begins.

    Raises:
        ConfigError: a file or a variable holds something that is no setting.
    """

    def __init__(
        self, given: Mapping[str, Any], environ: Mapping[str, str] | None = None, folder: Path | None = None
    ) -> None:
        flags = {name: (value, f"--{name.replace('_', '-')}") for name, value in given.items() if value is not None}
        self._given = {name: typed(name, value, flag) for name, (value, flag) in flags.items()}
        self._environ = os.environ if environ is None else environ
        self._file, self._values = _read_file(folder or Path.cwd())

    def find(self, name: str) -> Setting:
        """The setting called `name`, from the highest place that has it."""
        variable = f"CTXINDEX_{name.upper()}"
        if name in self._given:
            return Setting(self._given[name], f"--{name.replace('_', '-')}")
        if self._environ.get(variable):
            return Setting(typed(name, self._environ[variable], variable), variable)
        if name in self._values:
            return Setting(self._from_file(name), str(self._file))
        return Setting(None, "default")

    def get(self, name: str, default: Any = None) -> Any:
        """The value of a setting, or `default` where nobody gave one."""
        value = self.find(name).value
        return default if value is None else value

    def beside_file(self, name: str) -> str:
        """`name` in the folder of the file that was found, or as it is where there is none."""
        return name if self._file is None else str(self._file.parent / name)

    def _from_file(self, name: str) -> Any:
        value = typed(name, self._values[name], str(self._file))
        if self._file is None:
            return value
        folder = self._file.parent
        if name == "path":
            return str(folder / Path(value).expanduser())
        if name == "model" and (folder / value).is_dir():
            return str(folder / value)
        store, colon, place = value.partition(":") if name == "store" else ("", "", "")
        return f"{store}:{folder / place}" if colon and place and not place.startswith("//") else value


def _read_file(folder: Path) -> tuple[Path | None, dict[str, Any]]:
    for parent in (folder, *folder.parents):
        own, project = parent / "ctxindex.toml", parent / "pyproject.toml"
        if own.is_file():
            return own, _known(_parse(own), own)
        if project.is_file() and "ctxindex" in (tool := _parse(project).get("tool", {})):
            return project, _known(tool["ctxindex"], project)
    return None, {}


def _parse(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read {file}: {error}") from None


def _known(values: Mapping[str, Any], file: Path) -> dict[str, Any]:
    named = {name.replace("-", "_"): value for name, value in values.items()}
    for name in named:
        if name not in SETTINGS:
            raise ConfigError(f"{file}: there is no setting {name}; settings are {', '.join(SETTINGS)}")
    return named


def typed(name: str, value: Any, origin: str) -> Any:
    """`value` as the type of the setting `name`; raises ConfigError, which names `origin`, where it is none."""
    kind = SETTINGS[name]
    if kind is bool:
        return _flag(name, value, origin)
    if isinstance(value, str) and value in _WORDS.get(name, set()):
        return value
    wanted = _KINDS[kind]
    if isinstance(value, bool) or (kind is str and not isinstance(value, str)):
        raise ConfigError(f"{origin}: {name} must be {wanted}, not {value!r}")
    try:
        return kind(value)
    except (TypeError, ValueError):
        raise ConfigError(f"{origin}: {name} must be {wanted}, not {value!r}") from None


def _flag(name: str, value: Any, origin: str) -> bool:
    flag = value if isinstance(value, bool) else _FLAGS.get(str(value).lower())
    if flag is None:
        raise ConfigError(f"{origin}: {name} must be true or false, not {value!r}")
    return flag
