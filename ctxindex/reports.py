"""What `Index` says of its work: the report of an ingest, and the state of an index."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ctxindex.loading import SkippedSource
from ctxindex.spec import IndexSpec
from ctxindex.types import ContextStatus, FailedDocument


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What an ingest did, or with `dry_run` would do (then `new` and `changed` are what is planned).

    `seconds` has `total` and the stages model, load, chunk, tokenise, forward and write. Stages overlap: they are the
    work of three threads. `idle` is the share of the time from the first forward pass to the last in which none ran.
    """

    new: int
    changed: int
    unchanged: int
    skips: tuple[SkippedSource, ...]
    failures: tuple[FailedDocument, ...]
    chunks: int
    tokens: int
    seconds: Mapping[str, float]
    idle: float = 0.0
    dry_run: bool = False

    @property
    def skipped(self) -> int:
        """How many sources were no documents."""
        return len(self.skips)


@dataclass(frozen=True, slots=True)
class IndexStatus:
    """What is in an index: documents with live chunks, their chunks, and what failed at the last attempt.

    `context` is the corpus context that it is read in, None where it has none.
    """

    location: str
    documents: int
    chunks: int
    failed: tuple[FailedDocument, ...]
    spec: IndexSpec
    context: ContextStatus | None = None
