from __future__ import annotations

import gzip
import io
import json
import os
import socket
import sys
from pathlib import Path

import pytest

from ctxindex.errors import DuplicateDocumentError, UsageError
from ctxindex.loading import LoadOptions, find_sources, hash_source, load_source
from ctxindex.types import Document

from .samples import PNG, ids, minimal_pdf, outcome, reasons, write

LINE = {"doc_id": "one", "text": "The first text."}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    files: dict[str, str | bytes] = {"a.txt": "a", "sub/b.md": "# b", "sub/deep/c.txt": "c", "z.txt": "z"}
    return write(tmp_path / "docs", files)


def test_folder_is_walked_in_order(folder: Path) -> None:
    found = find_sources(folder)
    assert ids(found) == ["docs/a.txt", "docs/sub/b.md", "docs/sub/deep/c.txt", "docs/z.txt"]
    assert [source.kind for source in found.sources] == ["text", "markdown", "text", "text"]
    assert not found.skipped
    assert not found.failures


def test_several_paths_and_single_files(folder: Path, tmp_path: Path) -> None:
    write(tmp_path / "other", {"a.txt": "x"})
    found = find_sources([folder / "z.txt", str(tmp_path / "other"), folder / "sub"])
    assert ids(found) == ["z.txt", "other/a.txt", "sub/b.md", "sub/deep/c.txt"]


def test_ids_do_not_depend_on_the_working_directory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = ids(find_sources(folder))
    monkeypatch.chdir(folder)
    assert ids(find_sources(".")) == expected
    assert ids(find_sources("./")) == expected
    monkeypatch.chdir(folder / "sub")
    assert ids(find_sources("..")) == expected
    assert ids(find_sources("../../docs/")) == expected


def test_sources_outlive_a_change_of_directory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    source = find_sources("a.txt").sources[0]
    monkeypatch.chdir("/")
    assert isinstance(load_source(source), Document)


def test_root_option(folder: Path) -> None:
    options = LoadOptions(root=folder)
    assert ids(find_sources([folder / "sub", folder / "a.txt"], options)) == ["sub/b.md", "sub/deep/c.txt", "a.txt"]
    assert ids(find_sources(folder, options))[0] == "a.txt"
    with pytest.raises(UsageError, match="outside of the root"):
        find_sources(folder, LoadOptions(root=folder / "sub"))


def test_missing_path_is_a_usage_error(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"no such file or folder: .*nothing-here"):
        find_sources([folder, folder / "nothing-here"])
    with pytest.raises(UsageError, match="empty path"):
        find_sources("")
    (folder / "dangling").symlink_to("nowhere")
    with pytest.raises(UsageError, match="broken link"):
        find_sources(folder / "dangling")


def test_include_and_exclude(folder: Path) -> None:
    assert ids(find_sources(folder, LoadOptions(include=("*.txt",)))) == [
        "docs/a.txt",
        "docs/sub/deep/c.txt",
        "docs/z.txt",
    ]
    assert ids(find_sources(folder, LoadOptions(include=("sub/**",)))) == ["docs/sub/b.md", "docs/sub/deep/c.txt"]
    found = find_sources(folder, LoadOptions(include=("*.txt", "*.md"), exclude=("deep/", "/a.txt")))
    assert ids(found) == ["docs/sub/b.md", "docs/z.txt"]
    assert found.n_ignored == 2
    assert ids(find_sources(folder / "a.txt", LoadOptions(exclude=("*.txt",)))) == ["a.txt"]
    with pytest.raises(UsageError, match="--exclude"):
        find_sources(folder, LoadOptions(exclude=("!",)))


def test_duplicates(folder: Path, tmp_path: Path) -> None:
    write(tmp_path / "elsewhere/docs", {"a.txt": "other"})
    with pytest.raises(DuplicateDocumentError) as error:
        find_sources([folder, tmp_path / "elsewhere/docs"])
    message = str(error.value)
    assert '"docs/a.txt"' in message
    assert str(folder / "a.txt") in message
    assert str(tmp_path / "elsewhere/docs/a.txt") in message
    assert "--root" in message


def test_same_file_twice_counts_once(folder: Path) -> None:
    assert ids(find_sources([folder, folder])) == ids(find_sources(folder))
    options = LoadOptions(root=folder)
    assert len(find_sources([folder, folder / "sub", folder / "a.txt"], options).sources) == 4


