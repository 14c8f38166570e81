"""`ctxindex version`: this version, and those of what it stands on."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

import click

import ctxindex
from ctxindex.cli.options import json_option
from ctxindex.cli.output import print_json, print_table

PACKAGES = ("torch", "transformers", "tokenizers", "lancedb", "qdrant-client", "qdrant-edge-py", "llama-index-core")


@click.command("version")
@json_option
def command(as_json: bool) -> None:
    """The version of ctxindex, and of the packages that decide what it does."""
    versions = {"ctxindex": ctxindex.__version__, "python": platform.python_version()}
    versions.update({name: _version(name) for name in PACKAGES})
    if as_json:
        print_json({"schema": "ctxindex.version/1", "versions": versions})
    else:
        print_table(versions.items())


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
