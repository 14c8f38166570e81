from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ctxindex.errors import DocumentError
from ctxindex.loading.pdf import load_pdf

from .samples import FIXTURES, document, failure, minimal_pdf

PAGES = [["First page", "second line"], [], ["Third page"]]


def test_pages() -> None:
    parsed = load_pdf(minimal_pdf(PAGES, title="The title"), max_chars=1000)
    assert parsed.text == "First page\nsecond line\n\n\n\nThird page"
    assert parsed.pages == (0, 24, 26)
    assert parsed.text[parsed.pages[2] :] == "Third page"
    assert parsed.title == "The title"
    assert parsed.sections == ()


def test_divided_words_are_joined() -> None:
    assert load_pdf(minimal_pdf([["the infor-", "mation"]]), max_chars=1000).text == "the information"


@pytest.mark.parametrize("title", ["", "contract.doc", "Microsoft Word - x", "Untitled", "scan.PDF"])
def test_titles_that_are_none(title: str) -> None:
    assert load_pdf(minimal_pdf(PAGES, title=title), max_chars=1000).title is None


def test_file(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(minimal_pdf(PAGES))
    loaded = document(tmp_path / "a.pdf")
    assert loaded.metadata == {"file_name": "a.pdf", "file_type": "pdf"}
    assert loaded.pages == (0, 24, 26)


def test_encrypted_and_scanned() -> None:
    assert failure(FIXTURES / "encrypted.pdf").reason == "encrypted PDF: needs a password"
    assert failure(FIXTURES / "scanned.pdf").reason == "no text layer (scanned?); run OCR first"
    assert failure(FIXTURES / "scanned.pdf").source_hash


@pytest.mark.parametrize("data", [b"%PDF-1.7\nbroken", minimal_pdf(PAGES)[:150], b"%PDF-1.4\n" + bytes(1000)])
def test_broken(data: bytes) -> None:
    with pytest.raises(DocumentError, match="broken PDF") as error:
        load_pdf(data, max_chars=1000)
    assert not error.value.transient


def test_no_pdf() -> None:
    with pytest.raises(DocumentError, match=r"named \.pdf but holds no PDF"):
        load_pdf(b"just text", max_chars=1000)


def test_too_long() -> None:
    with pytest.raises(DocumentError, match="oversized"):
        load_pdf(minimal_pdf(PAGES), max_chars=20)


def test_missing_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pypdfium2", None)
    (tmp_path / "a.pdf").write_bytes(minimal_pdf(PAGES))
    failed = failure(tmp_path / "a.pdf")
    assert failed.reason == "reading PDF files needs the package pypdfium2: pip install 'ctxindex[pdf]'"
    assert failed.source_hash == ""