def test_kinds_without_text_are_skipped(tmp_path: Path) -> None:
    root = write(
        tmp_path / "r", {"a.png": PNG, "b.xlsx": b"PK\x03\x04", "c.doc": b"x", "d.tar.gz": b"x", "e": bytes(99)}
    )
    root = write(root, {"f.txt": PNG, "g.md": b"\x1f\x8b\x08" + bytes(30), "h.weird": b"\x7fELF" + bytes(99)})
    found = find_sources(root)
    assert reasons(found.skipped) == {
        "r/a.png": "kind .png holds no text",
        "r/b.xlsx": "format .xlsx is not supported",
        "r/c.doc": "format .doc is not supported",
        "r/d.tar.gz": "kind .gz holds no text",
        "r/f.txt": "holds a PNG image",
        "r/g.md": "holds a gzip archive",
        "r/h.weird": "holds an ELF executable",
    }
    # Full of NULs, like UTF-16: known for what it is only when it is decoded.
    assert ids(found) == ["r/e"]
    assert "binary data" in str(outcome(root / "e"))


def test_content_wins_over_the_name(tmp_path: Path) -> None:
    pdf = minimal_pdf([["Hello"]])
    root = write(tmp_path / "r", {"a.txt": pdf, "b": pdf, "c.unknown": "words", "d.txt": "%PDF-1.4 is a format"})
    assert [source.kind for source in find_sources(root).sources] == ["pdf", "pdf", "unknown", "text"]


def test_hidden_files_are_left_out_unless_given(tmp_path: Path) -> None:
    root = write(
        tmp_path / "r", {".hidden/a.txt": "a", ".b.txt": "b", ".git/config": "c", "CVS/Root": "d", "e.txt": "e"}
    )
    found = find_sources(root)
    assert ids(found) == ["r/e.txt"]
    assert not found.skipped
    assert ids(find_sources([root / ".b.txt", root / ".hidden"])) == [".b.txt", ".hidden/a.txt"]


def test_links(folder: Path, tmp_path: Path) -> None:
    (folder / "file-link.txt").symlink_to(folder / "a.txt")
    (folder / "loop").symlink_to(folder)
    (folder / "self").symlink_to(folder / "self")
    (folder / "dangling.txt").symlink_to("nowhere")
    (tmp_path / "root-link").symlink_to(folder)
    found = find_sources(folder)
    assert "docs/file-link.txt" in ids(found)
    assert len(found.sources) == 5
    assert reasons(found.skipped) == {
        "docs/dangling.txt": "a broken link",
        "docs/loop": "a link to a folder, which is not followed",
        "docs/self": "a link that leads to itself",
    }
    assert ids(find_sources(tmp_path / "root-link"))[0] == "root-link/a.txt"


def test_special_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(folder / "pipe.txt")
    monkeypatch.chdir(folder)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("sock.txt")
    found = find_sources(folder)
    assert reasons(found.skipped) == {"docs/pipe.txt": "a FIFO, not a file", "docs/sock.txt": "a socket, not a file"}
    found = find_sources([folder / "pipe.txt", "/dev/null"])
    assert reasons(found.failures) == {"pipe.txt": "is a FIFO, not a file", "null": "is a device, not a file"}


def test_names_always_encode(tmp_path: Path) -> None:
    root = tmp_path / 'a "b" c'
    root.mkdir()
    (root / "it's.txt").write_text("x")
    with open(os.fsencode(root) + b"/caf\xe9.txt", "w") as file:
        file.write("y")
    found = find_sources(root)
    assert ids(found) == ['a "b" c/caf\\xe9.txt', 'a "b" c/it\'s.txt']
    for source in found.sources:
        document = load_source(source)
        assert isinstance(document, Document)
        assert document.metadata["file_name"] == source.doc_id.split("/")[-1]
        json.dumps(document.metadata, ensure_ascii=False).encode()


