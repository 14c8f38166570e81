"""What a process would print and exit with, without the seconds that a process takes to import torch.

`in_process` calls a program's main function in this process and leaves nothing of it behind. The program meets what it
would meet in a process of its own: its arguments, folder, variables and standard input; no terminal; descriptors 1 and
2 that lead to two files, so that what C code or a library's log handler writes is caught, too; Python's own warning
filters in place of pytest's, and nobody who listens to the root logger; nothing in the caches of our modules, and as
many threads as torch takes by itself. What only a new process can show (what is imported when, signals, pipes that
break, two at a time) is to be tested with one.
"""

from __future__ import annotations

import io
import logging
import os
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from subprocess import CompletedProcess
from typing import IO, TextIO
from unittest import mock

import pytest
import torch

from ctxindex.encoding import encoder, model_files, runtime

_OURS = ("ctxindex", "ctxindex_lancedb", "ctxindex_qdrant")
_KEPT = (model_files._sha256,)
"""Holds as long as the file is as it was, in this process as in any; and takes a fifth of a second."""

_THREADS = torch.get_num_threads()
"""What torch takes by itself: tests are collected before the first of them can change it."""


def in_process(
    main: Callable[[], object],
    argv: Sequence[str],
    *,
    cwd: Path,
    stdin: str | None = None,
    environ: Mapping[str, str] | None = None,
) -> CompletedProcess[str]:
    """Call `main` as a process with the arguments `argv` would, of which the first is the program's name.

    `environ` is added to the variables there are. An exception that leaves `main` is a traceback and exit code 1; only
    KeyboardInterrupt, which is meant for pytest, goes on.
    """
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.chdir(cwd)
        stack.enter_context(mock.patch.dict(os.environ, environ or {}))  # takes away what the program adds, too
        patch.setattr(sys, "argv", list(argv))
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO((stdin or "").encode()), encoding="utf-8"))
        # The tests' conftest settles on float32, of which a process knows nothing.
        patch.setattr(encoder, "choose_dtype", runtime.choose_dtype)
        outputs = [stack.enter_context(_caught(descriptor, patch)) for descriptor in (1, 2)]
        for fresh in (_fresh_warnings, _fresh_logging, _fresh_settings):
            stack.enter_context(fresh())
        code = _exit_code(main)
        sys.stdout.flush()
        sys.stderr.flush()
        return CompletedProcess(list(argv), code, *map(_text, outputs))


def _exit_code(main: Callable[[], object]) -> int:
    """What the interpreter would make of the way in which `main` ends."""
    try:
        main()
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        sys.stderr.write(f"{end.code}\n")
        return 1
    except Exception:
        traceback.print_exc()
        return 1
    return 0


@contextmanager
def _caught(descriptor: int, patch: pytest.MonkeyPatch) -> Iterator[IO[bytes]]:
    """A file that a descriptor and its stream in `sys` lead to.

    The stream writes to the descriptor and is never closed: a log handler that keeps it goes on to write to what the
    descriptor leads to by then, as it would in a process.
    """
    name = {1: "stdout", 2: "stderr"}[descriptor]
    getattr(sys, name).flush()
    before = os.dup(descriptor)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), descriptor)
        stream: TextIO = open(descriptor, "w", encoding="utf-8", buffering=1, closefd=False)  # noqa: SIM115
        patch.setattr(sys, name, stream)
        try:
            yield file
        finally:
            stream.flush()
            os.dup2(before, descriptor)
            os.close(before)


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return io.TextIOWrapper(io.BytesIO(file.read()), encoding="utf-8").read()


@contextmanager
def _fresh_warnings() -> Iterator[None]:
    """The filters that Python starts with; what they let through is written to standard error and stops nothing."""

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        sys.stderr.write(warnings.formatwarning(message, category, filename, lineno, line))

    with warnings.catch_warnings():
        warnings.resetwarnings()
        for category in (ResourceWarning, ImportWarning, PendingDeprecationWarning, DeprecationWarning):
            warnings.simplefilter("ignore", category)
        warnings.filterwarnings("default", category=DeprecationWarning, module="__main__")
        warnings.showwarning = show
        yield


@contextmanager
def _fresh_logging() -> Iterator[None]:
    """No handler of pytest's, so that our warnings are printed; handlers of libraries write to this standard error."""
    root = logging.getLogger()
    loggers = [root, *(one for one in root.manager.loggerDict.values() if isinstance(one, logging.Logger))]
    before = {logger: logger.handlers for logger in loggers}
    during = {
        logger: [_to_stderr(one) for one in handlers if logger is not root] for logger, handlers in before.items()
    }
    level = root.level
    root.setLevel(logging.WARNING)
    for logger, handlers in during.items():
        logger.handlers = list(handlers)
    try:
        yield
    finally:
        root.setLevel(level)
        for logger, handlers in before.items():
            added = [one for one in logger.handlers if one not in during[logger]]
            logger.handlers = [*handlers, *added]


def _to_stderr(handler: logging.Handler) -> logging.Handler:
    """A handler that writes where standard error is now, and not where it was when a library was imported."""
    if type(handler) is not logging.StreamHandler:
        return handler
    made = logging.StreamHandler(sys.stderr)
    made.setLevel(handler.level)
    made.setFormatter(handler.formatter)
    return made


@contextmanager
def _fresh_settings() -> Iterator[None]:
    """Nothing remembered by our modules, and torch's own number of threads."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in _OURS:
            for value in list(vars(module).values()):
                if callable(clear := getattr(value, "cache_clear", None)) and value not in _KEPT:
                    clear()
    threads = torch.get_num_threads()
    torch.set_num_threads(_THREADS)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
