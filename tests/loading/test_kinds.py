from __future__ import annotations

import io

import pytest

from ctxindex.loading.kinds import NoDocument, extension, kind_by_content, kind_by_name


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.txt", "text"),
        ("A.TXT", "text"),
        ("a.b.md", "markdown"),
        ("x.Markdown", "markdown"),
        ("a.rst", "rst"),
        ("a.xhtml", "html"),
        ("a.pdf", "pdf"),
        ("a.docx", "docx"),
        ("a.ndjson", "jsonl"),
        ("a.JSONL.gz", "jsonl"),
        ("a.py", "text"),
        ("README", "unknown"),
        (".profile", "unknown"),
        ("a.", "unknown"),
        ("v1.2", "unknown"),
    ],
)
def test_names(name: str, kind: str) -> None:
    assert kind_by_name(name) == kind


@pytest.mark.parametrize("name", ["a.png", "a.MP3", "a.gz", "a.doc", "a.xlsx", "a.safetensors", "a.woff2"])
def test_names_that_are_skipped(name: str) -> None:
    verdict = kind_by_name(name)
    assert isinstance(verdict, NoDocument)
    assert f".{extension(name)}" in verdict.reason


@pytest.mark.parametrize(
    "head", [b"", b"text", b"RIFF and raff", b"GIF89 is old", b"PK is short", b"%PDF-1.7 is a format\n"]
)
def test_plain_beginnings_change_nothing(head: bytes) -> None:
    assert kind_by_content("text", io.BytesIO(head)) == "text"
    assert kind_by_content("unknown", io.BytesIO(head)) == "unknown"


def test_contents() -> None:
    assert kind_by_content("text", io.BytesIO(b"%PDF-1.7\n%\xe2")) == "pdf"
    assert kind_by_content("markdown", io.BytesIO(b"RIFF1234WAVEfmt ")) == NoDocument("holds WAV audio")
    assert kind_by_content("text", io.BytesIO(b"PK\x03\x04" + bytes(50))) == NoDocument("holds a zip archive")
    assert kind_by_content("unknown", io.BytesIO(bytes(range(1, 32)))) == NoDocument("binary data")
    assert kind_by_content("unknown", io.BytesIO("é ".encode("utf-16"))) == "unknown"


def test_named_formats_are_left_to_their_loaders() -> None:
    assert kind_by_content("pdf", io.BytesIO(b"\x89PNG\r\n\x1a\n")) == "pdf"
    assert kind_by_content("docx", io.BytesIO(b"%PDF-1.7\n")) == "docx"
