"""`ctxindex ingest`: bring an index up to date with files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ctxindex.chunking import CHUNKERS
from ctxindex.cli.options import (
    chosen_store,
    device_option,
    json_option,
    loading_options,
    model_option,
    store_options,
    trust_option,
    window_size,
)
from ctxindex.cli.output import plural, print_json
from ctxindex.cli.progress import choose
from ctxindex.spec import ISOLATED, JOINS, METHODS, OWNERS, POOLINGS, WINDOWS

if TYPE_CHECKING:
    from ctxindex.index import Index
    from ctxindex.reports import IngestReport

SOME_FAILED = 3
_SHOWN = 10
_MAX_TOKENS = "Size of a window; model: what it was trained with.  [default: what it can read]"
_JOIN = "Late methods: chunks joined by separators, or the text as it stands.  [default: sep]"
_POOLING = "Late methods: which special tokens first and last chunk own; strict: none.  [default: strict]"
_WINDOWS = "Late methods, long documents; token-window: with --join raw; full: rotary models.  [default: window]"
_WINDOW_OVERLAP = "Late methods: tokens read beyond a window's chunks.  [default: 1/32 of it; token-window: 1/4]"
_ANCHOR = "Late methods: begin each later window with the document's first N tokens.  [default: 0]"
_ANCHOR_TITLE = "Late methods: begin each window with the document's title."
_OWNER = "Late methods: centre gives a chunk to one window; first, mean: windows share chunks.  [default: centre]"
_BLEND = "Late: weight of the vector of the chunk alone, 0 to less than 1.  [default: 0]"
_ISOLATED = "Late, with --blend: the chunk alone, or with its title.  [default: chunk]"
_DTYPE = "float32, bfloat16, float16, or auto: the fastest here that keeps quality.  [default: auto]"
_FORCE_MEAN = "Take means of token states although the model was not trained for them."


@click.command("ingest")
@click.argument("paths", nargs=-1, required=True)
@store_options
@model_option("minilm, a model folder, or owner/name on the hub.  [default: minilm]")
@click.option("--method", type=click.Choice(METHODS), help="How chunks become vectors.  [default: the model's own]")
@click.option("--chunk-size", type=int, metavar="N", help="Most a chunk may have, overlap included.  [default: 128]")
@click.option("--chunk-unit", type=click.Choice(["tokens", "chars"]), help="What sizes count.  [default: tokens]")
@click.option("--chunk-overlap", type=int, metavar="N", help="What a chunk repeats of the one before.  [default: 0]")
@click.option("--chunker", type=click.Choice(CHUNKERS), help="Where to cut.  [default: markdown]")
@click.option("--max-tokens", type=window_size, metavar="N|model", help=_MAX_TOKENS)
@click.option("--join", type=click.Choice(JOINS), help=_JOIN)
@click.option("--pooling", type=click.Choice(POOLINGS), help=_POOLING)
@click.option("--windows", type=click.Choice(WINDOWS), help=_WINDOWS)
@click.option("--window-overlap", type=int, metavar="N", help=_WINDOW_OVERLAP)
@click.option("--anchor", type=int, metavar="N", help=_ANCHOR)
@click.option("--anchor-title", is_flag=True, default=None, help=_ANCHOR_TITLE)
@click.option("--owner", type=click.Choice(OWNERS), help=_OWNER)
@click.option("--blend", type=float, metavar="B", help=_BLEND)
@click.option("--isolated", type=click.Choice(ISOLATED), help=_ISOLATED)
@click.option("--dims", type=int, metavar="N", help="Keep the first N numbers of a vector.  [default: all]")
@click.option("--force-mean", is_flag=True, default=None, help=_FORCE_MEAN)
@trust_option
@click.option("--dtype", metavar="NAME", help=_DTYPE)
@click.option("--pool-factor", type=int, metavar="N", help="Late interaction: keep 1/N of the vectors.  [default: 1]")
@click.option("--skiplist", type=click.Choice(["none", "model"]), help="Late interaction: tokens to leave out.")
@device_option
@loading_options
@click.option("--retry-failed", is_flag=True, help="Try documents again that failed and have not changed.")
@click.option("--dry-run", is_flag=True, help="Say what would be done; load no model, write nothing.")
@click.option("--quiet", "-q", is_flag=True, help="No progress.")
@json_option
@click.pass_context
def command(ctx: click.Context, /, paths: tuple[str, ...], **given: Any) -> None:
    """Index the files under PATHS: new and changed documents are encoded and replaced, the rest is left alone.

    PATHS are files and folders; "-" reads JSONL from standard input, a line a document:
    {"doc_id", "title", "text", "metadata"}. A file that cannot be read does not stop the run (exit code 3), and the
    same command goes on after an interruption. A document whose file is gone stays in the index.

    A GLOB is matched as in .gitignore, against the path inside each folder given; both options may be repeated.
    """
    from ctxindex.config import SETTINGS
    from ctxindex.index import Index

    as_json, quiet, trusted = given.pop("as_json"), given.pop("quiet"), given.pop("trust_remote_code")
    settings = {name: given.pop(name) for name in list(given) if name in SETTINGS}
    progress = choose(quiet)
    with Index.open(trust_remote_code=trusted, **settings) as index:
        is_new = index.spec is None
        try:
            report = index.ingest(*paths, progress=progress, **given)
        finally:
            if progress is not None:
                progress.close()
        if as_json:
            print_json(_as_json(report))
        else:
            _print(report)
            _print_next(index, report, is_new, settings)
    if report.failures:
        ctx.exit(SOME_FAILED)


def _as_json(report: IngestReport) -> dict[str, Any]:
    documents = {name: getattr(report, name) for name in ("new", "changed", "unchanged", "skipped")}
    return {
        "schema": "ctxindex.ingest/1",
        "documents": {**documents, "failed": len(report.failures)},
        "chunks": report.chunks,
        "tokens": report.tokens,
        "seconds": {name: round(value, 4) for name, value in report.seconds.items()},
    }


def _print(report: IngestReport) -> None:
    verb = "Would index" if report.dry_run else "Indexed"
    click.echo(
        f"{verb} {report.new:,} new and {plural(report.changed, 'changed document')}; {report.unchanged:,} unchanged, "
        f"{report.skipped:,} skipped, {len(report.failures):,} failed."
    )
    _print_some("failed", [(failure.doc_id, failure.reason) for failure in report.failures])
    _print_some("skipped", [(source.doc_id, source.reason) for source in report.skips])
    if report.dry_run:
        click.echo("Files were not opened further than to know them again; some may yet turn out to hold no text.")
    elif report.chunks:
        stages = ", ".join(f"{name} {value:.1f}" for name, value in report.seconds.items() if name != "total")
        click.echo(
            f"{plural(report.chunks, 'chunk')}, {plural(report.tokens, 'token')} in {report.seconds['total']:.1f} s "
            f"({stages}; stages overlap)."
        )


def _print_some(what: str, entries: list[tuple[str, str]]) -> None:
    for doc_id, reason in entries[:_SHOWN]:
        click.echo(f"  {what}  {doc_id}: {reason}", err=True)
    if len(entries) > _SHOWN:
        click.echo(f"  {what}  … and {len(entries) - _SHOWN:,} more", err=True)


def _print_next(index: Index, report: IngestReport, is_new: bool, settings: dict[str, Any]) -> None:
    if report.dry_run:
        return
    spec = index.spec
    if spec is None:
        click.echo("Nothing to index was found, so no index was made.")
        return
    click.echo(f"The index is at {index.store.location}: model {spec.encoder.model}, method {spec.encoder.method}.")
    if spec.encoder.method == "independent" and is_new and index.options.method is None:
        click.echo(
            f"{spec.encoder.model} was not trained for context, so each chunk was embedded alone. "
            "To embed chunks in the context of their documents: --method late, with a new --index NAME."
        )
    click.echo(" ".join(["Next: ctxindex search 'your question'", *chosen_store(settings)]))
