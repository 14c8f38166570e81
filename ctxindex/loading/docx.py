"""Word's .docx: paragraphs and tables in order, heading styles as sections.

Knows the body of the document; headers, footers, footnotes, comments and text boxes are left out.
"""

from __future__ import annotations

import io
import re
import zipfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from ctxindex.errors import DocumentError
from ctxindex.loading.building import TextBuilder, clean_title, first_title, missing_package, sections_of
from ctxindex.loading.kinds import magic
from ctxindex.loading.values import Parsed

if TYPE_CHECKING:
    from docx.document import Document as WordDocument
    from docx.table import Table, _Cell
    from docx.text.paragraph import Paragraph

_MAIN_PART: Final = "word/document.xml"
_HEADING_STYLE: Final = re.compile(r"heading ([1-9])$", re.IGNORECASE)
# What may be unpacked: XML becomes a tree of several times its size, and pictures are held although nobody reads them.
_XML_BYTES_PER_CHAR: Final = 10
_XML_BYTES_LEAST: Final = 1 << 24
_PICTURE_BYTES: Final = 1 << 29
_MAX_TABLE_DEPTH: Final = 20


def load_docx(data: bytes, *, max_chars: int) -> Parsed:
    """The body of a Word document. Its title is that of its properties, of the Title style, or its first heading."""
    _check_archive(data, max_chars)
    try:
        import docx
    except ImportError:
        raise missing_package("python-docx", extra="docx", purpose="reading .docx files") from None
    try:
        document = docx.Document(io.BytesIO(data))
    except (KeyError, ValueError, SyntaxError) as error:
        # lxml's errors are syntax errors.
        raise DocumentError(f"broken .docx: {error}") from None
    reader = _Reader(TextBuilder(max_chars), {style.style_id: style.name or "" for style in document.styles})
    reader.add_blocks(document, depth=0)
    headings = reader.builder.headings
    title = clean_title(document.core_properties.title) or next(iter(reader.titles), None) or first_title(headings)
    return Parsed(reader.builder.text(), title=title, sections=sections_of(headings))


def _check_archive(data: bytes, max_chars: int) -> None:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            sizes = {info.filename: info.file_size for info in archive.infolist()}
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        if (magic(data[:16]) or "").startswith("an OLE file"):
            raise DocumentError("encrypted, or a legacy Word file (.doc) named .docx") from None
        raise DocumentError("named .docx but holds no Word document: not a zip archive") from None
    if _MAIN_PART not in sizes:
        raise DocumentError(f"named .docx but holds no Word document: {_MAIN_PART} is missing")
    n_xml = sum(size for name, size in sizes.items() if name.endswith((".xml", ".rels")))
    n_other = sum(sizes.values()) - n_xml
    if n_xml > (limit := max(_XML_BYTES_LEAST, _XML_BYTES_PER_CHAR * max_chars)):
        reason = f"oversized: {n_xml:,} bytes of XML when unpacked, limit {limit:,} (raise it with --max-chars)"
        raise DocumentError(reason, transient=True)
    if n_other > _PICTURE_BYTES:
        raise DocumentError(f"oversized: {n_other:,} bytes of pictures when unpacked, limit {_PICTURE_BYTES:,}")


@dataclass
class _Reader:
    """Reads blocks into a text. `styles` gives each style's name by its id; `titles` collects those of style Title.

    Goes through the XML where python-docx looks up styles, or lays out a table's whole grid, anew for every row.
    """

    builder: TextBuilder
    styles: dict[str, str]
    titles: list[str] = field(default_factory=list)

    def add_blocks(self, container: WordDocument | _Cell, *, depth: int) -> None:
        """Add the paragraphs and tables of a document or, at a `depth` of tables, of a cell."""
        from docx.table import Table

        separator = "\n" if depth else "\n\n"
        for block in container.iter_inner_content():
            self.builder.break_with(separator)
            if not isinstance(block, Table):
                self._add_paragraph(block)
            elif depth < _MAX_TABLE_DEPTH:
                self._add_table(block, depth + 1)
                self.builder.break_with(separator)

    def _add_paragraph(self, paragraph: Paragraph) -> None:
        style = self.styles.get(paragraph._p.style or "", "")
        mark = self.builder.mark()
        text = paragraph.text.strip()
        self.builder.add(text)
        if level := _HEADING_STYLE.match(style):
            self.builder.heading(mark, int(level[1]))
        elif style == "Title" and (title := clean_title(text)):
            self.titles.append(title)

    def _add_table(self, table: Table, depth: int) -> None:
        from docx.table import _Cell

        for row in table._tbl.tr_lst:
            self.builder.break_with("\n")
            for number, element in enumerate(row.tc_lst):
                if element.vMerge == "continue":
                    continue
                if number:
                    self.builder.break_with("\t")
                # The break before a cell's first paragraph is the one that its row asked for.
                self.builder.hold()
                self.add_blocks(_Cell(element, table), depth=depth)
                self.builder.release()
