"""What .gitignore files and --include/--exclude globs leave out of a folder.

Knows rules and paths; walks no folders.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ctxindex.errors import UsageError

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

_VCS_FOLDERS = frozenset({"CVS", "_darcs"})


def is_hidden(name: str) -> bool:
    """Whether a file or folder is hidden, or a version control system's own."""
    return name.startswith(".") or name in _VCS_FOLDERS


def exact_glob(inside: str) -> str:
    """The glob that matches the path `inside` a folder and nothing else."""
    return "/" + re.sub(r"([\\*?\[\]!#])", r"\\\1", inside)


def globs_of(own: Path, folders: Iterable[str]) -> list[str]:
    """The globs that leave out the file or folder `own` of those folders that it lies in."""
    place = own.resolve()
    resolved = (Path(folder).resolve() for folder in folders)
    return [exact_glob(place.relative_to(folder).as_posix()) for folder in resolved if folder in place.parents]


@dataclass(frozen=True, slots=True)
class Globs:
    """The include and exclude globs of a run, matched against the path inside the folder given."""

    include: GitIgnoreSpec | None
    exclude: GitIgnoreSpec | None

    @classmethod
    def compile(cls, include: tuple[str, ...], exclude: tuple[str, ...]) -> Globs:
        """Compile both lists.

        Raises:
            UsageError: for a glob that can't be understood.
        """
        return cls(_compile_globs("include", include), _compile_globs("exclude", exclude))

    def leave_out(self, inside: str, *, folder: bool) -> bool:
        """Whether the file or folder with that path inside the folder given is left out."""
        # The slash tells a pattern that matches folders only. A folder is never left out for not being included:
        # what lies in it may be.
        path = f"{inside}/" if folder else inside
        if self.exclude is not None and self.exclude.match_file(path):
            return True
        return not folder and self.include is not None and not self.include.match_file(path)


@dataclass(frozen=True, slots=True)
class _Rules:
    """One file of ignore rules; `base` is the folder, with a final slash, that its patterns are relative to."""

    base: str
    spec: GitIgnoreSpec

    def verdict(self, path: str) -> bool | None:
        """True to ignore, False to take in any case, None without a say."""
        return self.spec.check_file(path[len(self.base) :]).include if path.startswith(self.base) else None

    def without_those_for(self, folder: str) -> _Rules:
        """These rules, but for the patterns that ignore `folder`, which lies below `base`."""
        from pathspec import GitIgnoreSpec

        inside = f"{folder[len(self.base) :]}/"
        patterns = list(self.spec.patterns)
        while (result := GitIgnoreSpec(patterns).check_file(inside)).include and result.index is not None:
            del patterns[result.index]
        return _Rules(self.base, GitIgnoreSpec(patterns))


@dataclass(frozen=True, slots=True)
class IgnoreRules:
    """The ignore rules in force in one folder, the outermost first. Paths are those of the walk, absolute."""

    chain: tuple[_Rules, ...] = ()

    @classmethod
    def above(cls, root: str) -> IgnoreRules:
        """The rules that the folders above `root` contribute, up to the repository's.

        Rules that ignore `root` itself are set aside: it was asked for by name.
        """
        above = [root]
        while not _is_repository(above[-1]):
            parent = os.path.dirname(above[-1])
            if parent == above[-1]:
                return cls()
            above.append(parent)
        rules = cls()
        for folder in reversed(above[1:]):
            rules = rules.within(folder)
        return cls(tuple(rule.without_those_for(root) for rule in rules.chain))

    def within(self, folder: str) -> IgnoreRules:
        """The rules in force in `folder`, a folder in the one these are for. A repository begins anew."""
        chain = self.chain
        if _is_repository(folder):
            chain = tuple(_read_rules(folder, _exclude_file(folder)))
        return IgnoreRules((*chain, *_read_rules(folder, os.path.join(folder, ".gitignore"))))

    def ignore(self, path: str, *, folder: bool) -> bool:
        """Whether the file or folder is ignored; the folders above it are not."""
        subject = f"{path}/" if folder else path
        verdicts = (rule.verdict(subject) for rule in reversed(self.chain))
        return next((verdict for verdict in verdicts if verdict is not None), False)


def _compile_globs(option: str, patterns: tuple[str, ...]) -> GitIgnoreSpec | None:
    from pathspec import GitIgnoreSpec

    if not patterns:
        return None
    try:
        return GitIgnoreSpec.from_lines(patterns)
    except ValueError as error:
        raise UsageError(f"--{option}: {error}") from None


def _is_repository(folder: str) -> bool:
    return os.path.lexists(os.path.join(folder, ".git"))


def _exclude_file(repository: str) -> str:
    git = os.path.join(repository, ".git")
    # In a worktree or submodule, .git is a file that says where the folder is.
    if pointer := _first_line(git):
        git = os.path.join(repository, pointer.removeprefix("gitdir:").strip())
        git = os.path.join(git, _first_line(os.path.join(git, "commondir")))
    return os.path.join(git, "info", "exclude")


def _first_line(path: str) -> str:
    return next((line.strip() for line in _read_lines(path)), "")


def _read_lines(path: str) -> list[str]:
    if not os.path.isfile(path):
        return []
    try:
        with open(path, encoding="utf-8-sig", errors="surrogateescape") as file:
            return file.read().splitlines()
    except OSError:
        return []


def _read_rules(folder: str, path: str) -> Iterator[_Rules]:
    from pathspec import GitIgnoreSpec

    if not (lines := _read_lines(path)):
        return
    try:
        spec = GitIgnoreSpec.from_lines(lines)
    except ValueError:
        # Like git, which passes over a pattern that it can't read.
        spec = GitIgnoreSpec.from_lines(_readable(lines))
    if spec.patterns:
        yield _Rules(folder.rstrip("/") + "/", spec)


def _readable(lines: Iterable[str]) -> Iterator[str]:
    from pathspec import GitIgnoreSpec

    for line in lines:
        try:
            GitIgnoreSpec.from_lines([line])
        except ValueError:
            continue
        yield line
