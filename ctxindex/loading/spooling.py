"""Temporary copies of what can't be read twice: standard input, and compressed files.

Knows streams; not what is in them.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import zlib
from pathlib import Path
from typing import BinaryIO, Final

from ctxindex.errors import DocumentError
from ctxindex.loading.files import open_regular, unreadable

_BLOCK: Final = 1 << 20


class Spool:
    """A temporary file with the content of a stream. Deleted by `close`, or else when the process ends."""

    def __init__(self, stream: BinaryIO) -> None:
        descriptor, name = tempfile.mkstemp(prefix="ctxindex-", suffix=".jsonl")
        self.path = Path(name)
        atexit.register(self.close)
        try:
            with os.fdopen(descriptor, "wb") as file:
                shutil.copyfileobj(stream, file, _BLOCK)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Delete the file."""
        atexit.unregister(self.close)
        self.path.unlink(missing_ok=True)


def spool_gzip(path: Path) -> Spool:
    """The content of a gzip file.

    Raises:
        DocumentError: where it is broken or can't be read.
    """
    import gzip

    with open_regular(path) as packed:
        try:
            with gzip.GzipFile(fileobj=packed) as stream:
                return Spool(stream)  # type: ignore[arg-type]
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise DocumentError(f"broken gzip file: {error}") from None
        except OSError as error:
            raise unreadable(error) from None
