"""PDF: the text layer, page by page.

Knows pages and the title in the file's metadata; no headings, because a PDF has none, and no images of text.
"""

from __future__ import annotations

import re
import threading
from typing import TYPE_CHECKING, Final

from ctxindex.errors import DocumentError
from ctxindex.loading.building import clean_title, missing_package, repair_surrogates
from ctxindex.loading.values import Parsed, check_chars

if TYPE_CHECKING:
    from pypdfium2 import PdfDocument  # type: ignore[import-untyped]

_PAGE_BREAK: Final = "\n\n"
_HEADER_BYTES: Final = 1024
_PASSWORD_ERROR: Final = 4
_LINE_END: Final = re.compile(r"\r\n?|\f")
# What PDFium writes where a word is divided at the end of a line.
_DIVIDED: Final = re.compile("[\x02\ufffe](?:\r\n|\r|\n)?")
_FILE_NAME: Final = re.compile(r"\.(?:docx?|dotx?|pdf|rtf|odt|txt|indd|qxd|tex|dvi|ps|html?|xlsx?|pptx?|wpd)$", re.I)
_PRODUCER_TITLE: Final = re.compile(r"^(?:microsoft (?:word|powerpoint|excel) - |untitled\b|\(anonymous\))", re.I)

# PDFium is one C library with one state; two threads in it corrupt each other.
_PDFIUM: Final = threading.Lock()


def load_pdf(data: bytes, *, max_chars: int) -> Parsed:
    """The pages of a PDF, with an empty line between them."""
    if b"%PDF-" not in data[:_HEADER_BYTES]:
        raise DocumentError("named .pdf but holds no PDF")
    try:
        import pypdfium2
    except ImportError:
        raise missing_package("pypdfium2", extra="pdf", purpose="reading PDF files") from None
    with _PDFIUM:
        try:
            document = pypdfium2.PdfDocument(data)
        except pypdfium2.PdfiumError as error:
            if error.err_code == _PASSWORD_ERROR:
                raise DocumentError("encrypted PDF: needs a password") from None
            raise DocumentError(f"broken PDF: {error}") from None
        try:
            return _parse(document, max_chars)
        except pypdfium2.PdfiumError as error:
            raise DocumentError(f"broken PDF: {error}") from None
        finally:
            document.close()


def _parse(document: PdfDocument, max_chars: int) -> Parsed:
    parts: list[str] = []
    starts = []
    length = 0
    for number in range(len(document)):
        if number:
            length += len(_PAGE_BREAK)
        starts.append(length)
        parts.append(_page_text(document, number))
        length += len(parts[-1])
        check_chars(length, max_chars)
    if not any(part.strip() for part in parts):
        raise DocumentError("no text layer (scanned?); run OCR first")
    return Parsed(_PAGE_BREAK.join(parts), title=_title(document), pages=tuple(starts))


def _page_text(document: PdfDocument, number: int) -> str:
    page = document[number]
    try:
        textpage = page.get_textpage()
        try:
            raw = textpage.get_text_bounded(errors="surrogatepass")
        finally:
            textpage.close()
    finally:
        page.close()
    text = _DIVIDED.sub("", raw.rstrip("\x00"))
    return repair_surrogates(_LINE_END.sub("\n", text)).strip("\n")


def _title(document: PdfDocument) -> str | None:
    title = clean_title(repair_surrogates(document.get_metadata_value("Title")))
    if title is None or _FILE_NAME.search(title) or _PRODUCER_TITLE.search(title):
        return None
    return title
