"""Starting `writer.py`, reading what it says, and killing it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

WRITER = Path(__file__).with_name("writer.py")


@contextmanager
def writing(uri: str, folder: Path, mode: str) -> Iterator[tuple[subprocess.Popen[str], IO[str]]]:
    """A writer that is ready; killed with SIGKILL in the end."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, str(WRITER), uri, str(folder), mode]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        yield process, process.stdout
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
