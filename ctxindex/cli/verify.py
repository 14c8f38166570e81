"""`ctxindex verify`: whether what is stored is what the model gives, and how much context is in it."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from ctxindex.cli.options import (
    SectionedCommand,
    chosen_store,
    device_option,
    json_option,
    loading_options,
    model_option,
    store_options,
    trust_option,
)
from ctxindex.cli.output import plural, print_json, print_table
from ctxindex.cli.progress import choose

if TYPE_CHECKING:
    from ctxindex.indexing.verification import DocumentVerdict, VerifyReport

DIFFERENT = 1
NOTHING_COMPARED = 3
_SHOWN = 20
_SAMPLE = "Documents to compare, drawn from those whose sources are found."
_WORST_FIRST: tuple[DocumentVerdict, ...] = ("differs", "failed", "changed", "agrees")


@click.command("verify", cls=SectionedCommand)
@click.argument("paths", nargs=-1)
@store_options
@model_option("Where the index's model is now, if it has moved.")
@trust_option
@device_option
@click.option("--sample", type=click.IntRange(min=1), default=10, show_default=True, metavar="N", help=_SAMPLE)
@click.option("--seed", type=int, metavar="N", help="Draw the same sample again.  [default: another one each time]")
@loading_options
@click.option("--quiet", "-q", is_flag=True, help="No progress.")
@json_option
@click.pass_context
def command(ctx: click.Context, /, paths: tuple[str, ...], **given: Any) -> None:
    """Encode some documents of an index again, and compare with what is stored. Writes nothing.

    PATHS are what was ingested, with the same --root, --include and so on; without any, documents are looked for in
    the current folder (or --root) by their doc_ids. A text is only compared where the hash of its source is still that
    of the index. Vectors agree where their cosine is greater than 0.999; exit code 1 if any does not, 3 if nothing
    differs but a document could not be encoded, or nothing could be compared.

    The context is the mean cosine of the stored vectors with those of the chunks alone: at 1.0 it is lost.
    """
    from ctxindex.config import SETTINGS
    from ctxindex.index import Index

    as_json, quiet, trusted = given.pop("as_json"), given.pop("quiet"), given.pop("trust_remote_code")
    settings = {name: given.pop(name) for name in list(given) if name in SETTINGS}
    progress = choose(quiet, lambda plan: f"{plural(len(plan.work), 'document')} to encode again")
    with Index.open(trust_remote_code=trusted, **settings) as index:
        try:
            report = index.verify(*paths, progress=progress, **given)
        finally:
            if progress is not None:
                progress.close()
    if as_json:
        print_json(_as_json(report))
    else:
        _print(report)
        _print_next(report, paths, settings)
    ctx.exit(_exit_code(report))


def _exit_code(report: VerifyReport) -> int:
    if not report.agrees:
        return DIFFERENT
    nothing = report.documents and not report.compared
    return NOTHING_COMPARED if nothing or report.of("failed") else 0


def _as_json(report: VerifyReport) -> dict[str, Any]:
    counts = {verdict: len(report.of(verdict)) for verdict in reversed(_WORST_FIRST)}
    return {
        "schema": "ctxindex.verify/1",
        "documents": {"live": report.documents, **counts, "missing": len(report.missing)},
        "vectors": report.vectors,
        "cosine": {"min": report.min_cosine, "mean": report.mean_cosine},
        "context": {**asdict(report.context), "lost": report.context.lost},
        "checks": [asdict(check) for check in report.checks],
        "missing": list(report.missing),
        "seed": report.seed,
        "seconds": {name: round(value, 4) for name, value in report.seconds.items()},
    }


def _print(report: VerifyReport) -> None:
    worst_first = [check for verdict in _WORST_FIRST for check in report.of(verdict)]
    rows = [("VERDICT", "COSINE", "CHUNKS", "DOCUMENT")]
    for check in worst_first[:_SHOWN]:
        cosine = "-" if check.cosine is None else f"{check.cosine:.6f}"
        document = check.doc_id + (f": {check.reason}" if check.reason else "")
        rows.append((check.verdict, cosine, f"{check.chunks:,}" if check.chunks else "-", document))
    if worst_first:
        print_table(rows)
    if len(worst_first) > _SHOWN:
        click.echo(f"… and {len(worst_first) - _SHOWN:,} more; --json has all of them")
    click.echo(
        f"Compared {report.compared:,} of {plural(report.documents, 'document')} (--seed {report.seed}): "
        f"{len(report.of('agrees')):,} agree, {len(report.of('differs')):,} differ; "
        f"{len(report.of('changed')):,} changed since, {len(report.of('failed')):,} failed."
    )
    if report.min_cosine is not None:
        click.echo(
            f"Of {plural(report.vectors, 'vector')}, encoded again: least cosine {report.min_cosine:.6f}, "
            f"mean {report.mean_cosine:.6f}."
        )
    if report.compared:
        _print_context(report)


def _print_context(report: VerifyReport) -> None:
    context = report.context
    if context.cosine is None:
        click.echo(f"Context: not measured; {context.note}.")
        return
    click.echo(
        f"Context: mean cosine {context.cosine:.4f} of {plural(context.chunks, 'stored chunk')} with the same chunks "
        "alone (1.0 would be no context)."
    )
    if context.lost:
        click.echo(
            "Warning: the context is lost. The stored vectors are those of the chunks alone, although the index says "
            "that its chunks were read in their documents.",
            err=True,
        )


def _print_next(report: VerifyReport, paths: tuple[str, ...], settings: dict[str, Any]) -> None:
    """What to do about each kind of finding, and with none, what comes next."""
    store = chosen_store(settings)
    sources = list(map(shlex.quote, paths)) or ["PATH"]
    ingest = " ".join(["ctxindex ingest", *sources, *store])
    if not report.documents:
        click.echo(f"The index holds no documents: {ingest}", err=True)
        return
    if report.missing:
        _print_missing(report, paths)
    if report.of("failed"):
        click.echo("The sources of documents that failed are as they were, but cannot be encoded here: see above.")
    if report.of("changed"):
        click.echo(f"Next: {ingest}  (encodes what has changed)")
    if not report.agrees:
        anew = " ".join(["ctxindex ingest", *sources, *chosen_store({**settings, "index": "NEW_NAME"})])
        click.echo(
            "Next: remove the documents that differ (Index.delete in Python) and ingest them again, or build a new "
            f"index: {anew}. An ingest alone leaves them as they are, since their sources have not changed."
        )
    elif report.compared and not report.of("changed"):
        click.echo(" ".join(["Next: ctxindex search 'your question'", *store]))


def _print_missing(report: VerifyReport, paths: tuple[str, ...]) -> None:
    for doc_id in report.missing[:_SHOWN]:
        click.echo(f"  missing  {doc_id}", err=True)
    if len(report.missing) > _SHOWN:
        click.echo(f"  missing  … and {len(report.missing) - _SHOWN:,} more", err=True)
    where = "in the sources given" if paths else "in the current folder by their doc_ids"
    click.echo(
        f"{plural(len(report.missing), 'document')} not found {where}: give the files and folders that were ingested, "
        "as in ctxindex verify PATH. What is gone for good stays in the index until it is deleted."
    )
