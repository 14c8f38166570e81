"""From the paths a user gives to sources: which documents there are, what they are called and how each is read.

The plan pass: it looks at names and first bytes, reads JSONL line by line for its doc_ids, and keeps no text.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeAlias

from ctxindex.errors import DocumentError, DuplicateDocumentError, UsageError
from ctxindex.loading.files import hash_blocks, hash_source, open_regular, special_file, unreadable, utf8_name
from ctxindex.loading.ignoring import Globs
from ctxindex.loading.jsonl import Line, LineError, check_line_bytes, iterate_lines, parse_line
from ctxindex.loading.kinds import NoDocument, is_compressed_jsonl, kind_by_content, kind_by_name
from ctxindex.loading.spooling import Spool, spool_gzip
from ctxindex.loading.values import Found, LoadOptions, SkippedSource, Source
from ctxindex.loading.walking import Ignored, Unwalkable, walk
from ctxindex.types import FailedDocument

PathLike: TypeAlias = str | os.PathLike[str]
STDIN: Final = "-"
_STDIN_NAME: Final = "stdin"


def find_sources(paths: PathLike | Sequence[PathLike], options: LoadOptions | None = None) -> Found:
    """The documents in `paths`: files, folders (with all that is in them), JSONL files, `-` for JSONL on stdin.

    Returns:
        The sources in the order of `paths`, within a folder sorted by name; what was skipped; what failed already.

    Raises:
        UsageError: for a path that does not exist or lies outside of `options.root`, and for a glob that is none.
        DuplicateDocumentError: where two sources have one doc_id.
    """
    given = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    search = _Search(options or LoadOptions())
    try:
        for path in given:
            search.add(os.fspath(path))
    except BaseException:
        for spool in search.spools:
            spool.close()
        raise
    return Found(
        tuple(search.sources.values()),
        tuple(search.skipped),
        tuple(search.failures.values()),
        search.n_ignored,
        tuple(search.containers),
        tuple(search.spools),
    )


@dataclass(frozen=True, slots=True)
class _File:
    """A file to be read: its doc_id, its path to open, and the same as the user knows it."""

    doc_id: str
    path: Path
    origin: str


@dataclass
class _Search:
    """What was found so far. `places` says for each doc_id who claims it: a path, a byte offset, a place."""

    options: LoadOptions
    sources: dict[str, Source] = field(default_factory=dict)
    failures: dict[str, FailedDocument] = field(default_factory=dict)
    skipped: list[SkippedSource] = field(default_factory=list)
    spools: list[Spool] = field(default_factory=list)
    containers: list[str] = field(default_factory=list)
    places: dict[str, tuple[str, int, str]] = field(default_factory=dict)
    n_ignored: int = 0
    read_stdin: bool = False

    def __post_init__(self) -> None:
        self.globs = Globs.compile(self.options.include, self.options.exclude)

    def add(self, given: str) -> None:
        """Take one path of those given."""
        if given == STDIN:
            self._add_stdin()
            return
        if not given:
            raise UsageError("an empty path was given")
        # Absolute, so that sources stay valid wherever the process goes; `..` is left to the operating system.
        path = os.path.join(os.getcwd(), given)
        try:
            mode = os.stat(path).st_mode
        except FileNotFoundError:
            detail = " (a broken link)" if os.path.islink(path) else ""
            raise UsageError(f"no such file or folder: {utf8_name(given)}{detail}") from None
        except (OSError, ValueError) as error:
            reason = unreadable(error).reason if isinstance(error, OSError) else str(error)
            raise UsageError(f"{utf8_name(given)!r} {reason}") from None
        name = self._name(path, given)
        if os.path.isdir(path):
            self._add_folder(name, path.rstrip("/") or "/")
        elif special := special_file(mode):
            self._fail(_File(name, Path(path), utf8_name(given)), f"is {special}, not a file")
        else:
            self._add_file(_File(name, Path(path), utf8_name(given)))

    def _name(self, path: str, given: str) -> str:
        """The doc_id of a file given, or the first part of the doc_ids in a folder given."""
        absolute = os.path.abspath(path)
        if self.options.root is None:
            return utf8_name(os.path.basename(absolute))
        root = os.path.abspath(self.options.root)
        name = os.path.relpath(absolute, root)
        if name == ".." or name.startswith("../"):
            raise UsageError(f"{utf8_name(given)} lies outside of the root {utf8_name(str(self.options.root))}")
        return "" if name == "." else utf8_name(name)

    def _add_folder(self, name: str, path: str) -> None:
        for entry in walk(path, globs=self.globs, no_ignore=self.options.no_ignore):
            if isinstance(entry, Ignored):
                self.n_ignored += 1
                continue
            # A folder given has no path inside itself, and may have no name: the root of the file system.
            doc_id = "/".join(part for part in (name, utf8_name(entry.inside)) if part) or "/"
            file = _File(doc_id, Path(path, entry.inside), utf8_name(os.path.join(path, entry.inside)))
            if not isinstance(entry, Unwalkable):
                self._add_file(file)
            elif entry.failed:
                self._fail(file, entry.reason)
            else:
                self.skipped.append(SkippedSource(doc_id, entry.reason))

    def _add_file(self, file: _File) -> None:
        named = kind_by_name(os.path.basename(file.path))
        if isinstance(named, NoDocument):
            self.skipped.append(SkippedSource(file.doc_id, named.reason))
            return
        try:
            if named == "jsonl":
                self._add_jsonl(file)
                return
            with open_regular(file.path) as opened:
                kind = kind_by_content(named, opened)
        except DocumentError as error:
            self._fail(file, error.reason, "" if error.transient else self._hash(file))
            return
        except OSError as error:
            self._fail(file, unreadable(error).reason)
            return
        if isinstance(kind, NoDocument):
            self.skipped.append(SkippedSource(file.doc_id, kind.reason))
        else:
            self._take(Source(file.doc_id, file.path, kind, file.origin))

    def _add_jsonl(self, file: _File) -> None:
        if is_compressed_jsonl(file.path.name):
            spool = spool_gzip(file.path)
            self.spools.append(spool)
            self._add_lines(file, spool.path)
        else:
            self._add_lines(file, file.path)

    def _add_stdin(self) -> None:
        if self.read_stdin:
            return
        self.read_stdin = True
        if sys.stdin is None or sys.stdin.closed:
            raise UsageError("- was given, but standard input is closed")
        try:
            spool = Spool(sys.stdin.buffer)
        except OSError as error:
            raise UsageError(f"standard input {unreadable(error).reason}") from None
        self.spools.append(spool)
        self._add_lines(_File(_STDIN_NAME, spool.path, _STDIN_NAME), spool.path)

    def _add_lines(self, file: _File, path: Path) -> None:
        max_chars = self.options.max_chars
        bad: list[tuple[Source, FailedDocument]] = []
        usable = False
        with open_regular(path) as opened:
            for line in iterate_lines(opened, max_chars=max_chars):
                source = Source(
                    f"{file.doc_id}#{line.number}", path, "jsonl", file.origin, line.offset, line.length, line.number
                )
                outcome = _read_line(line, source, max_chars)
                if isinstance(outcome, FailedDocument):
                    bad.append((source, outcome))
                else:
                    usable = True
                    self._take(outcome, real=str(file.path))
        if usable:
            self.containers.append(file.doc_id)
            for source, failure in bad:
                self._claim(failure.doc_id, str(file.path), source)
                self.failures[failure.doc_id] = failure
            return
        reason = f"line {bad[0][0].line} {_clause(bad[0][1].reason)}" if bad else "there are no lines in it"
        self._fail(file, f'not in the form {{"doc_id", "title", "text", "metadata"}}: {reason}', self._hash(file))

    def _hash(self, file: _File) -> str:
        try:
            return hash_source(Source(file.doc_id, file.path, "jsonl", file.origin))
        except DocumentError:
            return ""

    def _take(self, source: Source, real: str | None = None) -> None:
        if self._claim(source.doc_id, real or str(source.path), source):
            self.sources[source.doc_id] = source

    def _fail(self, file: _File, reason: str, source_hash: str = "") -> None:
        source = Source(file.doc_id, file.path, "unknown", file.origin)
        if self._claim(file.doc_id, str(file.path), source):
            self.failures[file.doc_id] = FailedDocument(file.doc_id, reason, source_hash)

    def _claim(self, doc_id: str, path: str, source: Source) -> bool:
        """Whether the doc_id is new; False where this very file or line has it already.

        Raises:
            DuplicateDocumentError: where another file or line has it.
        """
        claim = (path, source.offset, source.place)
        known = self.places.setdefault(doc_id, claim)
        if known is claim:
            return True
        if os.path.realpath(known[0]) != os.path.realpath(path) or known[1] != source.offset:
            raise DuplicateDocumentError(
                f'two documents would have the doc_id "{doc_id}": {known[2]} and {claim[2]}; '
                "rename one of them, leave one out with --exclude, or set --root to a folder above both"
            )
        return False


def _read_line(line: Line, source: Source, max_chars: int) -> Source | FailedDocument:
    """The line as a source under its own doc_id, if it is a document."""
    try:
        if line.data is None:
            check_line_bytes(line.length, max_chars=max_chars)
        doc_id, parsed = parse_line(line.data or b"", max_chars=max_chars)
        if not parsed.text or parsed.text.isspace():
            raise LineError("empty", doc_id=doc_id)
    except DocumentError as error:
        doc_id = (error.doc_id if isinstance(error, LineError) else None) or source.doc_id
        known = "" if error.transient or line.data is None else hash_blocks(source, (line.data,))
        return FailedDocument(doc_id, error.reason, known)
    return Source(doc_id, source.path, "jsonl", source.origin, line.offset, line.length, line.number)


def _clause(reason: str) -> str:
    """A reason in a sentence that begins with the line's number."""
    return reason if reason.startswith(("has ", "is ")) else f"is unusable ({reason})"
