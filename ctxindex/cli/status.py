"""`ctxindex status`: what is in an index, and how it was made."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from ctxindex.cli.options import (
    SectionedCommand,
    chosen_store,
    device_option,
    json_option,
    model_option,
    store_options,
    trust_option,
)
from ctxindex.cli.output import plural, print_json, print_table

if TYPE_CHECKING:
    from ctxindex.spec import EncoderSpec
    from ctxindex.types import ContextStatus


_LATE = ("join", "pooling", "windows", "overlap", "owner", "anchor", "anchor_title", "blend", "isolated")
_MOVED = 2.0
_GROWN = 2.0
_LOST = 0.5
"""A drift, times as many documents, and a share of those of the context, from which on a new one is spoken of."""

_MOST = 1e9
"""JSON has no infinity, which is the drift of texts that were all the same and are no more."""

_OTHER = ("pool_factor", "skiplist", "force_mean")


@click.command("status", cls=SectionedCommand)
@click.option("--drift", is_flag=True, help="Method cde: sample the corpus again, and say how far it has moved.")
@store_options
@model_option("Where the index's model is now, if it has moved; for --drift.")
@trust_option
@device_option
@json_option
def command(drift: bool, as_json: bool, **given: Any) -> None:
    """Documents, chunks, failures and spec of an index, and its corpus context with what the corpus became since."""
    from ctxindex.index import Index

    with Index.open(**given) as index:
        status = index.status(drift=drift)
    if as_json:
        failed = [{"doc_id": failure.doc_id, "error": failure.reason} for failure in status.failed]
        spec = {**status.spec.to_json(), "fingerprint": status.spec.fingerprint}
        counts = {"documents": status.documents, "chunks": status.chunks}
        context = {} if status.context is None else {"corpus_context": _context_json(status.context)}
        print_json({"schema": "ctxindex.status/1", **counts, "failed": failed, "spec": spec, **context})
        return
    encoder, chunker = status.spec.encoder, status.spec.chunker
    overlap = f", overlap {chunker.overlap}" if chunker.overlap else ""
    print_table(
        [
            ("index", status.location),
            ("documents", f"{status.documents:,}"),
            ("chunks", f"{status.chunks:,}"),
            ("failed", f"{len(status.failed):,}"),
            ("model", f"{encoder.model} ({encoder.dim} dimensions, weights {encoder.digest[:12]})"),
            ("method", f"{encoder.method}, windows of {encoder.max_tokens} tokens, {encoder.dtype}"),
            *([("settings", settings)] if (settings := _settings(encoder)) else []),
            ("chunker", f"{chunker.name}, at most {chunker.size} {chunker.unit}{overlap}"),
            *_context_rows(encoder, status.context, failed=bool(status.failed)),
            ("fingerprint", status.spec.fingerprint[:16]),
        ]
    )
    if status.context is not None:
        _print_drift(status.context, asked=drift)
        _print_next(status.context, encoder.model, given, asked=drift)
    for failure in status.failed:
        click.echo(f"  failed  {failure.doc_id}: {failure.reason}")
    if status.failed:
        click.echo("Mend the files and ingest again; --retry-failed tries unchanged ones again.")


def _context_json(context: ContextStatus) -> dict[str, Any]:
    drift = None if context.drift is None else min(context.drift, _MOST)
    return {**asdict(context), "drift": drift, "growth": round(context.growth, 4)}


def _context_rows(encoder: EncoderSpec, context: ContextStatus | None, *, failed: bool) -> list[tuple[str, str]]:
    if context is None:
        return [("context", "none: the model reads with its stand-in for a corpus")] if encoder.method == "cde" else []
    of = f"{plural(context.texts, 'text')} of {plural(context.sampled, 'document')}, made {context.made_at}"
    lost = [f"{count} {word}" for count, word in ((context.changed, "changed"), (context.gone, "gone")) if count]
    among = " with those that failed" if failed else ""
    since = f"{plural(context.documents_now, 'document')} now{among}, {context.growth:.1f} times as many"
    if not context.documents_now:
        since = "no document is in the index: where the first ingest was interrupted, run it again"
    elif lost:
        since += f"; of the {context.sampled} in the context, {' and '.join(lost)}"
    drawn = f"{context.sampling}, seed {context.seed}"
    return [("context", f"{of} ({context.context_id[:12]})"), ("drawn", drawn), ("since then", since)]


def _print_drift(context: ContextStatus, *, asked: bool) -> None:
    if asked and context.drift is None:
        click.echo("Drift: there are too few texts to tell a corpus that has moved from chance.")
    elif context.drift is not None:
        click.echo(
            f"Drift {context.drift:.2f}: how far the mean of a new sample is from that of the context, as a multiple "
            f"of what chance alone makes it. About 1 is the same corpus; above {_MOVED:g} it is another."
        )


def _print_next(context: ContextStatus, model: str, settings: Mapping[str, Any], *, asked: bool) -> None:
    """What to do about a corpus that has moved: a context is made anew with all vectors, in a new index."""
    reasons = list(_reasons(context))
    if not reasons:
        return
    if not asked:
        click.echo(" ".join(["Whether a new context is worth it: ctxindex status --drift", *chosen_store(settings)]))
    place = " ".join(["", *chosen_store({**settings, "index": None})])
    click.echo(f"{' and '.join(reasons).capitalize()}.")
    click.echo(f"A new index has a new context: ctxindex ingest PATH --model {shlex.quote(model)} --index NEW{place}")
    click.echo(
        "It has the defaults of all else: what this index was given (method, settings, chunker and drawn above) has to "
        "be given again."
    )


def _reasons(context: ContextStatus) -> Iterator[str]:
    """Why a new context may be worth it."""
    if not context.documents_now:
        return  # nothing is written yet, or all was deleted
    if (context.drift or 0) > _MOVED:
        yield "the corpus says something else than the context"
    if context.growth >= _GROWN:
        yield f"the corpus has {context.growth:.1f} times as many documents as it had"
    if (lost := context.changed + context.gone) >= _LOST * context.sampled:
        yield f"of the {plural(context.sampled, 'document')} in the context {lost} changed or are gone"


def _settings(encoder: EncoderSpec) -> str:
    """What else was chosen for the vectors: that of windows, and of the rest what is not the default."""
    late = encoder.method != "independent"
    values = {name: getattr(encoder, name) for name in (*(_LATE if late else ()), *_OTHER)}
    if not encoder.blend:
        values.pop("isolated", None)
    off = {"anchor": 0, "anchor_title": False, "blend": 0, "pool_factor": 1, "skiplist": "none", "force_mean": False}
    return ", ".join(f"{name} {value}" for name, value in values.items() if name not in off or value != off[name])
