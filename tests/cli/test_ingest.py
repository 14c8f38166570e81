"""`ctxindex ingest`: the next command that it names is one that works."""

from __future__ import annotations

from pathlib import Path

from tests.cli.command_line import run
from tests.encoding.tiny import save_sentence_transformer


def next_of(stdout: str) -> str:
    (line,) = [line for line in stdout.splitlines() if line.startswith("Next: ")]
    return line


def test_search_is_told_of_a_model_only_where_that_has_moved(tmp_path: Path) -> None:
    save_sentence_transformer(tmp_path / "model")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.txt").write_text("Napoleon was born in Corsica.", encoding="utf-8")
    first = run("ingest", "docs", "--model", "./model", "-q", cwd=tmp_path)
    assert next_of(first.stdout) == "Next: ctxindex search 'your question'"
    (tmp_path / "model").rename(tmp_path / "moved")
    again = run("ingest", "docs", "--model", "moved", "-q", cwd=tmp_path)
    assert next_of(again.stdout) == f"Next: ctxindex search 'your question' --model {tmp_path / 'moved'}"
    assert run("search", "Corsica", cwd=tmp_path).returncode == 4
    assert run("search", "Corsica", "--model", tmp_path / "moved", cwd=tmp_path).returncode == 0
