"""`ctxindex ingest`: bring an index up to date with files."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ctxindex.cli.options import (
    SectionedCommand,
    chosen_store,
    chunk_options,
    corpus_options,
    device_option,
    encoder_options,
    json_option,
    loading_options,
    new_model_option,
    store_options,
    trust_option,
)
from ctxindex.cli.output import SOME_FAILED, plural, print_json
from ctxindex.cli.progress import choose
from ctxindex.spec import METHODS

if TYPE_CHECKING:
    from ctxindex.index import Index
    from ctxindex.reports import IngestReport

_SHOWN = 10


@click.command("ingest", cls=SectionedCommand)
@click.argument("paths", nargs=-1, required=True)
@click.option("--method", type=click.Choice(METHODS), help="How chunks become vectors.  [default: the model's own]")
@click.option("--retry-failed", is_flag=True, help="Try documents again that failed and have not changed.")
@click.option("--dry-run", is_flag=True, help="Say what would be done; load no model, write nothing.")
@click.option("--quiet", "-q", is_flag=True, help="No progress.")
@json_option
@store_options
@loading_options
@chunk_options
@new_model_option
@trust_option
@device_option
@encoder_options
@corpus_options
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
    context = index.status().context if is_new else None
    if context is not None:
        click.echo(
            f"Its corpus context, {plural(context.texts, 'text')} of {plural(context.sampled, 'document')}, is "
            "frozen: later documents are read in it too, and ctxindex status says how the corpus has moved since."
        )
    if spec.encoder.method == "independent" and is_new and index.options.method is None:
        click.echo(
            f"{spec.encoder.model} was not trained for context, so each chunk was embedded alone. "
            "To embed chunks in the context of their documents: --method late, with a new --index NAME."
        )
    moved = _moved(settings.get("model"), spec.encoder.model)
    click.echo(" ".join(["Next: ctxindex search 'your question'", *chosen_store(settings), *moved]))


def _moved(model: str | None, built_with: str) -> list[str]:
    """What search has to be told, too, where the model of the index lies elsewhere by now than where it lay."""
    if model is None or model == built_with:
        return []
    folder = Path(model).expanduser()
    place = str(folder.resolve()) if folder.is_dir() else model  # as an index names its model
    return [] if place == built_with else ["--model", shlex.quote(place)]
