"""JSON Lines: one document a line, `{"doc_id", "title", "text", "metadata"}`.

Knows what a line must hold, and where the lines of a file begin; not what to do with a bad one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, Final, NoReturn

from ctxindex.errors import DocumentError
from ctxindex.loading.building import clean_title
from ctxindex.loading.values import Parsed, check_bytes, check_chars

# A character takes at most 12 bytes (an escaped surrogate pair, for one character).
_BYTES_PER_CHAR: Final = 12
_BLOCK: Final = 1 << 20
_BOM: Final = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a file: `offset` and `length` in bytes, without the line's end; `number` counts from 1.

    `data` is None where the line is longer than what was to be read.
    """

    number: int
    offset: int
    length: int
    data: bytes | None


class LineError(DocumentError):
    """Why a line is no document, and its doc_id where it has a usable one."""

    def __init__(self, reason: str, *, doc_id: str | None = None, transient: bool = False) -> None:
        self.doc_id = doc_id
        super().__init__(reason, transient=transient)


def iterate_lines(file: BinaryIO, *, max_chars: int) -> Iterator[Line]:
    """The lines of `file` that are not blank, one at a time; none is held in memory for longer."""
    limit = _BYTES_PER_CHAR * max_chars + _BLOCK
    offset = number = 0
    while raw := file.readline(limit):
        number += 1
        start = offset
        offset += len(raw)
        whole = raw.endswith(b"\n") or len(raw) < limit
        if not whole:
            offset += _skip_line(file)
        if number == 1 and raw.startswith(_BOM):
            start, raw = start + len(_BOM), raw[len(_BOM) :]
        if not whole:
            yield Line(number, start, offset - start, None)
        elif data := raw.strip(b" \t\r\n"):
            start += raw.index(data[:1])
            yield Line(number, start, len(data), data)


def _skip_line(file: BinaryIO) -> int:
    skipped = 0
    while raw := file.readline(_BLOCK):
        skipped += len(raw)
        if raw.endswith(b"\n"):
            break
    return skipped


def check_line_bytes(n_bytes: int, *, max_chars: int) -> None:
    """Raise DocumentError where a line is too long to be worth parsing."""
    check_bytes(max(0, n_bytes - _BLOCK), max_chars, bytes_per_char=_BYTES_PER_CHAR)


def parse_line(data: bytes, *, max_chars: int) -> tuple[str, Parsed]:
    """The doc_id and the content of one line.

    Raises:
        LineError: where the line is no document.
    """
    return parse_document(parse_object(data), max_chars=max_chars)


def parse_document(values: dict[str, Any], *, max_chars: int) -> tuple[str, Parsed]:
    """The doc_id and the content of one line that was decoded before.

    Raises:
        LineError: where the line is no document.
    """
    doc_id = _doc_id(values)
    try:
        return doc_id, _parsed(values, max_chars)
    except DocumentError as error:
        raise LineError(error.reason, doc_id=doc_id, transient=error.transient) from None


_EACH = " (each line is to be a JSON object of its own)"


def parse_object(data: bytes) -> dict[str, Any]:
    """The JSON object on one line.

    Raises:
        LineError: where there is none.
    """
    try:
        values = json.loads(data.decode(), parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise LineError(f"broken UTF-8 at byte {error.start} of the line") from None
    except json.JSONDecodeError as error:
        raise LineError(f"broken JSON at character {error.pos}: {error.msg}{_EACH if error.pos == 0 else ''}") from None
    except ValueError as error:
        raise LineError(f"unusable JSON: {error}") from None
    except RecursionError:
        raise LineError("unusable JSON: nested too deeply") from None
    if not isinstance(values, dict):
        raise LineError(f"not a JSON object{_EACH}")
    return values


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _doc_id(values: dict[str, Any]) -> str:
    value = values.get("doc_id")
    if value is None:
        raise LineError('has no "doc_id"')
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise LineError(f'"doc_id" is {type_name(value)}, not a string')
    doc_id = str(value)
    if not doc_id.strip():
        raise LineError('"doc_id" is empty')
    check_unicode(doc_id, "doc_id", error=LineError)
    return doc_id


def _parsed(values: dict[str, Any], max_chars: int) -> Parsed:
    text = values.get("text")
    if text is None:
        raise DocumentError('has no "text"')
    if not isinstance(text, str):
        raise DocumentError(f'"text" is {type_name(text)}, not a string')
    check_chars(len(text), max_chars)
    check_unicode(text, "text")
    title = values.get("title")
    if title is not None and not isinstance(title, str):
        raise DocumentError(f'"title" is {type_name(title)}, not a string')
    check_unicode(title or "", "title")
    metadata = values.get("metadata")
    if metadata is not None and not isinstance(metadata, dict):
        raise DocumentError(f'"metadata" is {type_name(metadata)}, not an object')
    return Parsed(text, title=clean_title(title), metadata=_flat(metadata or {}))


def _flat(metadata: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    pending = [("", metadata)]
    while pending:
        prefix, level = pending.pop()
        for key, value in level.items():
            name = f"{prefix}{key}"
            check_unicode(name, "metadata")
            if isinstance(value, dict):
                pending.append((f"{name}.", value))
            elif name in flat:
                raise DocumentError(f'"metadata" has "{name}" twice, once nested and once with dots')
            else:
                flat[name] = _scalars(value, name)
    return flat


def _scalars(value: Any, name: str) -> Any:
    items = value if isinstance(value, list) else [value]
    for item in items:
        if isinstance(item, (dict, list)):
            raise DocumentError(f'"metadata" has {type_name(item)} in the list "{name}": only plain values can be kept')
        if isinstance(item, float) and not math.isfinite(item):
            raise DocumentError(f'"metadata" has a number too big in "{name}"')
        if isinstance(item, str):
            check_unicode(item, "metadata")
    return value


def check_unicode(text: str, field: str, *, error: type[DocumentError] = DocumentError) -> None:
    """Raise `error` where the text of a field does not encode to UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError as broken:
        raise error(f'"{field}" holds a lone surrogate (\\u{ord(text[broken.start]):04x}): not valid Unicode') from None


def type_name(value: Any) -> str:
    """What a JSON value is, in a sentence."""
    names = {dict: "an object", list: "a list", bool: "true or false", str: "a string"}
    return names.get(type(value), "a number")
