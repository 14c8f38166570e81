from __future__ import annotations

from pathlib import Path

import pytest

from ctxindex.loading import LoadOptions, find_sources

from .samples import ids, write


def tree(tmp_path: Path, files: dict[str, str | bytes]) -> Path:
    return write(tmp_path / "r", files)


def test_nested_rules(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            ".gitignore": "*.log\nbuild/\n/top.txt\n",
            "a.log": "x",
            "top.txt": "x",
            "build/x.txt": "x",
            "sub/.gitignore": "!keep.log\n*.tmp\n",
            "sub/keep.log": "x",
            "sub/other.log": "x",
            "sub/a.tmp": "x",
            "sub/top.txt": "x",
            "b.tmp": "x",
        },
    )
    found = find_sources(root)
    assert ids(found) == ["r/b.tmp", "r/sub/keep.log", "r/sub/top.txt"]
    assert found.n_ignored == 5
    assert len(ids(find_sources(root, LoadOptions(no_ignore=True)))) == 8


def test_rules_of_the_repository_above(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            ".git/info/exclude": "private.txt\n",
            ".gitignore": "/docs/draft/\n*.bak.txt\n",
            "docs/draft/x.txt": "x",
            "docs/a.txt": "x",
            "docs/a.bak.txt": "x",
            "docs/private.txt": "x",
        },
    )
    write(tmp_path, {".gitignore": "a.txt\n"})
    assert ids(find_sources(root / "docs")) == ["docs/a.txt"]


def test_what_is_asked_for_by_name_is_taken(tmp_path: Path) -> None:
    root = tree(tmp_path, {".git/HEAD": "x", ".gitignore": "build/\n*.log\n", "build/a.txt": "x", "build/a.log": "x"})
    assert ids(find_sources(root / "build")) == ["build/a.txt"]
    assert ids(find_sources(root / "build/a.log")) == ["a.log"]
    assert ids(find_sources(root)) == []


def test_outside_a_repository_only_rules_inside_count(tmp_path: Path) -> None:
    root = tree(tmp_path, {"a.txt": "x", "sub/.gitignore": "b.txt", "sub/b.txt": "x"})
    write(tmp_path, {".gitignore": "*\n"})
    assert ids(find_sources(root)) == ["r/a.txt"]


def test_a_repository_inside_begins_anew(tmp_path: Path) -> None:
    root = tree(tmp_path, {".gitignore": "*.log\n", "inner/.git/HEAD": "x", "inner/a.log": "x", "a.log": "x"})
    assert ids(find_sources(root)) == ["r/inner/a.log"]


def test_worktree(tmp_path: Path) -> None:
    write(tmp_path, {"main/.git/info/exclude": "x.txt", "main/.git/worktrees/w/commondir": "../..\n"})
    root = tree(tmp_path, {".git": f"gitdir: {tmp_path}/main/.git/worktrees/w\n", "x.txt": "x", "y.txt": "y"})
    assert ids(find_sources(root)) == ["r/y.txt"]


@pytest.mark.parametrize("rules", [b"!\na.txt\n", b"\xff\xfe\na.txt\n", b"\xef\xbb\xbfa.txt\n", b"a.txt\r\n"])
def test_odd_rules_do_not_stop_the_others(tmp_path: Path, rules: bytes) -> None:
    root = tree(tmp_path, {".gitignore": rules, "a.txt": "x", "b.txt": "x"})
    assert ids(find_sources(root)) == ["r/b.txt"]


def test_gitignore_that_is_a_folder(tmp_path: Path) -> None:
    root = tree(tmp_path, {".gitignore/a": "x", "b.txt": "x"})
    assert ids(find_sources(root)) == ["r/b.txt"]
