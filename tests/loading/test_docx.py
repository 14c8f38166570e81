from __future__ import annotations

import io
import sys
import zipfile
from pathlib import Path

import docx
import pytest
from docx.document import Document as WordDocument

from ctxindex.errors import DocumentError
from ctxindex.loading import LoadOptions
from ctxindex.loading.docx import load_docx
from ctxindex.types import Section

from .samples import document, failure

OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600)


def saved(word: WordDocument) -> bytes:
    out = io.BytesIO()
    word.save(out)
    return out.getvalue()


def zipped(**parts: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name.replace("__", "/").replace("_", "."), content)
    return out.getvalue()


@pytest.fixture
def contract() -> WordDocument:
    word = docx.Document()
    word.add_paragraph("The Contract", style="Title")
    word.add_paragraph("Preamble")
    word.add_heading("Terms", 1)
    word.add_paragraph("First term")
    word.add_heading("Money", 2)
    table = word.add_table(rows=2, cols=3)
    for number, text in enumerate(("a", "", "c", "1", "2\n2b", "3")):
        table.cell(number // 3, number % 3).text = text
    word.add_paragraph("After")
    word.add_heading("", 1)
    word.add_heading("Ende", 1)
    return word


def test_paragraphs_tables_and_sections(contract: WordDocument) -> None:
    parsed = load_docx(saved(contract), max_chars=1000)
    text = "The Contract\n\nPreamble\n\nTerms\n\nFirst term\n\nMoney\n\na\tc\n1\t2\n2b\t3\n\nAfter\n\nEnde"
    assert parsed.text == text
    assert parsed.title == "The Contract"
    assert parsed.sections == (
        Section(text.index("Terms"), ("Terms",)),
        Section(text.index("Money"), ("Terms", "Money")),
        Section(text.index("Ende"), ("Ende",)),
    )


def test_title_of_the_properties_comes_first(contract: WordDocument) -> None:
    contract.core_properties.title = " From the\nproperties "
    assert load_docx(saved(contract), max_chars=1000).title == "From the properties"


def test_merged_and_nested_cells() -> None:
    word = docx.Document()
    table = word.add_table(rows=2, cols=2)
    table.cell(0, 0).merge(table.cell(0, 1)).text = "wide"
    inner = table.cell(1, 1).add_table(1, 2)
    inner.cell(0, 0).text, inner.cell(0, 1).text = "x", "y"
    table.cell(1, 0).text = "left"
    assert load_docx(saved(word), max_chars=1000).text == "wide\nleft\tx\ty"


def test_long_table_takes_linear_time() -> None:
    word = docx.Document()
    table = word.add_table(rows=1, cols=2)
    row = table.rows[0]._tr
    for _ in range(3000):
        table._tbl.append(row.__copy__())
    assert load_docx(saved(word), max_chars=10).text == ""


def test_named_otherwise(contract: WordDocument, tmp_path: Path) -> None:
    (tmp_path / "c.txt").write_bytes(saved(contract))
    loaded = document(tmp_path / "c.txt")
    assert loaded.title == "The Contract"
    assert loaded.metadata == {"file_name": "c.txt", "file_type": "txt"}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (OLE, "encrypted, or a legacy Word file"),
        (b"plain text", "not a zip archive"),
        (zipped(xl__workbook_xml=b"<x/>"), r"word/document\.xml is missing"),
        (zipped(word__document_xml=b"<x/>"), "broken"),
    ],
)
def test_no_word_document(data: bytes, reason: str) -> None:
    with pytest.raises(DocumentError, match=reason):
        load_docx(data, max_chars=1000)


def test_damaged(contract: WordDocument, tmp_path: Path) -> None:
    data = bytearray(saved(contract))
    middle = data.index(b"word/document.xml") + 200
    data[middle : middle + 50] = bytes(50)
    (tmp_path / "c.docx").write_bytes(data)
    failed = failure(tmp_path / "c.docx")
    assert failed.reason
    assert "\n" not in failed.reason
    assert failed.source_hash


def test_zip_bomb(tmp_path: Path) -> None:
    (tmp_path / "b.docx").write_bytes(zipped(word__document_xml=bytes(20_000_000)))
    with pytest.raises(DocumentError, match="oversized: 20,000,000 bytes of XML"):
        load_docx((tmp_path / "b.docx").read_bytes(), max_chars=1000)
    assert failure(tmp_path / "b.docx", LoadOptions(max_chars=1000)).source_hash == ""


def test_missing_package(contract: WordDocument, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "c.docx").write_bytes(saved(contract))
    monkeypatch.setitem(sys.modules, "docx", None)
    failed = failure(tmp_path / "c.docx")
    assert failed.reason == "reading .docx files needs the package python-docx: pip install 'ctxindex[docx]'"
    assert failed.source_hash == ""
