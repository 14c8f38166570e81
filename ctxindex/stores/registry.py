"""From a store's name or URI to an open store, through entry points. Knows no connector by name.

Forms: `lancedb`, `qdrant` (a folder given by the caller, or what the connector's environment says), `lancedb:./folder`,
`qdrant:./folder` (that folder, whatever the environment says), `lancedb+s3://bucket/x`, `qdrant+https://host:6333`.
Options of a connector follow a name or a folder: `qdrant?quantization=int8`.
"""

from __future__ import annotations

import re
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, cast

from ctxindex.errors import ConfigError, StoreError
from ctxindex.stores.protocol import StoreLocation

if TYPE_CHECKING:
    from ctxindex.stores.protocol import Store

GROUP = "ctxindex.stores"
_INDEX_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", re.ASCII)
_STORE_NAME = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)


def open_store(name_or_uri: str, *, url: str | None = None, index: str, path: Path) -> Store:
    """Open the store that `name_or_uri` names; makes nothing on disk.

    Args:
        name_or_uri: an installed connector's name, or a URI that begins with one.
        url: address of a served database, where the URI holds none.
        index: letters, digits, `_`, `-`, `.`.
        path: folder for embedded databases, unless the URI names one.

    Raises:
        ConfigError: no such store is installed, or the URI or the index name is malformed.
        StoreError: the database or a package it needs cannot be used.
    """
    check_index_name(index)
    if url is not None and "://" not in url and not url.startswith(":"):
        raise ConfigError(f"{url} is no address: write it in full, as in http://{url}")
    name, location = _parse(name_or_uri, url, index, path)
    entry = _entry_point(name)
    try:
        connector = cast("type[Store]", entry.load())
        return connector.connect(location)
    except ImportError as error:
        missing = f"the package {error.name}" if error.name else f"a package that cannot be imported ({error})"
        raise StoreError(f"the store {name} needs {missing}: install it with pip, or choose another store") from error


def installed_stores() -> tuple[str, ...]:
    """The names of the connectors that this Python environment has, sorted."""
    return tuple(sorted({entry.name for entry in entry_points(group=GROUP)}))


def check_index_name(index: str) -> None:
    """Accept names that every database, folder and URL can carry.

    Raises:
        ConfigError: `index` is no such name.
    """
    if not _INDEX_NAME.fullmatch(index) or "__" in index:
        raise ConfigError(
            f"{index!r} cannot name an index: use up to 128 letters, digits, '_', '-' and '.', "
            "begin with a letter, a digit or '_', and use no '__', which the tables of an index are named with"
        )


def _parse(name_or_uri: str, url: str | None, index: str, path: Path) -> tuple[str, StoreLocation]:
    text, options = _split_options(name_or_uri.strip())
    head, colon, rest = text.partition(":")
    name, plus, scheme = head.partition("+")
    if colon and rest.startswith("//"):
        address = f"{scheme}:{rest}"
        if not plus:
            raise ConfigError(_bare_address_hint(text, name))
        if url not in (None, address):
            raise ConfigError(f"two addresses for one store: {text} and {url}")
        location = StoreLocation(index, path, url=address)
    elif plus or not _STORE_NAME.fullmatch(name):
        raise ConfigError(f"{text!r} names no store: write NAME, NAME:FOLDER or NAME+https://HOST:PORT")
    elif rest:
        if url is not None:
            raise ConfigError(f"a folder and an address for one store: {text} and {url}")
        location = StoreLocation(index, Path(rest), options={**options, "embedded": "true"})
    else:
        location = StoreLocation(index, path, url=url, options=options)
    return name.lower(), location


def _split_options(text: str) -> tuple[str, dict[str, str]]:
    """`name?key=value&…` in its two halves. An address keeps its question mark: it means something to the server."""
    head, mark, query = text.partition("?")
    if not mark or "://" in head:
        return text, {}
    pairs = [pair.partition("=") for pair in query.split("&")]
    if not all(key and sign for key, sign, _ in pairs):
        raise ConfigError(f"{text!r}: options of a store are written NAME?KEY=VALUE")
    return head, {key: value for key, _, value in pairs}


def _bare_address_hint(text: str, scheme: str) -> str:
    if scheme.lower() in ("http", "https"):
        return f"{text} does not say which database answers there: write qdrant+{text}"
    return f"{text} does not say which database reads it: put the store's name in front, as in lancedb+{text}"


def _entry_point(name: str) -> EntryPoint:
    found = [entry for entry in entry_points(group=GROUP) if entry.name == name]
    if not found:
        installed = ", ".join(installed_stores()) or "none"
        raise ConfigError(f"no store named {name!r} is installed; installed stores: {installed}")
    return found[0]