def test_folder_that_cannot_be_listed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def refuse(path: str) -> object:
        if path.endswith("/sub"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr("ctxindex.loading.walking.os.scandir", refuse)
    found = find_sources(folder)
    assert ids(found) == ["docs/a.txt", "docs/z.txt"]
    assert reasons(found.failures) == {"docs/sub": "folder cannot be read: permission denied"}
    assert found.failures[0].source_hash == ""


def jsonl(*lines: object) -> str:
    return "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines) + "\n"


def test_jsonl_lines(tmp_path: Path) -> None:
    second = {
        "doc_id": 7,
        "title": " The\ntitle ",
        "text": "zweiter Text ü",
        "metadata": {"a": {"b": 1}, "tags": ["x"]},
    }
    write(tmp_path, {"d.jsonl": b"\xef\xbb\xbf" + jsonl(LINE, "", "  ", second).replace("\n", "\r\n").encode()})
    found = find_sources(tmp_path / "d.jsonl")
    assert [(source.doc_id, source.line) for source in found.sources] == [("one", 1), ("7", 4)]
    first, other = (load_source(source) for source in found.sources)
    assert isinstance(first, Document)
    assert isinstance(other, Document)
    assert (first.text, first.title, dict(first.metadata)) == ("The first text.", None, {})
    assert (other.text, other.title) == ("zweiter Text ü", "The title")
    assert other.metadata == {"a.b": 1, "tags": ["x"]}
    assert [first.source_hash, other.source_hash] == [hash_source(source) for source in found.sources]


def test_bad_lines_fail_alone(tmp_path: Path) -> None:
    lines = [
        LINE,
        "{broken",
        {"doc_id": "two"},
        {"text": "x"},
        {"doc_id": "s", "text": "\ud800"},
        {"doc_id": "e", "text": " "},
    ]
    write(tmp_path, {"r/d.jsonl": jsonl(*lines)})
    found = find_sources(tmp_path / "r")
    assert ids(found) == ["one"]
    failures = reasons(found.failures)
    assert list(failures) == ["r/d.jsonl#2", "two", "r/d.jsonl#4", "s", "e"]
    assert "broken JSON at character 1" in failures["r/d.jsonl#2"]
    assert failures["two"] == 'has no "text"'
    assert failures["r/d.jsonl#4"] == 'has no "doc_id"'
    assert "lone surrogate" in failures["s"]
    assert failures["e"] == "empty"
    assert all(failure.source_hash for failure in found.failures)


@pytest.mark.parametrize("content", [jsonl({"id": 1}, {"id": 2}), "", "\n\n", '["a"]\n'])
def test_file_without_a_usable_line_is_one_failure(tmp_path: Path, content: str) -> None:
    write(tmp_path, {"queries.jsonl": content})
    found = find_sources(tmp_path / "queries.jsonl")
    assert not found.sources
    assert [failure.doc_id for failure in found.failures] == ["queries.jsonl"]
    assert "not in the form" in found.failures[0].reason
    assert found.failures[0].source_hash


def test_duplicate_lines(tmp_path: Path) -> None:
    write(tmp_path, {"d.jsonl": jsonl(LINE, LINE)})
    with pytest.raises(DuplicateDocumentError, match=r"d\.jsonl, line 1 and .*d\.jsonl, line 2"):
        find_sources(tmp_path / "d.jsonl")
    write(tmp_path, {"d.jsonl": jsonl(LINE)})
    assert ids(find_sources([tmp_path / "d.jsonl", tmp_path / "d.jsonl"])) == ["one"]


def test_long_line_is_one_failure(tmp_path: Path) -> None:
    big = {"doc_id": "big", "text": "x" * 3_000_000}
    write(tmp_path, {"d.jsonl": jsonl(big, LINE)})
    found = find_sources(tmp_path / "d.jsonl", LoadOptions(max_chars=1000))
    assert ids(found) == ["one"]
    assert isinstance(load_source(found.sources[0]), Document)
    assert found.failures[0].doc_id == "d.jsonl#1"
    assert "oversized" in found.failures[0].reason
    assert found.failures[0].source_hash == ""


def test_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    stdin = io.TextIOWrapper(io.BytesIO(jsonl(LINE, "{").encode()))
    monkeypatch.setattr(sys, "stdin", stdin)
    with find_sources(["-", "-"]) as found:
        source = found.sources[0]
        assert reasons(found.failures).keys() == {"stdin#2"}
        assert source.place == "stdin, line 1"
        assert hash_source(source) == hash_source(source)
        assert isinstance(load_source(source), Document)
    assert not source.path.exists()


def test_compressed_jsonl(tmp_path: Path) -> None:
    packed = gzip.compress(jsonl(LINE).encode())
    write(tmp_path, {"r/a.jsonl.gz": packed, "r/b.ndjson.gz": packed[:-12], "r/c.jsonl.gz": "no gzip"})
    with find_sources(tmp_path / "r") as found:
        assert ids(found) == ["one"]
        assert isinstance(load_source(found.sources[0]), Document)
        assert reasons(found.failures).keys() == {"r/b.ndjson.gz", "r/c.jsonl.gz"}
        assert all("broken gzip file" in failure.reason for failure in found.failures)
    assert not found.sources[0].path.exists()
