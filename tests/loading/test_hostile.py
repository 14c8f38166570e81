"""One folder with everything that real folders have in them, loaded in one go."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from ctxindex.loading import find_sources, load_documents
from ctxindex.types import Document, FailedDocument

from .samples import FIXTURES, PNG, minimal_pdf, reasons, write

GOOD: dict[str, str | bytes] = {
    "crlf.txt": "one\r\ntwo\r\n",
    "nul.txt": "a name\0another",
    "rtl.txt": "הסכם זה بين الطرفين \u202eabc",
    "emoji.txt": "🎉👩‍👩‍👧 signed",
    "tokens.txt": "a literal [SEP] and [CLS] and <|endoftext|>",
    'it\'s a "name".txt': "quoted",
    "no extension": "text",
    "pdf.txt": minimal_pdf([["Hello"]]),
}
BAD = {
    "empty.txt": b"",
    "blank.md": b" \n\t\n",
    "binary.txt": bytes(range(256)) * 10,
    "surrogate.txt": b"text \xed\xa0\x80 text",
    "broken.pdf": b"%PDF-1.7\nnothing\n%%EOF",
    "text.pdf": b"no PDF",
    "text.docx": b"no zip",
    "ole.docx": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600),
}


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    root = write(tmp_path / "h", {**GOOD, **BAD, "image.txt": PNG, "photo.jpg": b"\xff\xd8\xff", "blob": bytes(500)})
    shutil.copy(FIXTURES / "encrypted.pdf", root / "encrypted.pdf")
    shutil.copy(FIXTURES / "scanned.pdf", root / "scanned.pdf")
    lines = [{"doc_id": "fine", "text": "fine"}, {"doc_id": "lone", "text": "\ud800"}]
    (root / "lines.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (root / "long.txt").write_bytes(b"word " * 10_000_000)
    (root / "loop").symlink_to(root)
    (root / "self.txt").symlink_to(root / "self.txt")
    os.mkfifo(root / "pipe.txt")
    (Path(os.fsdecode(os.fsencode(root) + b"/latin-\xe9.txt"))).write_text("x")
    return root


def test_everything_has_an_outcome(hostile: Path) -> None:
    results = {result.doc_id: result for result in load_documents(hostile)}
    documents = {name for name, result in results.items() if isinstance(result, Document)}
    failed = [result for result in results.values() if isinstance(result, FailedDocument)]
    assert documents == {f"h/{name}" for name in GOOD} | {"h/latin-\\xe9.txt", "fine"}
    expected = {f"h/{name}" for name in (*BAD, "encrypted.pdf", "scanned.pdf", "long.txt")} | {"lone"}
    assert reasons(failed).keys() == expected
    for result in results.values():
        result.doc_id.encode()
        if isinstance(result, Document):
            result.text.encode()
            assert result.content_hash
        else:
            assert "\n" not in result.reason
            assert "Traceback" not in result.reason


def test_texts_are_not_touched(hostile: Path) -> None:
    results = {result.doc_id: result for result in load_documents(hostile, include=["*.txt"])}
    for name, content in GOOD.items():
        if isinstance(content, str) and name.endswith(".txt"):
            result = results[f"h/{name}"]
            assert isinstance(result, Document)
            assert result.text == content


def test_reasons(hostile: Path) -> None:
    failed = reasons([result for result in load_documents(hostile) if isinstance(result, FailedDocument)])
    assert failed["h/surrogate.txt"] == "broken UTF-8 at byte 5 (a lone surrogate)"
    assert failed["h/long.txt"].startswith("oversized: 50,000,000 characters")
    assert failed["h/binary.txt"] == "binary data, not text"
    skipped = reasons(find_sources(hostile).skipped)
    assert skipped.keys() == {"h/image.txt", "h/photo.jpg", "h/loop", "h/self.txt", "h/pipe.txt"}


def test_two_runs_are_equal(hostile: Path) -> None:
    (hostile / "long.txt").unlink()
    assert list(load_documents(hostile)) == list(load_documents(hostile))
