"""Rows: JSON objects read line by line, which say where they stand when something is wrong with them.

Knows files and types of values; not what a dataset is made of.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from ctxindex.errors import DocumentError
from ctxindex.evaluation.dataset import DatasetError
from ctxindex.loading.files import open_regular, unreadable
from ctxindex.loading.jsonl import check_unicode, iterate_lines, parse_object, type_name
from ctxindex.loading.values import DEFAULT_MAX_CHARS

JSONL = (".jsonl", ".jsonl.gz")
"""The endings of files that `read_jsonl` reads."""


@dataclass(frozen=True, slots=True)
class Row:
    """The values of one line; `place` is the file and the line for messages, `number` the line, from 1.

    Every reader raises DatasetError where a value is missing or of another type; null counts as missing.
    """

    values: Mapping[str, Any]
    place: str
    number: int

    def error(self, reason: str) -> DatasetError:
        """What is wrong with this row, to be raised."""
        return DatasetError(f"{self.place}: {reason}")

    def has(self, name: str) -> bool:
        """Whether there is a value."""
        return self.values.get(name) is not None

    def string(self, name: str) -> str:
        """A text as it stands there."""
        value = self._required(name)
        if not isinstance(value, str):
            raise self.error(f'"{name}" is {type_name(value)}, not a string')
        with self.explained():
            check_unicode(value, name)
        return value

    def identifier(self, name: str) -> str:
        """A name; whole numbers count as such."""
        return self.as_identifier(self._required(name), name)

    def as_identifier(self, value: Any, name: str) -> str:
        """A value of the field `name` as a name."""
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise self.error(f'"{name}" is {type_name(value)}, not a string')
        text = str(value)
        if not text.strip():
            raise self.error(f'"{name}" is empty')
        with self.explained():
            check_unicode(text, name)
        return text

    def integer(self, name: str) -> int:
        """A whole number."""
        value = self._required(name)
        if isinstance(value, bool) or not isinstance(value, int):
            kind = "not whole" if isinstance(value, float) else f"{type_name(value)}, not a number"
            raise self.error(f'"{name}" is {kind}')
        return value

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Where a document could not be loaded, say which row it is."""
        try:
            yield
        except DocumentError as error:
            raise self.error(error.reason) from None

    def _required(self, name: str) -> Any:
        value = self.values.get(name)
        if value is None:
            raise self.error(f'has no "{name}"')
        return value


def jsonl_file(folder: Path, stem: str) -> Path | None:
    """The file of that name in one of the forms of JSONL, if there is any."""
    return next((path for ending in JSONL if (path := folder / f"{stem}{ending}").is_file()), None)


def read_jsonl(path: Path) -> Iterator[Row]:
    """The objects of a JSONL file, compressed where its name ends in `.gz`; blank lines are skipped.

    Raises:
        DatasetError: the file can't be read, or a line is no JSON object.
    """
    for number, data in read_lines(path):
        place = f"{path}, line {number}"
        try:
            yield Row(parse_object(data), place, number)
        except DocumentError as error:
            raise DatasetError(f"{place}: {error.reason}") from None


def read_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines of a file that are not blank, with their numbers from 1, without white space around them.

    Raises:
        DatasetError: the file can't be read, or has a line too long for any document.
    """
    with _opened(path) as file:
        for line in iterate_lines(file, max_chars=DEFAULT_MAX_CHARS):
            if line.data is None:
                raise DatasetError(f"{path}, line {line.number}: {line.length:,} bytes are too many for a line")
            yield line.number, line.data


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    if not path.exists():
        raise DatasetError(f"{path}: there is no such file")
    try:
        with open_regular(path) as file:
            if path.name.endswith(".gz"):
                with gzip.GzipFile(fileobj=file) as stream:
                    yield cast(BinaryIO, stream)
            else:
                yield file
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DatasetError(f"{path}: broken gzip file: {error}") from None
    except DocumentError as error:
        raise DatasetError(f"{path} {error.reason}") from None
    except OSError as error:
        raise DatasetError(f"{path} {unreadable(error).reason}") from None
