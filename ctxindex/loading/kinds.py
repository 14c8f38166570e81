"""Which kind of source a file is: by its name first, by its first bytes where those are unambiguous.

Knows names and magic numbers; opens no paths.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO, Final

from ctxindex.loading.values import Kind

_HEAD_BYTES: Final = 8192

_TEXT: Final = (
    "txt text log csv tsv json yaml yml toml ini cfg conf properties env xml xsd xsl xslt tex bib sty cls srt vtt ass "
    "eml mbox ics vcf diff patch po pot adoc asciidoc org textile wiki mediawiki man "
    "py pyi pyx ipynb rb php pl pm lua r jl m f f90 f95 c h cc cpp cxx hpp hh cs java kt kts scala groovy gradle go "
    "rs swift dart zig nim d hs ml mli fs fsx clj cljs edn ex exs erl hrl elm lisp el scm js mjs cjs jsx ts tsx vue "
    "svelte css scss sass less sql graphql gql proto thrift sh bash zsh fish ps1 bat cmd asm s v sv vhd vhdl tcl cmake "
    "mk dockerfile tf hcl nix lock editorconfig rnw"
)
_KINDS: Final[Mapping[str, Kind]] = {
    **dict.fromkeys(_TEXT.split(), "text"),
    **dict.fromkeys(("md", "markdown", "mdown", "mkd", "rmd", "qmd", "mdx"), "markdown"),
    **dict.fromkeys(("html", "htm", "xhtml"), "html"),
    **dict.fromkeys(("jsonl", "ndjson"), "jsonl"),
    "rst": "rst",
    "pdf": "pdf",
    "docx": "docx",
}

_NO_TEXT: Final = (
    "png svg jpg jpeg jpe gif bmp tif tiff webp ico icns heic heif avif jxl psd ai eps xcf cr2 nef dng "
    "mp3 wav flac ogg oga opus m4a aac wma aif aiff mid midi mp4 m4v mkv mov avi wmv webm flv mpg mpeg 3gp "
    "zip gz tgz bz2 tbz xz txz zst lz4 lzma 7z rar tar cab jar war ear whl egg deb rpm apk dmg iso img "
    "exe dll so dylib a o lib bin msi class pyc pyo pyd wasm elf ko sys "
    "ttf otf woff woff2 eot pfb "
    "db sqlite sqlite3 mdb accdb dbf ldb sst parquet arrow feather orc avro hdf5 h5 npy npz mat rds rdata pkl "
    "pickle joblib lance pt pth ckpt safetensors onnx gguf ggml tflite pb keras mlmodel "
    "swp swo blend fbx glb dwg"
)
_UNSUPPORTED: Final = (
    "doc dot docm dotx dotm xls xlsx xlsm xlsb ppt pptx pptm odt ods odp odg rtf pages numbers epub mobi azw "
    "azw3 djvu ps xps oxps vsd vsdx wpd wps hwp"
)

_SKIPPED: Final[Mapping[str, str]] = {
    **{ending: f"kind .{ending} holds no text" for ending in _NO_TEXT.split()},
    **{ending: f"format .{ending} is not supported" for ending in _UNSUPPORTED.split()},
}

_ZIP: Final = b"PK\x03\x04"
_MAGIC: Final = (
    (b"\x89PNG\r\n\x1a\n", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF87a", "a GIF image"),
    (b"GIF89a", "a GIF image"),
    (b"II*\x00", "a TIFF image"),
    (b"MM\x00*", "a TIFF image"),
    (_ZIP, "a zip archive"),
    (b"PK\x05\x06", "a zip archive"),
    (b"\x1f\x8b\x08", "a gzip archive"),
    (b"BZh91AY&SY", "a bzip2 archive"),
    (b"\xfd7zXZ\x00", "an xz archive"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!\x1a\x07", "a rar archive"),
    (b"\x7fELF", "an ELF executable"),
    (b"\xcf\xfa\xed\xfe", "a Mach-O executable"),
    (b"\xca\xfe\xba\xbe", "a class file or Mach-O executable"),
    (b"\x00asm", "a WebAssembly module"),
    (b"SQLite format 3\x00", "an SQLite database"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an OLE file (legacy office format)"),
    (b"OggS\x00", "Ogg audio or video"),
    (b"fLaC\x00", "FLAC audio"),
    (b"ID3\x03\x00", "MP3 audio"),
    (b"ID3\x04\x00", "MP3 audio"),
    (b"wOFF", "a font"),
    (b"wOF2", "a font"),
    (b"PAR1", "a Parquet file"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
)
_RIFF: Final = {b"WAVE": "WAV audio", b"AVI ": "AVI video", b"WEBP": "a WebP image"}
# A text may well talk about "%PDF-1.7"; only a PDF has nothing else on that line.
_PDF_HEADER: Final = re.compile(rb"%PDF-\d\.\d[ \t]*[\r\n]")
_QUESTIONED: Final = frozenset({"text", "rst", "markdown", "html", "unknown"})


@dataclass(frozen=True, slots=True)
class NoDocument:
    """Why a file is skipped."""

    reason: str


def extension(name: str) -> str:
    """The part of a file's name after its last dot, in lower case; "" where there is none or it begins the name."""
    stem, dot, ending = name.rpartition(".")
    return ending.lower() if dot and stem else ""


def is_compressed_jsonl(name: str) -> bool:
    """Whether a name says JSONL in gzip."""
    return name.lower().endswith((".jsonl.gz", ".ndjson.gz"))


def kind_by_name(name: str) -> Kind | NoDocument:
    """The kind a file's name tells; `NoDocument` for names of known kinds that are skipped unread."""
    ending = extension(name)
    if is_compressed_jsonl(name):
        return "jsonl"
    if ending in _SKIPPED:
        return NoDocument(_SKIPPED[ending])
    return _KINDS.get(ending, "unknown")


def kind_by_content(named: Kind, file: BinaryIO) -> Kind | NoDocument:
    """What the content says about a kind that a file's name told.

    Only kinds that are plain text by name, or unknown, are questioned: a .pdf or .docx that is none must fail with
    the reason, and its loader knows that best. Reads the first 8 KiB of `file`, and the directory of a zip.

    Raises:
        OSError: where `file` can't be read.
    """
    if named not in _QUESTIONED:
        return named
    head = file.read(_HEAD_BYTES)
    if _PDF_HEADER.match(head):
        return "pdf"
    if head.startswith(_ZIP) and _is_docx(file):
        return "docx"
    if found := magic(head):
        return NoDocument(f"holds {found}")
    if named == "unknown" and _looks_binary(head):
        return NoDocument("binary data")
    return named


def magic(head: bytes) -> str | None:
    """What the first bytes of a file are unambiguously the beginning of ("a PNG image"); None for anything else."""
    if head[:4] == b"RIFF" and head[8:12] in _RIFF:
        return _RIFF[head[8:12]]
    return next((name for prefix, name in _MAGIC if head.startswith(prefix)), None)


def _is_docx(file: BinaryIO) -> bool:
    try:
        with zipfile.ZipFile(file) as archive:
            return "word/document.xml" in archive.NameToInfo
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return False


def _looks_binary(head: bytes) -> bool:
    # Cheap and one-sided: what passes here is decoded in full before it counts as text. NUL is no argument here,
    # because UTF-16 is full of them.
    controls = len(head) - len(head.translate(None, bytes((*range(1, 7), *range(14, 27), *range(28, 32)))))
    return controls > 0.1 * len(head)
