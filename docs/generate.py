"""Write docs/cli.md from the command line itself; a test fails where the two differ.

python docs/generate.py
"""

from __future__ import annotations

from pathlib import Path

import click

from ctxindex.cli import cli

PAGE = Path(__file__).parent / "cli.md"


def render() -> str:
    """The page: the help of the group, then of every command."""
    root = click.Context(cli, info_name="ctxindex", terminal_width=100, **cli.context_settings)
    parts = ["# Command line", "<!-- Written by docs/generate.py; do not edit. -->", _help(cli, root)]
    for name in cli.list_commands(root):
        command = cli.get_command(root, name)
        assert command is not None
        context = click.Context(command, parent=root, info_name=name, terminal_width=100)
        parts += [f"## ctxindex {name}", _help(command, context)]
    return "\n\n".join(parts) + "\n"


def _help(command: click.Command, context: click.Context) -> str:
    lines = command.get_help(context).splitlines()
    return "\n".join(["```", *(line.rstrip() for line in lines), "```"])


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
