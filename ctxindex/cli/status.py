"""`ctxindex status`: what is in an index, and how it was made."""

from __future__ import annotations

from typing import Any

import click

from ctxindex.cli.options import json_option, store_options
from ctxindex.cli.output import print_json, print_table


@click.command("status")
@store_options
@json_option
def command(as_json: bool, **settings: Any) -> None:
    """Documents, chunks, failures and the spec of an index."""
    from ctxindex.index import Index

    with Index.open(**settings) as index:
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
            ("chunker", f"{chunker.name}, at most {chunker.size} {chunker.unit}{overlap}"),
            ("fingerprint", status.spec.fingerprint[:16]),
        ]
    )
    for failure in status.failed:
        click.echo(f"  failed  {failure.doc_id}: {failure.reason}")
    if status.failed:
        click.echo("Mend the files and ingest again; --retry-failed tries unchanged ones again.")
