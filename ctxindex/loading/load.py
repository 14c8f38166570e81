"""From a source to its document: reads the bytes once, hashes them, and hands them to the loader of their kind.

Every way in which a file can be bad ends here, as an outcome; no exception of a parser gets out.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Final, cast

from ctxindex.errors import DocumentError
from ctxindex.loading.files import file_size, hash_blocks, read_blocks, utf8_name
from ctxindex.loading.jsonl import check_line_bytes, parse_line
from ctxindex.loading.kinds import extension
from ctxindex.loading.sources import PathLike, find_sources
from ctxindex.loading.values import (
    DEFAULT_MAX_CHARS,
    Found,
    Loader,
    LoadOptions,
    NotTextError,
    Outcome,
    Parsed,
    SkippedSource,
    Source,
    check_bytes,
)
from ctxindex.types import Document, FailedDocument

_LOADERS: Final[Mapping[str, tuple[str, str]]] = {
    "text": ("text", "load_text"),
    "unknown": ("text", "load_text"),
    "rst": ("text", "load_rst"),
    "markdown": ("markdown", "load_markdown"),
    "html": ("html", "load_html"),
    "pdf": ("pdf", "load_pdf"),
    "docx": ("docx", "load_docx"),
}
# Pictures count here and say nothing about the length of the text; this only keeps the memory bounded.
_MAX_PACKED_BYTES: Final = 1 << 30
_REASON_CHARS: Final = 300


def load_documents(
    paths: PathLike | Sequence[PathLike],
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    no_ignore: bool = False,
    root: PathLike | None = None,
    max_chars: int = DEFAULT_MAX_CHARS,
) -> Iterator[Document | FailedDocument]:
    """The documents in `paths` one by one, and in their place those that failed; what is skipped is left out.

    The texts are those that ingest stores: `document.text[start:end]` is the chunk with that span.

    Args:
        paths: files, folders, JSONL files, or `-` for JSONL on stdin.
        include: globs for the contents of folders; empty takes all.
        exclude: globs for the contents of folders; wins over `include`.
        no_ignore: take files that .gitignore leaves out.
        root: the folder that doc_ids are relative to, instead of starting with the name of the path given.
        max_chars: characters of text a document may have.

    Raises:
        UsageError: for a path that does not exist or lies outside of `root`, and for a glob that is none.
        DuplicateDocumentError: where two sources have one doc_id.
    """
    folder = None if root is None else Path(root)
    options = LoadOptions.of(include, exclude, folder, no_ignore=no_ignore, max_chars=max_chars)
    return _stream(find_sources(paths, options), options)


def _stream(found: Found, options: LoadOptions) -> Iterator[Document | FailedDocument]:
    with found:
        yield from found.failures
        for source in found.sources:
            outcome = load_source(source, options)
            if not isinstance(outcome, SkippedSource):
                yield outcome


def load_source(source: Source, options: LoadOptions | None = None) -> Outcome:
    """The document of one source; or why it failed; or why it is none after all.

    `source_hash` is over the very bytes that were parsed. A failure carries it too, unless its cause lies outside the
    file, so that the next run should try again. Never raises for anything a file may hold.
    """
    max_chars = (options or LoadOptions()).max_chars
    source_hash = ""
    try:
        data = _read(source, max_chars)
        source_hash = hash_blocks(source, (data,))
        parsed = _parse(source, data, max_chars)
        if not parsed.text or parsed.text.isspace():
            raise DocumentError("empty")
    except NotTextError as error:
        if source.kind == "unknown":
            return SkippedSource(source.doc_id, error.reason, source_hash)
        return FailedDocument(source.doc_id, error.reason, source_hash)
    except DocumentError as error:
        return FailedDocument(source.doc_id, _one_line(error.reason), "" if error.transient else source_hash)
    except MemoryError:
        return FailedDocument(source.doc_id, "not enough memory to load it")
    except RecursionError:
        return FailedDocument(source.doc_id, "nested too deeply", source_hash)
    except Exception as error:
        # Parsers fail on hostile files in ways that can't be listed; the run goes on.
        return FailedDocument(source.doc_id, _one_line(f"{type(error).__name__}: {error}"), source_hash)
    return Document(
        doc_id=source.doc_id,
        text=parsed.text,
        title=parsed.title,
        metadata=_metadata(source, parsed),
        sections=parsed.sections,
        pages=parsed.pages,
        source_hash=source_hash,
    )


def _read(source: Source, max_chars: int) -> bytes:
    if source.kind == "jsonl":
        check_line_bytes(source.length or 0, max_chars=max_chars)
    else:
        size = file_size(source.path)
        if source.kind not in ("pdf", "docx"):
            check_bytes(size, max_chars)
        elif size > _MAX_PACKED_BYTES:
            raise DocumentError(f"oversized: {size:,} bytes, limit {_MAX_PACKED_BYTES:,}")
    return b"".join(read_blocks(source))


def _parse(source: Source, data: bytes, max_chars: int) -> Parsed:
    if source.kind == "jsonl":
        doc_id, parsed = parse_line(data, max_chars=max_chars)
        if doc_id != source.doc_id:
            raise DocumentError("the file changed while it was read; run again", transient=True)
        return parsed
    return _loader(source.kind)(data, max_chars=max_chars)


def _loader(kind: str) -> Loader:
    # Imported by name when first needed: each brings a parser.
    module, function = _LOADERS[kind]
    return cast(Loader, getattr(import_module(f"ctxindex.loading.{module}"), function))


def _metadata(source: Source, parsed: Parsed) -> Mapping[str, Any]:
    if source.kind == "jsonl":
        return parsed.metadata
    name = os.path.basename(source.path)
    return {"file_name": utf8_name(name), "file_type": utf8_name(extension(name)), **parsed.metadata}


def _one_line(reason: str) -> str:
    return " ".join(reason.split())[:_REASON_CHARS]
