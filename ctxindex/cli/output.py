"""What people and scripts read on standard output."""

from __future__ import annotations

import json
import shutil
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

import click

SOME_FAILED = 3
"""The exit code of a command that finished although some documents failed."""


def print_json(values: dict[str, Any]) -> None:
    """One JSON object; characters are written as they are."""
    click.echo(json.dumps(values, ensure_ascii=False, indent=2))


def print_table(rows: Iterable[Sequence[str]]) -> None:
    """Rows in columns as wide as what they hold; the last is not padded."""
    held = [list(row) for row in rows]
    widths = [max(len(row[column]) for row in held) for column in range(len(held[0]))] if held else []
    for row in held:
        cells = [cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=False)]
        click.echo("  ".join([*cells, row[-1]]))


def print_passage(text: str, lines: int = 4) -> None:
    """The beginning of a text, white space folded, wrapped to the terminal and indented."""
    width = max(40, min(100, shutil.get_terminal_size().columns - 4))
    folded = " ".join(text.split())
    for line in textwrap.wrap(folded, width, max_lines=lines, placeholder=" …"):
        click.echo(f"    {line}")


def plural(count: int, noun: str) -> str:
    """`1 chunk`, `2,000 chunks`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
