from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ctxindex.errors import UsageError
from ctxindex.loading import LoadOptions, Source, find_sources, hash_source, load, load_documents, load_source
from ctxindex.loading.values import SkippedSource
from ctxindex.types import Document, FailedDocument

from .samples import PNG, document, failure, minimal_pdf, outcome, write


def test_hash_of_the_plan_is_that_of_the_document(tmp_path: Path) -> None:
    root = write(tmp_path / "r", {"a.txt": "text", "b.md": "# b", "c.pdf": minimal_pdf([["x"]]), "d.html": "<p>d"})
    with find_sources(root) as found:
        for source in found.sources:
            loaded = load_source(source)
            assert isinstance(loaded, Document)
            assert loaded.source_hash == hash_source(source)
            assert len(loaded.source_hash) == 64


def test_hash_tells_content_kind_and_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write(tmp_path / "r", {"a.txt": "text", "a.md": "text", "b.txt": "text", "c.txt": "other"})
    hashes = {source.doc_id: hash_source(source) for source in find_sources(root).sources}
    assert hashes["r/a.txt"] == hashes["r/b.txt"]
    assert len(set(hashes.values())) == 3
    monkeypatch.setattr("ctxindex.loading.files.LOADER_VERSION", 2)
    assert hash_source(find_sources(root / "a.txt").sources[0]) != hashes["r/a.txt"]


def test_large_file_hashes_in_blocks(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"word " * 600_000)
    source = find_sources(tmp_path / "a.txt").sources[0]
    loaded = load_source(source)
    assert isinstance(loaded, Document)
    assert loaded.source_hash == hash_source(source)


def test_metadata(tmp_path: Path) -> None:
    write(tmp_path, {"A B.TXT": "x", "Makefile": "all:", "l.txt": "société".encode("cp1252")})
    assert document(tmp_path / "A B.TXT").metadata == {"file_name": "A B.TXT", "file_type": "txt"}
    assert document(tmp_path / "Makefile").metadata == {"file_name": "Makefile", "file_type": ""}
    assert document(tmp_path / "l.txt").metadata == {"file_name": "l.txt", "file_type": "txt", "encoding": "cp1252"}
    assert document(tmp_path / "A B.TXT").title is None


def test_stream_gives_documents_and_failures_but_nothing_skipped(tmp_path: Path) -> None:
    root = write(tmp_path / "r", {"a.txt": "a", "b.txt": "", "c.png": PNG, "d": b"\0" * 50, "e.jsonl": "{"})
    results = {result.doc_id: type(result) for result in load_documents(root)}
    assert results == {"r/a.txt": Document, "r/b.txt": FailedDocument, "r/e.jsonl": FailedDocument}


def test_stream_takes_options(tmp_path: Path) -> None:
    root = write(tmp_path / "r", {".gitignore": "*.log", "a.txt": "a", "b.log": "b", "c.md": "c"})
    given = list(load_documents([root], include="*.log", no_ignore=True, root=tmp_path))
    assert [result.doc_id for result in given] == ["r/b.log"]
    with pytest.raises(UsageError):
        load_documents(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("a.txt", b"", "empty"),
        ("a.txt", b"\xef\xbb\xbf \r\n\t", "empty"),
        ("a.html", b"<script>x</script>", "empty"),
        ("a.txt", bytes(range(256)), "binary data, not text"),
        ("a.pdf", b"text", "named .pdf but holds no PDF"),
        ("a.md", "für".encode() + b"\xff" + "ß".encode(), "broken UTF-8 at byte 4"),
    ],
)
def test_failures_of_the_file(tmp_path: Path, name: str, data: bytes, reason: str) -> None:
    (tmp_path / name).write_bytes(data)
    failed = failure(tmp_path / name)
    assert failed.reason == reason
    assert failed.source_hash == hash_source(find_sources(tmp_path / name).sources[0])


def test_unknown_kind_is_decided_by_content(tmp_path: Path) -> None:
    write(tmp_path, {"words": "some words", "bytes": bytes(range(256)), "broken": "für".encode() + b"\xffx"})
    assert document(tmp_path / "words").text == "some words"
    assert isinstance(outcome(tmp_path / "bytes"), SkippedSource)


def test_limit_is_no_fault_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x" * 100)
    failed = failure(tmp_path / "a.txt", LoadOptions(max_chars=50))
    assert failed.reason == "oversized: 100 characters, limit 50 (raise it with --max-chars)"
    assert failed.source_hash == ""


def test_gone_between_plan_and_load(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    source = find_sources(tmp_path / "a.txt").sources[0]
    (tmp_path / "a.txt").unlink()
    failed = load_source(source)
    assert failed == FailedDocument("a.txt", "cannot be read: it is gone", "")


def test_line_that_changed_between_plan_and_load(tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_text('{"doc_id": "a", "text": "x"}\n')
    source = find_sources(tmp_path / "d.jsonl").sources[0]
    (tmp_path / "d.jsonl").write_text('{"doc_id": "b", "text": "x"}\n')
    failed = load_source(source)
    assert isinstance(failed, FailedDocument)
    assert "changed while it was read" in failed.reason
    assert failed.source_hash == ""


@pytest.mark.parametrize(
    ("error", "reason", "again"),
    [
        (RuntimeError("line one\nline two"), "RuntimeError: line one line two", False),
        (RecursionError(), "nested too deeply", False),
        (MemoryError(), "not enough memory to load it", True),
    ],
)
def test_no_exception_of_a_parser_gets_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str, again: bool
) -> None:
    def explode(data: bytes, *, max_chars: int) -> None:
        raise error

    monkeypatch.setattr(load, "_loader", lambda kind: explode)
    (tmp_path / "a.txt").write_text("x")
    failed = failure(tmp_path / "a.txt")
    assert failed.reason == reason
    assert bool(failed.source_hash) is not again


def test_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Root may read everything, so the refusal is made here.
    def refuse(path: object, flags: int) -> int:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "a.txt").write_text("x")
    source = Source("a.txt", tmp_path / "a.txt", "text", "a.txt")
    monkeypatch.setattr("ctxindex.loading.files.os.open", refuse)
    assert load_source(source) == FailedDocument("a.txt", "cannot be read: permission denied", "")
    found = find_sources(tmp_path)
    assert [failure.reason for failure in found.failures] == ["cannot be read: permission denied"]


def test_import_is_light() -> None:
    code = (
        "import sys, ctxindex.loading; heavy = {'pathspec', 'docx', 'selectolax', 'markdown_it', 'pypdfium2', "
        "'charset_normalizer', 'lxml', 'numpy'}; assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
