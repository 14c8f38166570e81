"""That a program in this process meets what it would meet in one of its own, and leaves nothing behind."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from ctxindex.encoding import encoder, runtime
from ctxindex.encoding.runtime import choose_dtype
from tests.in_process import in_process


def test_a_program_meets_its_arguments_and_finds_no_terminal(tmp_path: Path) -> None:
    def main() -> None:
        assert not any(stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr))
        sys.stdout.write(
            "\n".join([*sys.argv, str(Path.cwd()), os.environ["COLOUR"], sys.stdin.buffer.read().decode()])
        )
        os.environ["LEFT"] = "behind"
        os.chdir("/")

    here, variables, argv, streams = Path.cwd(), dict(os.environ), sys.argv, (sys.stdin, sys.stdout, sys.stderr)
    result = in_process(main, ["name", "argument"], cwd=tmp_path, stdin="größer\n", environ={"COLOUR": "blue"})
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == ["name", "argument", str(tmp_path), "blue", "größer"]
    assert (Path.cwd(), dict(os.environ), sys.argv) == (here, variables, argv)
    assert (sys.stdin, sys.stdout, sys.stderr) == streams


def test_output_of_all_kinds_is_caught_and_kept_apart(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def main() -> None:
        sys.stdout.write("written… ")
        sys.stdout.flush()
        os.write(1, b"by C code, ")
        subprocess.run([sys.executable, "-c", "print('by a child')"], check=True)
        os.write(2, b"failed\n")

    result = in_process(main, ["name"], cwd=tmp_path)
    assert (result.stdout, result.stderr) == ("written… by C code, by a child\n", "failed\n")
    os.write(1, b"after")
    assert capfd.readouterr() == ("after", "")


@pytest.mark.parametrize(("end", "code", "said"), [(None, 0, ""), (3, 3, ""), ("no", 1, "no\n")])
def test_the_way_it_ends_is_an_exit_code(end: object, code: int, said: str, tmp_path: Path) -> None:
    result = in_process(lambda: sys.exit(end), ["name"], cwd=tmp_path)  # type: ignore[arg-type]
    assert (result.returncode, result.stdout, result.stderr) == (code, "", said)


def test_what_nobody_foresaw_is_a_traceback(tmp_path: Path) -> None:
    result = in_process(lambda: 1 // 0, ["name"], cwd=tmp_path)
    assert result.returncode == 1
    assert result.stderr.startswith("Traceback")
    assert result.stderr.endswith("ZeroDivisionError: integer division or modulo by zero\n")


def test_warnings_are_shown_and_stop_nothing(tmp_path: Path) -> None:
    def main() -> None:
        warnings.warn("much too warm", UserWarning, stacklevel=1)
        warnings.warn("much too old", DeprecationWarning, stacklevel=1)
        sys.exit(0)

    for _ in range(2):
        result = in_process(main, ["name"], cwd=tmp_path)
        assert result.returncode == 0
        assert "UserWarning: much too warm" in result.stderr
        assert "old" not in result.stderr
    with pytest.raises(DeprecationWarning):
        warnings.warn("an error again", DeprecationWarning, stacklevel=1)


def test_messages_go_to_standard_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    library = logging.Logger("library")
    logging.root.manager.loggerDict["library"] = library
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("library: %(message)s"))
    library.addHandler(handler)

    def main() -> None:
        logging.getLogger("ctxindex").warning("ours")
        logging.getLogger("ctxindex").info("whispered")
        library.warning("theirs")
        library.addHandler(logging.NullHandler())

    result = in_process(main, ["name"], cwd=tmp_path)
    del logging.root.manager.loggerDict["library"]
    assert result.stderr == "ours\nlibrary: theirs\n"
    assert library.handlers[0] is handler
    assert len(library.handlers) == 2, "what a program adds stays, as what it imports does"
    logging.getLogger("ctxindex").warning("after")
    assert caplog.messages == ["after"]


def test_nothing_is_remembered(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(before + 2)
        runtime._torch_threads.cache_clear()
        assert runtime._torch_threads() == before + 2
        found: list[object] = []

        def main() -> None:
            found.extend([runtime._torch_threads(), vars(encoder)["choose_dtype"] is choose_dtype])
            torch.set_num_threads(before + 1)

        assert in_process(main, ["name"], cwd=tmp_path).returncode == 0
        assert found == [before, True]
        assert torch.get_num_threads() == before + 2
        assert vars(encoder)["choose_dtype"] is not choose_dtype, "the choice of conftest"
    finally:
        torch.set_num_threads(before)
        runtime._torch_threads.cache_clear()
