"""`ctxindex status`: what is in an index, and how it was made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ctxindex.cli.options import SectionedCommand, json_option, store_options
from ctxindex.cli.output import print_json, print_table

if TYPE_CHECKING:
    from ctxindex.spec import EncoderSpec


_LATE = ("join", "pooling", "windows", "overlap", "owner", "anchor", "anchor_title", "blend", "isolated")
_OTHER = ("pool_factor", "skiplist", "force_mean")


@click.command("status", cls=SectionedCommand)
@store_options
@json_option
def command(as_json: bool, **place: Any) -> None:
    """Documents, chunks, failures and the spec of an index."""
    from ctxindex.index import Index

    with Index.open(**place) as index:
        status = index.status()
    if as_json:
        failed = [{"doc_id": failure.doc_id, "error": failure.reason} for failure in status.failed]
        spec = {**status.spec.to_json(), "fingerprint": status.spec.fingerprint}
        counts = {"documents": status.documents, "chunks": status.chunks}
        print_json({"schema": "ctxindex.status/1", **counts, "failed": failed, "spec": spec})
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
            ("fingerprint", status.spec.fingerprint[:16]),
        ]
    )
    for failure in status.failed:
        click.echo(f"  failed  {failure.doc_id}: {failure.reason}")
    if status.failed:
        click.echo("Mend the files and ingest again; --retry-failed tries unchanged ones again.")


def _settings(encoder: EncoderSpec) -> str:
    """What else was chosen for the vectors: that of windows, and of the rest what is not the default."""
    late = encoder.method != "independent"
    values = {name: getattr(encoder, name) for name in (*(_LATE if late else ()), *_OTHER)}
    if not encoder.blend:
        values.pop("isolated", None)
    off = {"anchor": 0, "anchor_title": False, "blend": 0, "pool_factor": 1, "skiplist": "none", "force_mean": False}
    return ", ".join(f"{name} {value}" for name, value in values.items() if name not in off or value != off[name])
