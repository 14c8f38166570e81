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
        parts += _pages(command, context)
    return "\n\n".join(parts) + "\n"


def _pages(command: click.Command, context: click.Context) -> list[str]:
    """The help of a command, and of the commands in it."""
    parts = [f"## {context.command_path}", _help(command, context)]
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            parts += _pages(inner, click.Context(inner, parent=context, info_name=name, terminal_width=100))
    return parts


def _help(command: click.Command, context: click.Context) -> str:
    lines = command.get_help(context).splitlines()
    return "\n".join(["```", *(line.rstrip() for line in lines), "```"])


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
