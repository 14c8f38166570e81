"""Options that commands share. None means "not given": variables, files, the index and defaults fill in later."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])

_STORE = (
    click.option(
        "--store", metavar="NAME|URI", help="lancedb (the default), qdrant, or a URI such as lancedb:./folder."
    ),
    click.option("--url", metavar="URL", help="Address of a served store; QDRANT_URL and QDRANT_API_KEY are read too."),
    click.option("--index", metavar="NAME", help="Name of the index.  [default: default]"),
    click.option("--path", metavar="DIR", help="Folder of a local store.  [default: .ctxindex]"),
)

_DEVICE = (
    click.option("--device", metavar="NAME", help="auto, cpu, cuda or mps.  [default: auto]"),
    click.option(
        "--threads", type=click.IntRange(min=1), metavar="N", help="Threads on a CPU.  [default: its processors]"
    ),
)

_LOADING = (
    click.option(
        "--include", multiple=True, metavar="GLOB", help="Of the files in folders, take only those that match."
    ),
    click.option(
        "--exclude", multiple=True, metavar="GLOB", help="Of the files in folders, leave out those that match."
    ),
    click.option("--root", metavar="DIR", help="Folder that doc_ids are relative to.  [default: each path's own name]"),
    click.option("--no-ignore", is_flag=True, help="Take also what .gitignore leaves out."),
    click.option(
        "--max-chars", type=int, metavar="N", help="Most characters a document may have.  [default: 20,000,000]"
    ),
)


def store_options(command: Command) -> Command:
    """--store, --url, --index and --path."""
    for option in reversed(_STORE):
        command = option(command)
    return command


def chosen_store(settings: Mapping[str, Any]) -> list[str]:
    """The options of `store_options` that were given, to be repeated in the next command."""
    return [f"--{name} {shlex.quote(settings[name])}" for name in ("store", "url", "index", "path") if settings[name]]


def loading_options(command: Command) -> Command:
    """--include, --exclude, --root, --no-ignore and --max-chars: which documents paths give, and their doc_ids."""
    for option in reversed(_LOADING):
        command = option(command)
    return command


def json_option(command: Command) -> Command:
    """--json, passed on as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for scripts.")(command)


def model_option(text: str) -> Callable[[Command], Command]:
    """--model, with a help text that fits the command."""
    return click.option("--model", metavar="NAME|DIR", help=text)


def window_size(value: str) -> int | str:
    """The value of --max-tokens: a whole number, or "model"."""
    if value == "model":
        return value
    try:
        return int(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is neither a number nor the word model") from None


def trust_option(command: Command) -> Command:
    """--trust-remote-code."""
    text = "Let Python code in the model's folder run, for models that bring their own."
    return click.option("--trust-remote-code", is_flag=True, help=text)(command)


def device_option(command: Command) -> Command:
    """--device and --threads."""
    for option in reversed(_DEVICE):
        command = option(command)
    return command
