"""From a folder to the files in it, in a stable order and without ever going round in circles.

Knows ignore rules and links; not what is in a file.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from ctxindex.loading.files import special_file, unreadable
from ctxindex.loading.ignoring import Globs, IgnoreRules, is_hidden


@dataclass(frozen=True, slots=True)
class WalkedFile:
    """A regular file, or a link to one. `inside` is its path inside the folder walked; names as `os.listdir` has."""

    inside: str
    path: str


@dataclass(frozen=True, slots=True)
class Unwalkable:
    """What can't be read as a file: skipped as a matter of course, or `failed`, as a folder without permission."""

    inside: str
    reason: str
    failed: bool


@dataclass(frozen=True, slots=True)
class Ignored:
    """A file or folder that rules or globs left out."""

    inside: str


Walked: TypeAlias = WalkedFile | Unwalkable | Ignored


@dataclass(frozen=True, slots=True)
class _Folder:
    inside: str
    path: str
    rules: IgnoreRules | None


def walk(root: str, *, globs: Globs, no_ignore: bool) -> Iterator[Walked]:
    """Everything in the folder `root` (absolute) and below that is not hidden, sorted by name in each folder.

    Links to files count as files; links to folders are not followed.
    """
    # Not recursive, so that the depth of the folders does not matter; the last of the stack comes next.
    stack: list[_Folder | Walked] = [_Folder("", root, None if no_ignore else IgnoreRules.above(root))]
    while stack:
        entry = stack.pop()
        if isinstance(entry, _Folder):
            stack.extend(reversed(_list(entry, globs)))
        else:
            yield entry


def _list(folder: _Folder, globs: Globs) -> list[_Folder | Walked]:
    try:
        with os.scandir(folder.path) as listing:
            entries = sorted(listing, key=lambda entry: os.fsencode(entry.name))
    except OSError as error:
        return [Unwalkable(folder.inside, f"folder {unreadable(error).reason}", failed=True)]
    rules = None if folder.rules is None else folder.rules.within(folder.path)
    return [_classify(entry, folder, rules, globs) for entry in entries if not is_hidden(entry.name)]


def _classify(entry: os.DirEntry[str], folder: _Folder, rules: IgnoreRules | None, globs: Globs) -> _Folder | Walked:
    inside = f"{folder.inside}/{entry.name}" if folder.inside else entry.name
    is_folder = entry.is_dir(follow_symlinks=False)
    ignored = rules is not None and rules.ignore(entry.path, folder=is_folder)
    if ignored or globs.leave_out(inside, folder=is_folder):
        return Ignored(inside)
    if is_folder:
        return _Folder(inside, entry.path, rules)
    try:
        mode = entry.stat().st_mode
    except OSError as error:
        return _unwalkable(inside, error)
    if stat.S_ISDIR(mode):
        return Unwalkable(inside, "a link to a folder, which is not followed", failed=False)
    if special := special_file(mode):
        return Unwalkable(inside, f"{special}, not a file", failed=False)
    return WalkedFile(inside, entry.path)


def _unwalkable(inside: str, error: OSError) -> Unwalkable:
    if error.errno == errno.ELOOP:
        return Unwalkable(inside, "a link that leads to itself", failed=False)
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return Unwalkable(inside, "a broken link", failed=False)
    return Unwalkable(inside, unreadable(error).reason, failed=True)
