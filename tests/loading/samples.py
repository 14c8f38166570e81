"""Files and bytes that several tests need."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ctxindex.loading import Found, LoadOptions, SkippedSource, find_sources, load_source
from ctxindex.types import Document, FailedDocument

FIXTURES = Path(__file__).parent / "fixtures"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)


def minimal_pdf(pages: Sequence[Sequence[str]], title: str | None = None) -> bytes:
    """A PDF with one text line a string; strings are ASCII without parentheses."""
    kids = " ".join(f"{4 + 2 * number} 0 R" for number in range(len(pages)))
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for number, lines in enumerate(pages):
        content = "BT /F1 12 Tf 72 720 Td 14 TL " + " ".join(f"({line}) Tj T*" for line in lines) + " ET"
        objects.append(
            "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Resources << /Font << /F1 3 0 R >> >> "
            f"/Contents {5 + 2 * number} 0 R >>"
        )
        objects.append(f"<< /Length {len(content)} >>\nstream\n{content}\nendstream")
    trailer = f"/Size {len(objects) + 1} /Root 1 0 R"
    if title is not None:
        objects.append(f"<< /Title ({title}) >>")
        trailer = f"/Size {len(objects) + 1} /Root 1 0 R /Info {len(objects)} 0 R"
    return _assemble(objects, trailer)


def _assemble(objects: Sequence[str], trailer: str) -> bytes:
    out = b"%PDF-1.4\n"
    offsets = []
    for number, value in enumerate(objects, 1):
        offsets.append(len(out))
        out += f"{number} 0 obj\n{value}\nendobj\n".encode()
    entries = "".join(f"{offset:010d} 00000 n \n" for offset in offsets)
    xref = f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{entries}"
    return out + f"{xref}trailer << {trailer} >>\nstartxref\n{len(out)}\n%%EOF\n".encode()


def write(folder: Path, files: dict[str, str | bytes]) -> Path:
    """Write files by their path inside `folder`."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def ids(found: Found) -> list[str]:
    """The doc_ids of the sources, in order."""
    return [source.doc_id for source in found.sources]


def reasons(items: Sequence[SkippedSource] | Sequence[FailedDocument]) -> dict[str, str]:
    """doc_id -> reason."""
    return {item.doc_id: item.reason for item in items}


def outcome(path: Path, options: LoadOptions | None = None) -> Document | FailedDocument | SkippedSource:
    """What comes of one file, whether it is known at the plan or only when it is loaded."""
    with find_sources(path, options) as found:
        if found.sources:
            assert len(found.sources) == 1
            return load_source(found.sources[0], options)
        results: list[FailedDocument | SkippedSource] = [*found.failures, *found.skipped]
        return results[0]


def document(path: Path, options: LoadOptions | None = None) -> Document:
    """The document of one file."""
    result = outcome(path, options)
    assert isinstance(result, Document), result
    return result


def failure(path: Path, options: LoadOptions | None = None) -> FailedDocument:
    """The failure of one file."""
    result = outcome(path, options)
    assert isinstance(result, FailedDocument), result
    return result
