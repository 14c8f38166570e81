"""Opening files so that nothing hangs, reading them in blocks, and names that encode to UTF-8.

Knows the file system; not formats, folders or documents.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from ctxindex.errors import DocumentError
from ctxindex.loading.values import LOADER_VERSION, Source

_BLOCK: Final = 1 << 20
_SPECIAL: Final = (
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISDIR, "a folder"),
)


def special_file(mode: int) -> str | None:
    """What a file is that is no regular one ("a FIFO"); `mode` is that of `os.stat`."""
    if stat.S_ISREG(mode):
        return None
    return next((name for test, name in _SPECIAL if test(mode)), "no regular file")


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a regular file for reading, and nothing else: not even a FIFO that was put in its place just now.

    Raises:
        DocumentError: transient, where it can't be opened or is no regular file.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise unreadable(error) from None
    file = os.fdopen(descriptor, "rb")
    if special := special_file(os.fstat(descriptor).st_mode):
        file.close()
        raise DocumentError(f"is {special}, not a file", transient=True)
    return file


def unreadable(error: OSError) -> DocumentError:
    """An error of the operating system as the failure of a document; it is tried again at the next run."""
    if error.errno == errno.ENOENT:
        return DocumentError("cannot be read: it is gone", transient=True)
    return DocumentError(f"cannot be read: {(error.strerror or str(error)).lower()}", transient=True)


def read_blocks(source: Source) -> Iterator[bytes]:
    """The bytes of a source, in blocks of 1 MiB.

    Raises:
        DocumentError: transient, where they can't be read.
    """
    with open_regular(source.path) as file:
        try:
            file.seek(source.offset)
            left = source.length
            while block := file.read(_BLOCK if left is None else min(_BLOCK, left)):
                left = None if left is None else left - len(block)
                yield block
        except OSError as error:
            raise unreadable(error) from None


def file_size(path: Path) -> int:
    """Bytes.

    Raises:
        DocumentError: transient, where it can't be told.
    """
    try:
        return os.stat(path).st_size
    except OSError as error:
        raise unreadable(error) from None


def hash_source(source: Source) -> str:
    """sha256 (hex) over the loader version, the kind and the bytes of a source: equal if it would load the same.

    Reads in blocks and parses nothing.

    Raises:
        DocumentError: transient, where the source can't be read.
    """
    return hash_blocks(source, read_blocks(source))


def hash_blocks(source: Source, blocks: Iterator[bytes] | tuple[bytes, ...]) -> str:
    """Like `hash_source`, over bytes that were read before."""
    digest = hashlib.sha256(f"ctxindex loader {LOADER_VERSION}\0{source.kind}\0".encode())
    for block in blocks:
        digest.update(block)
    return digest.hexdigest()


def utf8_name(name: str) -> str:
    r"""A file's name with bytes that are no UTF-8 written as `\xff`, so that it can be stored and printed."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
