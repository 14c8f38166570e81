"""How far an ingest or a verification is, on standard error: bars on a terminal, elsewhere a line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from ctxindex.cli.output import plural

if TYPE_CHECKING:
    from ctxindex.indexing import Plan

_EVERY = 10.0
"""Seconds between plain lines."""


class Bars:
    """Implements `ctxindex.indexing.Progress` with two bars: documents, and tokens through the model."""

    def start(self, plan: Plan) -> None:
        """Draw the bars; none where there is nothing to do."""
        from tqdm import tqdm

        self._documents: Any = None
        if plan.work:
            # Documents end in groups, as batches mix them, so the time that is left cannot be told from their number.
            bar = "{desc} {n_fmt}/{total_fmt} |{bar}| {elapsed}"
            self._documents = tqdm(total=len(plan.work), desc="documents", bar_format=bar, leave=False, ncols=60)
            self._tokens = tqdm(desc="tokens", unit=" tokens", unit_scale=True, leave=False, ncols=60)

    def advance(self, tokens: int) -> None:
        """Move the second bar."""
        self._tokens.update(tokens)

    def done(self, doc_id: str, failure: str | None) -> None:
        """Move the first bar."""
        if self._documents is not None:
            self._documents.update()

    def close(self) -> None:
        """Take the bars away."""
        if getattr(self, "_documents", None) is not None:
            self._tokens.close()
            self._documents.close()


class Lines:
    """Implements `ctxindex.indexing.Progress` with a line at the start, `opening`, and one every few seconds."""

    def __init__(self, opening: Callable[[Plan], str]) -> None:
        self._opening = opening

    def start(self, plan: Plan) -> None:
        """Say what will be done."""
        self._total = len(plan.work)
        self._tokens = self._done = 0
        self._began = self._said = time.monotonic()
        if plan.work:
            _say(self._opening(plan))

    def advance(self, tokens: int) -> None:
        """Count, and speak when it is time."""
        self._tokens += tokens
        now = time.monotonic()
        if now - self._said >= _EVERY:
            rate = self._tokens / (now - self._began)
            _say(f"{self._done:,} of {plural(self._total, 'document')}, {self._tokens:,} tokens, {rate:,.0f} tokens/s")
            self._said = now

    def done(self, doc_id: str, failure: str | None) -> None:
        """Count."""
        self._done += 1

    def close(self) -> None:
        """Nothing."""


def choose(quiet: bool, opening: Callable[[Plan], str] | None = None) -> Bars | Lines | None:
    """Bars on a terminal, lines elsewhere (the first is `opening`), nothing where nobody wants to know."""
    if quiet:
        return None
    return Bars() if sys.stderr.isatty() else Lines(opening or _to_ingest)


def _to_ingest(plan: Plan) -> str:
    return f"{plural(len(plan.new), 'new document')}, {len(plan.changed):,} changed, {plan.unchanged:,} unchanged"


def _say(line: str) -> None:
    click.echo(line, err=True)
