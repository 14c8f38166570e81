"""Tables of a hub dataset: which files hold which configuration and split, and the rows in them.

A dataset's README may say so in its front matter; otherwise the names of folders and files do:
`documents/test-00000-of-00001.parquet`, `data/queries_test.jsonl`. Knows parquet and JSONL; not what the rows mean.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final, TypeAlias

from ctxindex.evaluation.dataset import DatasetError
from ctxindex.evaluation.datasets.rows import JSONL, Row, read_jsonl

Splits: TypeAlias = Mapping[str, Sequence[Path]]
"""The files of each split of a configuration."""

SPLITS: Final = ("test", "validation", "val", "dev", "train")
"""Names of splits; the first that is there is evaluated on."""

_UNNAMED: Final = "train"
"""The split of files that name none, on the hub and here."""

_DEPTH: Final = 3
_NO_NAMES: Final = re.compile(r"data|of|part|\d+")
_FRONT_MATTER: Final = re.compile(r"\A\ufeff?---\s*\n(.*?)\n---\s*(\n|\Z)", re.DOTALL)


def find_tables(
    folder: Path, names: Sequence[str], leave_out: Callable[[Path], bool] = lambda folder: False
) -> dict[str, Splits]:
    """The splits of each of the configurations `names` that the folder has; parquet where it has JSONL as well.

    Args:
        folder: where to look, some folders down.
        names: of the configurations.
        leave_out: says of a folder inside of it that it is something else.

    Raises:
        DatasetError: the front matter of the README can't be read.
    """
    files = sorted(_data_files(folder, leave_out))
    said = _said(folder, files)
    named = _named(files, names)
    found = {name: said.get(name) or named.get(name, {}) for name in names}
    return {
        name: {split: [folder / file for file in _of_one_kind(own)] for split, own in splits.items()}
        for name, splits in found.items()
        if splits
    }


def read_table(files: Sequence[Path], columns: Sequence[str]) -> Iterator[Row]:
    """The rows of files that continue one another, numbered through all of them from 1; of `columns`, those there are.

    Raises:
        DatasetError: a file can't be read.
    """
    number = 0
    for file in files:
        for row in read_parquet(file, columns) if file.suffix == ".parquet" else read_jsonl(file):
            number += 1
            yield replace(row, number=number)


def read_parquet(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    """The rows of a parquet file; of `columns`, those that it has.

    Raises:
        DatasetError: the file can't be read.
    """
    import pyarrow as pa  # type: ignore[import-untyped]
    from pyarrow import parquet

    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            present = [name for name in columns if name in file.schema_arrow.names]
            for batch in file.iter_batches(columns=present):
                for values in batch.to_pylist():
                    number += 1
                    yield Row(values, f"{path}, row {number}", number)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = str(error).strip().split("\n")[0]
        raise DatasetError(f"{path}: broken parquet file: {reason}") from None


def _data_files(folder: Path, leave_out: Callable[[Path], bool]) -> Iterator[str]:
    """The paths of parquet and JSONL files inside the folder; not far down, so that any folder may be looked into."""
    for place, folders, files in os.walk(folder):
        inside = os.path.relpath(place, folder)
        depth = 0 if inside == "." else inside.count(os.sep) + 1
        seen = [name for name in folders if not name.startswith(".")] if depth < _DEPTH else []
        folders[:] = [name for name in seen if not leave_out(Path(place, name))]
        for name in files:
            data = name.endswith((".parquet", *JSONL)) and not name.startswith(".")
            if data and os.path.isfile(os.path.join(place, name)):  # neither a FIFO nor a link to nowhere
                yield name if inside == "." else f"{inside.replace(os.sep, '/')}/{name}"


def _of_one_kind(files: Sequence[str]) -> Sequence[str]:
    """The files in parquet, if any are: JSONL beside it is the same once more."""
    return [file for file in files if file.endswith(".parquet")] or files


def _named(files: Sequence[str], names: Sequence[str]) -> dict[str, dict[str, list[str]]]:
    """What the names of folders and files say. A file whose name says anything more belongs to something else."""
    found: dict[str, dict[str, list[str]]] = {}
    for file in files:
        stem = file.removesuffix(".gz").rpartition(".")[0]
        words = {word for word in re.split(r"[/\-_.]", stem) if not _NO_NAMES.fullmatch(word)}
        own = [name for name in names if name in words]
        splits = [split for split in SPLITS if split in words]
        if len(own) == 1 and len(splits) <= 1 and words == {*own, *splits}:
            split = splits[0] if splits else _UNNAMED
            found.setdefault(own[0], {}).setdefault(split, []).append(file)
    return found


def _said(folder: Path, files: Sequence[str]) -> dict[str, dict[str, list[str]]]:
    """What the README says, as far as the files that it names are there."""
    found: dict[str, dict[str, list[str]]] = {}
    for entry in _configurations(folder / "README.md"):
        if isinstance(entry, dict) and isinstance(name := entry.get("config_name"), str):
            for split, pattern in _patterns(entry.get("data_files")):
                matching = [file for file in files if fnmatchcase(file, pattern.removeprefix("./"))]
                if matching:
                    found.setdefault(name, {}).setdefault(split, []).extend(matching)
    return found


def _configurations(readme: Path) -> list[Any]:
    """The `configs` in the front matter of a README."""
    import yaml  # type: ignore[import-untyped]

    if not readme.is_file():
        return []
    try:
        block = _FRONT_MATTER.search(readme.read_text(encoding="utf-8"))
        values = yaml.safe_load(block[1]) if block else None
    except (yaml.YAMLError, ValueError, OSError) as error:
        reason = " ".join(str(error).split())
        raise DatasetError(f"{readme}: the front matter can't be read: {reason}") from None
    configurations = values.get("configs") if isinstance(values, dict) else None
    return configurations if isinstance(configurations, list) else []


def _patterns(data_files: Any) -> Iterator[tuple[str, str]]:
    """(split, glob) of each entry, in all the forms that the hub allows."""
    entries = data_files if isinstance(data_files, list) else [data_files]
    for entry in entries:
        split, paths = (entry.get("split"), entry.get("path")) if isinstance(entry, dict) else (_UNNAMED, entry)
        for path in paths if isinstance(paths, list) else [paths]:
            if isinstance(path, str):
                yield str(split), path
