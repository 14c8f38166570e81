"""The values this room hands around: what to load, how, and what came of it.

Knows the shape of a source, not how one is found, opened or parsed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol, TypeAlias

from ctxindex.errors import DocumentError
from ctxindex.types import Document, FailedDocument, Section

LOADER_VERSION = 1
"""Raised whenever the same bytes would give another text, title, section or page; part of every index's spec."""

DEFAULT_MAX_CHARS = 20_000_000

Kind: TypeAlias = Literal["text", "rst", "markdown", "html", "pdf", "docx", "jsonl", "unknown"]
"""How a source is read. `unknown` is read as text, and skipped where it turns out to be none."""


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """What to take and how much of it.

    Attributes:
        include: globs in the syntax of .gitignore, matched against the path inside a folder given; empty takes all.
        exclude: globs of the same syntax; wins over `include`.
        no_ignore: take files that .gitignore leaves out.
        root: the folder that doc_ids are relative to; None takes the name of each path given as the first part.
        max_chars: characters of text a document may have.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    no_ignore: bool = False
    root: Path | None = None
    max_chars: int = DEFAULT_MAX_CHARS

    @classmethod
    def of(
        cls,
        include: str | Sequence[str] = (),
        exclude: str | Sequence[str] = (),
        root: str | Path | None = None,
        *,
        no_ignore: bool = False,
        max_chars: int | None = None,
    ) -> LoadOptions:
        """The options in the forms that a caller may give them in; None for `max_chars` is the default."""
        return cls(
            include=(include,) if isinstance(include, str) else tuple(include),
            exclude=(exclude,) if isinstance(exclude, str) else tuple(exclude),
            no_ignore=no_ignore,
            root=None if root is None else Path(root),
            max_chars=DEFAULT_MAX_CHARS if max_chars is None else max_chars,
        )


@dataclass(frozen=True, slots=True)
class Source:
    """Where one document comes from: a file, or one line of a JSONL file. Holds no text.

    Attributes:
        doc_id: encodes to UTF-8; never absolute.
        path: the file to open; a temporary copy for stdin and for compressed JSONL.
        kind: how the bytes are read.
        origin: the path as the user knows it, for messages.
        offset: first byte, in `path`.
        length: number of bytes; None reads to the end of the file.
        line: line number in a JSONL file, from 1; 0 for a whole file.
    """

    doc_id: str
    path: Path
    kind: Kind
    origin: str
    offset: int = 0
    length: int | None = None
    line: int = 0

    @property
    def place(self) -> str:
        """Where a person would look: the path, with the line where there is one."""
        return f"{self.origin}, line {self.line}" if self.line else self.origin


@dataclass(frozen=True, slots=True)
class SkippedSource:
    """Something found that is no document, and why: an image, a link to nowhere. Neither a success nor a failure.

    `source_hash` is set where the source had to be read to tell.
    """

    doc_id: str
    reason: str
    source_hash: str = ""


Outcome: TypeAlias = Document | FailedDocument | SkippedSource
"""What comes of loading one source."""


class Closeable(Protocol):
    """Something that lives until it is closed."""

    def close(self) -> None:
        """Let go of it; closing twice is harmless."""
        ...


@dataclass(frozen=True)
class Found:
    """What the paths given hold. A context manager: leaving it deletes the temporary copies that sources point to.

    `n_ignored` counts the files and folders that ignore rules or globs left out; what lies in such a folder is not
    counted. `containers` are the ids of the JSONL files whose lines are among the sources. Temporary copies that nobody
    closed are deleted when the process ends.
    """

    sources: tuple[Source, ...]
    skipped: tuple[SkippedSource, ...] = ()
    failures: tuple[FailedDocument, ...] = ()
    n_ignored: int = 0
    containers: tuple[str, ...] = ()
    spools: tuple[Closeable, ...] = field(default=(), repr=False)

    def close(self) -> None:
        """Delete temporary copies; the sources that point to them can't be loaded any more."""
        for spool in self.spools:
            spool.close()

    def __enter__(self) -> Found:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class Parsed:
    """What a loader makes of bytes: a document without its name."""

    text: str
    title: str | None = None
    sections: tuple[Section, ...] = ()
    pages: tuple[int, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)


class Loader(Protocol):
    """The bytes of one file -> text and structure. Knows one format; not names, paths or hashes."""

    def __call__(self, data: bytes, *, max_chars: int) -> Parsed:
        """The text of `data`; may be empty, and never holds lone surrogates.

        Raises:
            DocumentError: where the bytes are not of the format, or give more than `max_chars` characters.
        """
        ...


class NotTextError(DocumentError):
    """The bytes are binary data, or text in an encoding that can't be told."""


def check_chars(n_chars: int, max_chars: int) -> None:
    """Raise DocumentError where a text is too long.

    The cause is the limit and not the file, so the error is transient: with another limit the file is tried again.
    """
    if n_chars > max_chars:
        reason = f"oversized: {n_chars:,} characters, limit {max_chars:,} (raise it with --max-chars)"
        raise DocumentError(reason, transient=True)


def check_bytes(n_bytes: int, max_chars: int, *, bytes_per_char: int = 4) -> None:
    """Raise DocumentError where a file is too big to be worth decoding: no encoding takes more bytes a character."""
    limit = bytes_per_char * max_chars
    if n_bytes > limit:
        reason = (
            f"oversized: {n_bytes:,} bytes, limit {limit:,} for {max_chars:,} characters (raise it with --max-chars)"
        )
        raise DocumentError(reason, transient=True)
