"""Reading the files of a model folder: JSON with errors that name the file, and sums of the weights. No torch."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from ctxindex.errors import ModelError

_WEIGHTS = "model.safetensors"

OTHER_WEIGHTS = frozenset({".bin", ".ckpt", ".h5", ".msgpack", ".onnx", ".ot", ".pt", ".pth"})
"""How the names of weights in other formats than safetensors end."""


def read_object(file: Path, *, missing_ok: bool = False) -> dict[str, Any]:
    """The JSON object in `file`; an empty one where it does not exist and `missing_ok`.

    Raises:
        ModelError: the file cannot be read, or holds something else.
    """
    if missing_ok and not file.is_file():
        return {}
    values = read_any(file)
    if not isinstance(values, dict):
        raise ModelError(f"{file} does not hold a JSON object")
    return values


def read_any(file: Path) -> Any:
    """The JSON value in `file`.

    Raises:
        ModelError: the file cannot be read.
    """
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read {file}: {error}") from None


def integer(values: dict[str, Any], key: str, file: Path) -> int:
    """The whole number called `key` in `values`, which were read from `file`.

    Raises:
        ModelError: there is none.
    """
    value = values.get(key)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ModelError(f"{file} does not say {key}")
    return value


def sha256(file: Path) -> str:
    """The sha256 of a file, hex; about 0.2 s for 90 MB, and once only as long as the file stays as it is.

    Raises:
        OSError: it cannot be read.
    """
    state = file.stat()
    return _sha256(file, state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)


@lru_cache(maxsize=64)
def _sha256(file: Path, *_state: int) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that hold the weights in `folder`: those that transformers would load, by name.

    That is `model.safetensors`, else the shards that its index names, else whatever there is. Other precisions of the
    same weights, which hubs keep beside them (`model.fp16.safetensors`), are never among them.

    Raises:
        ModelError: there are none; a folder with weights in another format is told so.
    """
    if (single := folder / _WEIGHTS).is_file():
        return [single]
    if (index := folder / f"{_WEIGHTS}.index.json").is_file():
        return _shards(index)
    if files := sorted(folder.glob("*.safetensors")):
        return files
    others = [file.name for pattern in ("*.bin", "*.pt", "*.onnx") for file in folder.glob(pattern)]
    has = f"it has {', '.join(sorted(others))}" if others else "it has no weights"
    raise ModelError(
        f"{folder} has no *.safetensors weights ({has}); ctxindex loads no other format: "
        "save the model again with save_pretrained, which writes safetensors"
    )


def _shards(index: Path) -> list[Path]:
    places = read_object(index).get("weight_map")
    names = sorted({str(name) for name in places.values()}) if isinstance(places, dict) else []
    files = [index.parent / name for name in names]
    if not files or not all(file.is_file() for file in files):
        missing = next((name for name, file in zip(names, files, strict=True) if not file.is_file()), None)
        raise ModelError(
            f"{index} names {'no file' if missing is None else missing + ', which is not there'}: copy all files of "
            "the model"
        )
    return files


def read_header(file: Path) -> tuple[dict[str, Any], int]:
    """The header of a safetensors file, and at which byte the data behind it begin.

    Raises:
        ModelError: it is no safetensors file.
    """
    try:
        with file.open("rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(size) if size < _LARGEST_HEADER else b"")
        tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
        if all({"dtype", "shape", "data_offsets"} <= entry.keys() for entry in tensors.values()):
            return header, 8 + size
    except (OSError, ValueError, AttributeError):
        pass
    raise ModelError(f"{file} is not a safetensors file: it is damaged, or a pointer of git-lfs")


def tensor_names(file: Path) -> dict[str, tuple[int, ...]]:
    """Name -> shape of the tensors in a safetensors file, from its header alone.

    Raises:
        ModelError: it is no safetensors file.
    """
    return {name: tuple(entry["shape"]) for name, entry in read_header(file)[0].items() if name != "__metadata__"}


_LARGEST_HEADER = 100_000_000
"""The most bytes of a header, as in the safetensors library; more is no header."""
