"""The command line as tests call it: `run` in this process, `run_process` in one of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from ctxindex.cli import main
from tests.in_process import in_process

_OFFLINE = {"HF_HUB_OFFLINE": "1"}


def run(
    *arguments: str | Path, cwd: Path, stdin: str | None = None, **environ: str
) -> subprocess.CompletedProcess[str]:
    """What `ctxindex` with these arguments prints and exits with; `environ` is added to the variables there are."""
    argv = ["ctxindex", *map(str, arguments)]
    return in_process(main, argv, cwd=cwd, stdin=stdin, environ={**_OFFLINE, **environ})


def run_process(
    *arguments: str | Path, cwd: Path, stdin: str | None = None, **environ: str
) -> subprocess.CompletedProcess[str]:
    """As `run`, in a process: some seconds more, for tests of what only a process can show."""
    command = [sys.executable, "-m", "ctxindex.cli", *map(str, arguments)]
    environment = {**os.environ, **_OFFLINE, **environ}
    return subprocess.run(
        command, cwd=cwd, env=environment, input=stdin, capture_output=True, encoding="utf-8", timeout=300
    )


def answer(result: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The JSON that a command printed."""
    assert "Traceback" not in result.stderr
    values = json.loads(result.stdout)
    assert isinstance(values, dict)
    return values
