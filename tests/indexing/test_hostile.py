"""A folder of everything that goes wrong, through the whole of an ingest, into both stores."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ctxindex import Document, Index, load_documents


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("hostile") / "docs"
    place.mkdir()
    good = {
        "crlf.txt": b"first line\r\nsecond line\r\n\r\nthird",
        "rtl.txt": "هذا العقد بين الطرفين".encode(),
        "emoji.txt": "signed 👩‍👩‍👧 and sealed 🙂".encode(),
        "special.txt": b"a literal [SEP] and a [CLS] and a [PAD]",
        "nul.txt": b"before\x00after, and more text around it",
        "latin.txt": "Der Vertrag läuft über zwei Jahre; für Änderungen gilt die Schriftform.".encode("cp1252"),
        "utf16.txt": "Ein Vertrag über Öl".encode("utf-16"),
        'it\'s "a" file; DROP TABLE (x).txt': b"quotes in the name",
        "ünï 漢字.md": b"# A title\n\ntext",
        "back\\slash %_.txt": b"more of that",
        os.fsdecode(b"bytes \xff\xfe.txt"): b"a name that is no UTF-8",
    }
    bad = {
        "empty.txt": b"",
        "binary.txt": bytes(range(256)) * 8,
        "broken.pdf": b"%PDF-1.4\n garbage",
        "wrong.docx": b"PK\x03\x04 no",
        "surrogate.txt": b"lone \xed\xa0\x80 surrogate in a text",
        "oneline.txt": b"x" * 50_000_000,
    }
    skipped = {
        "picture.png": b"\x89PNG\r\n\x1a\n",
        "archive.zip": b"PK\x05\x06" + bytes(18),
        "blob.bin": os.urandom(4096),
    }
    for name, data in {**good, **bad, **skipped}.items():
        (place / name).write_bytes(data)
    (place / "loop").symlink_to(place)
    (place / "broken-link.txt").symlink_to(place / "nowhere.txt")
    os.mkfifo(place / "pipe")
    return place


@pytest.mark.parametrize("store", ["lancedb", "qdrant"])
def test_every_good_file_is_indexed_and_every_bad_one_told(store: str, folder: Path, tmp_path: Path) -> None:
    with Index.open("hostile", store=store, path=tmp_path, method="late", device="cpu") as index:
        report = index.ingest(folder)
        assert report.new == 11
        assert sorted(failure.doc_id for failure in report.failures) == [
            f"docs/{name}"
            for name in ("binary.txt", "broken.pdf", "empty.txt", "oneline.txt", "surrogate.txt", "wrong.docx")
        ]
        assert report.skipped >= 3
        for document in load_documents(folder):
            if isinstance(document, Document):
                chunks = index.chunks(document.doc_id)
                assert chunks, document.doc_id
                assert all(chunk.text == document.text[chunk.start : chunk.end] for chunk in chunks)
                hits = index.search(chunks[0].text, k=1, where={"doc_id": document.doc_id})
                assert [hit.doc_id for hit in hits] == [document.doc_id]
        again = index.ingest(folder)
        assert (again.new, again.changed, again.unchanged, again.chunks) == (0, 0, 11, 0)
        assert len(again.failures) == 6
