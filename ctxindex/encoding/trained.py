"""What a trained model says of itself: how its vectors are to be made, in `ctxindex.json` of its folder.

    {"format": 1, "method": "late", "anchor": 64, "blend": 0.3}

A model that was tuned to be read in one way is best read in that way: the file gives the defaults of its method. What a
user chooses goes first, and with another method than that of the file nothing of it counts but the method's name. Here
the file is read, checked for what can be seen without the model, and written; `options` puts the defaults in.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ctxindex.encoding.model_files import read_object
from ctxindex.errors import ModelError
from ctxindex.spec import (
    ISOLATED,
    JOINS,
    METHODS,
    OWNERS,
    POOLINGS,
    WINDOWS,
    ChunkPooling,
    Isolated,
    Join,
    Method,
    Owner,
    Windows,
)

FILE = "ctxindex.json"
FORMAT = 1


@dataclass(frozen=True, slots=True)
class TrainedSettings:
    """What a model was trained for: a method, and options of `EncoderOptions` by their names; None says nothing.

    The order of the fields is that in which defaults are put in: what others depend on comes first.
    """

    method: Method
    join: Join | None = None
    max_tokens: int | Literal["model"] | None = None
    dims: int | None = None
    windows: Windows | None = None
    owner: Owner | None = None
    window_overlap: int | None = None
    pooling: ChunkPooling | None = None
    anchor: int | None = None
    anchor_title: bool | None = None
    blend: float | None = None
    isolated: Isolated | None = None
    pool_factor: int | None = None
    skiplist: Literal["none", "model"] | None = None

    @property
    def options(self) -> dict[str, Any]:
        """The options that the model says, by name."""
        return {name: value for name, value in asdict(self).items() if name != "method" and value is not None}


def read_settings(folder: Path) -> TrainedSettings | None:
    """What the model in `folder` says of itself; None where it says nothing.

    Raises:
        ModelError: the file cannot be read, has another format, or a field that is unknown or no good.
    """
    file = folder / FILE
    if not file.exists():
        return None
    return _checked(read_object(file), file)


def write_settings(folder: Path, settings: TrainedSettings) -> Path:
    """Write what the model in `folder` says of itself, in place of what it said; gives the file.

    Raises:
        ModelError: a setting is no good, or nothing can be written there.
    """
    file = folder / FILE
    values = {"format": FORMAT, "method": settings.method, **settings.options}
    _checked(values, file)
    try:
        file.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise ModelError(f"cannot write {file}: {error.strerror}") from None
    return file


def _checked(values: dict[str, Any], file: Path) -> TrainedSettings:
    said = values.get("format")
    if type(said) is not int or said != FORMAT:
        raise ModelError(f"{file}: format is {said!r}, and this ctxindex reads {FORMAT}: upgrade ctxindex")
    method = values.get("method")
    if method not in METHODS:
        raise ModelError(f"{file}: method is {method!r}, and must be one of {', '.join(METHODS)}")
    found: dict[str, Any] = {}
    for name, value in values.items():
        if name in ("format", "method"):
            continue
        if name not in _FIELDS:
            raise ModelError(f"{file}: there is no field {name}; fields are format, method, {', '.join(_FIELDS)}")
        (fits, wanted), methods = _FIELDS[name]
        if method not in methods:
            raise ModelError(f"{file}: {name} goes with {' or '.join(methods)}, and method is {method}")
        if not fits(value):
            raise ModelError(f"{file}: {name} is {value!r}, and must be {wanted}")
        found[name] = float(value) if name == "blend" else value
    return TrainedSettings(method, **found)


_Rule = tuple[Callable[[Any], bool], str]
"""Whether a value of a JSON file will do, and in words what would."""


def _whole(least: int) -> _Rule:
    return lambda value: type(value) is int and value >= least, f"a whole number, {least} or more"


def _one_of(known: Collection[str]) -> _Rule:
    return lambda value: isinstance(value, str) and value in known, f"one of {', '.join(known)}"


def _is_share(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < 1


def _is_window(value: Any) -> bool:
    return value == "model" or (type(value) is int and value > 0)


_IN_CONTEXT: tuple[Method, ...] = ("late", "late-interaction", "cde")
_ONE_VECTOR: tuple[Method, ...] = ("late", "independent", "cde")
_MULTIVECTOR: tuple[Method, ...] = ("late-interaction",)

_FIELDS: dict[str, tuple[_Rule, tuple[Method, ...]]] = {
    "max_tokens": ((_is_window, 'a whole number above 0, or "model"'), METHODS),
    "dims": (_whole(1), _ONE_VECTOR),
    "join": (_one_of(JOINS), _IN_CONTEXT),
    "windows": (_one_of(WINDOWS), _IN_CONTEXT),
    "owner": (_one_of(OWNERS), _IN_CONTEXT),
    "window_overlap": (_whole(0), _IN_CONTEXT),
    "pooling": (_one_of(POOLINGS), _IN_CONTEXT),
    "anchor": (_whole(0), _IN_CONTEXT),
    "anchor_title": ((lambda value: isinstance(value, bool), "true or false"), _IN_CONTEXT),
    "blend": ((_is_share, "a number, at least 0 and less than 1"), _IN_CONTEXT),
    "isolated": (_one_of(ISOLATED), _IN_CONTEXT),
    "pool_factor": (_whole(1), _MULTIVECTOR),
    "skiplist": (_one_of(("none", "model")), _MULTIVECTOR),
}
"""The options that a file may hold: what will do, and the methods that they go with."""
