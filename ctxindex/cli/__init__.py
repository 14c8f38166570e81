"""The command line: one module a command, loaded when it is asked for.

Results go to standard output, everything else to standard error. Errors are one sentence and an exit code (see
`ctxindex.errors`), never a traceback; CTXINDEX_DEBUG=1 shows the traceback of one that was not foreseen.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module

import click

import ctxindex
from ctxindex.errors import CtxIndexError

COMMANDS = ("ingest", "search", "status", "verify", "eval", "pairs", "finetune", "models", "version")
INTERRUPTED = 130


class LazyGroup(click.Group):
    """A group whose commands are the functions `command` of the modules of their names."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands, in the order in which they are used."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module of a command."""
        if cmd_name not in COMMANDS:
            return None
        found: click.Command = import_module(f"ctxindex.cli.{cmd_name}").command
        return found


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(ctxindex.__version__, prog_name="ctxindex")
def cli() -> None:
    """Index documents and search their passages, with chunks embedded in the context of their document.

    \b
    ctxindex ingest ./contracts
    ctxindex search "Who may terminate the agreement early?"
    ctxindex eval ./contracts --questions questions.jsonl --compare bm25,late

    Settings come from flags, CTXINDEX_* variables, ctxindex.toml (in this folder or above) and the index itself, in
    this order.
    """  # noqa: D301  # \b is click's mark for lines that are not to be wrapped


def main() -> None:
    """Run the command line and exit."""
    try:
        sys.exit(cli.main(prog_name="ctxindex", standalone_mode=False))
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except CtxIndexError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo(
            "Interrupted. What is finished is kept (in the index, or in the cache of an evaluation or of a language "
            "model); the same command goes on from there.",
            err=True,
        )
        sys.exit(INTERRUPTED)
    except Exception as error:
        if os.environ.get("CTXINDEX_DEBUG"):
            raise
        click.echo(f"Error: unexpected {type(error).__name__}: {error} (CTXINDEX_DEBUG=1 shows where)", err=True)
        sys.exit(1)
