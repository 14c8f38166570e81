"""Vectors kept on disk between runs, so that an evaluation that was killed goes on where it was.

A cache holds vectors by a key of everything that decides them (`key_of`), in segments: safetensors files that are
written under another name and then renamed, so that what is there is whole. It may be deleted at any time without a
change in results. Segments of several processes at work do not meet: each has a name of its own.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import uuid
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ctxindex import __version__
from ctxindex.encoding.runtime import cache_folder
from ctxindex.errors import ConfigError
from ctxindex.spec import FORMAT_VERSION, LATER, EncoderSpec
from ctxindex.types import ChunkedDocument

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_log = logging.getLogger("ctxindex")

ENCODING_VERSION = 2
"""Raised with every change to the encoding room that gives other vectors for the same spec, beyond rounding."""

CODE = (__version__, FORMAT_VERSION, ENCODING_VERSION)
"""What of ours decides vectors besides a spec."""

_SEGMENT_BYTES = 64 << 20
_SEGMENT_SECONDS = 30.0
"""A segment is written when it holds so much, took so long to make, or is asked for: what a killed run loses."""


@dataclass(frozen=True, slots=True)
class Kept:
    """Vectors of one document as of `EncodedDocument`, as precise as a store has them.

    `seconds` is how long it took to make them: not a number where nobody knows, or where it was on other hardware.
    """

    vectors: npt.NDArray[np.floating]
    lengths: tuple[int, ...] | None
    seconds: float


class Cache(Protocol):
    """Where vectors are kept."""

    def find(self, keys: Collection[str]) -> Iterator[tuple[str, Kept]]:
        """What is kept under any of `keys`."""
        ...

    def keep(self, key: str, kept: Kept) -> None:
        """Keep vectors; on disk after `flush` at the latest."""
        ...

    def flush(self) -> None:
        """Write what is not on disk yet."""
        ...


class MemoryCache:
    """Implements `Cache` for the length of a run."""

    def __init__(self) -> None:
        self._kept: dict[str, Kept] = {}

    def find(self, keys: Collection[str]) -> Iterator[tuple[str, Kept]]:
        """See `Cache.find`."""
        for key in keys:
            if key in self._kept:
                yield key, self._kept[key]

    def keep(self, key: str, kept: Kept) -> None:
        """See `Cache.keep`."""
        self._kept[key] = kept

    def flush(self) -> None:
        """Nothing."""


class DiskCache:
    """Implements `Cache` in the folder of one encoder; `root` is made where it does not exist.

    `hardware` says what vectors are made on. It decides nothing about them, but the seconds of others say nothing here.

    Raises:
        ConfigError: nothing can be written there.
    """

    def __init__(self, root: Path, spec: EncoderSpec, hardware: str = "") -> None:
        self._hardware = hardware
        self._folder = root / fingerprint(spec)[:32]
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"cannot keep vectors in {root}: {error.strerror}; --no-cache keeps none") from None
        self._open: dict[str, Kept] = {}
        self._open_bytes = 0
        self._open_seconds = 0.0

    def find(self, keys: Collection[str]) -> Iterator[tuple[str, Kept]]:
        """See `Cache.find`. A damaged file is removed."""
        from safetensors import SafetensorError, safe_open

        self.flush()
        wanted, given = set(keys), set[str]()
        for file in sorted(self._folder.glob("*.safetensors")):
            try:
                with safe_open(file, framework="numpy") as segment:
                    here = _entries(segment.metadata())
                    for key in (wanted - given) & here.keys():
                        lengths = here[key]["lengths"]
                        vectors = segment.get_tensor(key)
                        seconds = here[key]["seconds"] if here[key]["hardware"] == self._hardware else math.nan
                        found = Kept(vectors, lengths and tuple(lengths), float(seconds))
                        given.add(key)
                        yield key, found
            except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
                _log.warning("the cached vectors in %s are not readable and are made again: %s", file.name, error)
                if not isinstance(error, OSError):  # which may pass
                    with suppress(OSError):
                        file.unlink()

    def keep(self, key: str, kept: Kept) -> None:
        """See `Cache.keep`."""
        self._open[key] = kept
        self._open_bytes += kept.vectors.nbytes
        self._open_seconds += kept.seconds
        if self._open_bytes >= _SEGMENT_BYTES or self._open_seconds >= _SEGMENT_SECONDS:
            self.flush()

    def flush(self) -> None:
        """See `Cache.flush`. Where the disk is full, the run goes on without."""
        import numpy as np
        from safetensors import SafetensorError
        from safetensors.numpy import save_file

        if not self._open:
            return
        name = uuid.uuid4().hex
        written = self._folder / f"{name}.tmp"
        entries = {
            key: {"lengths": kept.lengths, "seconds": kept.seconds, "hardware": self._hardware}
            for key, kept in self._open.items()
        }
        try:
            # What is not contiguous would be written as other numbers.
            tensors = {key: np.ascontiguousarray(kept.vectors) for key, kept in self._open.items()}
            save_file(tensors, written, metadata={"entries": json.dumps(entries)})
            written.replace(self._folder / f"{name}.safetensors")
        except (OSError, SafetensorError) as error:
            _log.warning("vectors could not be kept in %s: %s", self._folder, error)
            with suppress(OSError):
                written.unlink()
        self._open, self._open_bytes, self._open_seconds = {}, 0, 0.0


def default_folder() -> Path:
    """What evaluations keep between runs, if nobody says otherwise: $XDG_CACHE_HOME/ctxindex, or in ~/.cache.

    Raises:
        ConfigError: there is no home.
    """
    try:
        return cache_folder()
    except RuntimeError:
        raise ConfigError("there is no home folder to keep vectors in: give --cache DIR") from None


def fingerprint(spec: EncoderSpec) -> str:
    """sha256 of everything about an encoder that decides vectors, and of our version; where its files lie does not."""
    values = {name: value for name, value in asdict(spec).items() if (f"encoder.{name}", value) not in LATER.items()}
    return _digest([*CODE, {**values, "model": None}])


def key_of(document: ChunkedDocument) -> str:
    """sha256 of everything about a document that an encoder may read."""
    source = document.document
    return _digest([source.title, source.text, [[chunk.start, chunk.end, chunk.text] for chunk in document.chunks]])


def _entries(metadata: dict[str, str] | None) -> dict[str, Any]:
    entries: dict[str, Any] = json.loads((metadata or {}).get("entries", "{}"))
    return entries


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, ensure_ascii=False, sort_keys=True).encode()).hexdigest()
