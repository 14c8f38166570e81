"""`ctxindex finetune`: train a model to use the context of chunks, on documents with questions."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ctxindex.cli import INTERRUPTED
from ctxindex.cli.contextual_options import contextual_options
from ctxindex.cli.options import (
    SectionedCommand,
    chunk_options,
    device_option,
    json_option,
    loading_options,
    new_model_option,
    trust_option,
)
from ctxindex.cli.output import SOME_FAILED, plural, print_json, print_table
from ctxindex.cli.training_options import DATA, OUTPUT, context_options, option, training_options
from ctxindex.errors import ConfigError

if TYPE_CHECKING:
    from ctxindex.cli.finetuning import Training
    from ctxindex.training.finetune import Finetuned

_SHOWN = 10

_PAIRS = "Questions about the documents in DATA: what pairs writes, or lines with the number of a chunk."
_HELD_OUT = "Share of each source's documents to measure on; 0 for none.  [default: 0.1]"
_VALIDATION = "A dataset to measure on instead; repeatable."
_REPLAY = "A dataset to practise beside, each chunk alone, such as one in BEIR's format; repeatable."
_CHUNKS = "The sets' own chunks, or cut anew.  [default: their own where they are made of chunks]"
_OUT = "The new model's folder."
_MERGE = (
    "Shares of the tuned weights, the rest the base's; the smallest within an error of the best is kept.  [default: 1]"
)
_METHOD = "What is trained.  [default: late, or late-interaction or cde where the model is made for it]"


@click.command("finetune", cls=SectionedCommand)
@click.argument("data", nargs=-1, required=True, metavar="DATA...")
@option(DATA, "--pairs", metavar="FILE", help=_PAIRS)
@option(DATA, "--held-out", type=float, metavar="SHARE", help=_HELD_OUT)
@option(DATA, "--validation", multiple=True, metavar="DATASET", help=_VALIDATION)
@option(DATA, "--replay", multiple=True, metavar="DATASET", help=_REPLAY)
@option(DATA, "--chunks", type=click.Choice(["given", "cut"]), help=_CHUNKS)
@option(OUTPUT, "--out", required=True, metavar="DIR", help=_OUT)
@option(OUTPUT, "--merge", metavar="A,…|sweep", help=_MERGE)
@option(OUTPUT, "--resume", is_flag=True, help="Go on with the training in the folder, where it stood.")
@option(OUTPUT, "--quiet", "-q", is_flag=True, help="No progress.")
@json_option
@chunk_options
@new_model_option
@option("Model", "--method", type=click.Choice(["late", "late-interaction", "cde"]), help=_METHOD)
@trust_option
@device_option
@context_options
@training_options
@contextual_options
@loading_options
@click.pass_context
def command(ctx: click.Context, /, **given: Any) -> None:
    """Train a model to read chunks in the context of their documents (InSeNT), and write it into a folder.

    With --method cde, in the context of their corpus, too (contextual document embeddings): an ordinary model becomes
    one of two stages.

    \b
    DATA is
      datasets as eval takes them, whose answers are spans or chunks: what pairs --out DIR writes, sets of ConTEB, or
      with --pairs FILE, the documents that its questions are about, as ingest takes them.

    Documents are held out to measure on, never queries. Base and tuned model are measured before and after, and the
    folder gets a card that says so. ingest, eval and sentence-transformers take the folder as --model.

    A training that was interrupted goes on with --resume, and does only what is not done yet. For several devices:
    accelerate launch -m ctxindex.cli finetune … (not tried on GPUs).
    """  # noqa: D301  # \b is click's mark for lines that are not to be wrapped
    from ctxindex.cli.finetuning import prepare, require_packages
    from ctxindex.training.plan import is_first
    from ctxindex.training.running.folder import TrainingFolder

    out = Path(given["out"]).expanduser()
    as_json, first = given.pop("as_json"), is_first()
    quiet = given["quiet"] or not first
    require_packages(given)
    if first:
        folder = TrainingFolder(out)
        folder.require_usable(resume=given["resume"])
        if given["resume"] and not quiet and not folder.plan():
            click.echo(f"There is no training in {out} to go on with: it begins here.", err=True)
        if given["pairs"] is not None and Path(given["pairs"]).expanduser().is_file():
            _require_documents(given["data"], out, given)
    try:
        training = prepare(given, out)
        if not quiet:
            _say_data(training)
        found = _finetune(training, out, given, quiet)
    except KeyboardInterrupt:
        if first:
            click.echo(f"\n{_interrupted(out)}", err=True)
        ctx.exit(INTERRUPTED)
    if not first:
        return  # an exit of its own would end the job while the first process still measures
    if as_json:
        print_json(_as_json(found, training))
    else:
        _print(found, training)
    if unreadable(training):
        ctx.exit(SOME_FAILED)


def _require_documents(paths: Iterable[str], out: Path, given: dict[str, Any]) -> None:
    """Check that what pairs are about are documents, and that the model will not lie among them.

    This training would not read it there, but whatever reads these folders afterwards would.

    Raises:
        ConfigError: it is a set, which has questions of its own; or the model would lie where all files are read.
    """
    from ctxindex.training.pairs.writing import DOCUMENTS, QUERIES

    chosen = given["resume"] or given["exclude"] or given["include"]
    inside = out.resolve()
    for path in paths:
        place = Path(path).expanduser().resolve()
        if all((place / name).is_file() for name in (DOCUMENTS, QUERIES)):
            raise ConfigError(f"{path} is a set with its own questions: leave --pairs out, or name its documents.jsonl")
        if not chosen and place.is_dir() and (place == inside or place in inside.parents):
            raise ConfigError(f"--out {out} lies in {path}, where documents are read from: name another place")


def _finetune(training: Training, out: Path, given: dict[str, Any], quiet: bool) -> Finetuned:
    from ctxindex.cli.progress import choose_training
    from ctxindex.training.finetune import finetune
    from ctxindex.training.results.card import command_line, write_card
    from ctxindex.training.running.watching import Watching

    steps, measuring = choose_training(quiet)
    line = command_line(["ctxindex", *sys.argv[1:]])
    try:
        return finetune(
            training.plan,
            training.data,
            out,
            resume=given["resume"],
            device=training.device,
            threads=training.threads,
            tensorboard=given["tensorboard"],
            trust_remote_code=given["trust_remote_code"],
            callbacks=[] if steps is None else [Watching(steps)],
            watch=measuring,
            card=lambda found: write_card(found, training.plan, training.data, line),
        )
    finally:
        for one in (steps, measuring):
            if one is not None:
                one.close()


def _interrupted(out: Path) -> str:
    from ctxindex.training.plan import devices
    from ctxindex.training.running.folder import PLAN, TrainingFolder

    folder = TrainingFolder(out)
    if folder.ended() is not None:
        return (
            f"Interrupted. Training has ended; the same command with --resume writes and measures the model in {out}."
        )
    if folder.last_checkpoint(devices()) is not None:
        return f"Interrupted. The same command with --resume goes on from the last checkpoint in {out}."
    if not (folder.path / PLAN).is_file():
        return "Interrupted before training began: the same command begins anew."
    return (
        "Interrupted before the first checkpoint (there is one after as many steps as --save-every or "
        "--evaluate-every says): the same command with --resume begins anew."
    )


def unreadable(training: Training) -> list[tuple[str, str, str]]:
    """The source, name and reason of documents that gave no chunk."""
    data = training.data
    corpora = [*data.sources.items(), *data.held.items(), *data.replay.items()]
    return sorted({(name, *failure) for name, corpus in corpora for failure in corpus.unreadable.items()})


def _say_data(training: Training) -> None:
    data = training.data
    for name, corpus in data.sources.items():
        held = data.held.get(name)
        kept = "" if held is None else f"; {_amount(held)} held out"
        click.echo(f"{name}: {_amount(corpus)} to train on{kept}", err=True)
    for name, corpus in data.held.items():
        if name not in data.sources:
            click.echo(f"{name}: {_amount(corpus)} to measure on", err=True)
    for name, corpus in data.replay.items():
        click.echo(f"{name}: {_amount(corpus)} to practise, each chunk alone", err=True)
    failures = unreadable(training)
    for name, doc_id, reason in failures[:_SHOWN]:
        click.echo(f"  failed  {name}: {doc_id}: {reason}", err=True)
    if len(failures) > _SHOWN:
        click.echo(f"  failed  … and {len(failures) - _SHOWN:,} more; --json has all of them", err=True)


def _amount(corpus: Any) -> str:
    return f"{plural(len(corpus.documents), 'document')} with {plural(len(corpus.queries), 'question')}"


def _as_json(found: Finetuned, training: Training) -> dict[str, Any]:
    from ctxindex.evaluation.report.machine import plain_json
    from ctxindex.training.results.comparison import differences, measurements, verdict

    plan, data = training.plan, training.data
    values: dict[str, Any] = {
        "schema": "ctxindex.finetune/1",
        "folder": str(found.folder),
        "base": plan.model,
        "method": plan.encoder.method,
        "steps": found.steps,
        "seconds": round(found.seconds, 2),
        "earlier": found.earlier,
        "merged": found.merged,
        "merges": {f"{share:g}": value for share, value in found.merges.items()},
        "data": {
            role: {
                name: {"documents": len(corpus.documents), "queries": len(corpus.queries)}
                for name, corpus in corpora.items()
            }
            for role, corpora in (("trained", data.sources), ("held_out", data.held), ("replayed", data.replay))
        },
        "failed": [
            {"source": name, "doc_id": doc_id, "reason": reason} for name, doc_id, reason in unreadable(training)
        ],
        "results": measurements(found.runs),
        "differences": differences(found.runs),
        "verdict": verdict(found.runs, plan.encoder.method) or None if found.runs else None,
        "history": found.history,
    }
    plain: dict[str, Any] = plain_json(values)
    return plain


def _print(found: Finetuned, training: Training) -> None:
    from ctxindex.training.results.card import duration
    from ctxindex.training.results.comparison import results_rows, verdict, why_kept
    from ctxindex.training.results.measured import which_weights

    done = "Finished before, with" if found.earlier else "Trained"
    click.echo(f"{done} {duration(found)}: {found.folder}")
    if said := which_weights(found.history, training.plan.schedule.patience):
        click.echo(said)
    if found.merges:
        tried = ", ".join(f"{share:g}: {100 * value:.1f}" for share, value in sorted(found.merges.items()))
        click.echo(f"Kept {found.merged:g} of the tuned weights, {why_kept(found.runs)} (nDCG@10: {tried})")
    elif found.merged < 1:
        click.echo(f"Kept {found.merged:g} of the tuned weights, the rest is the base's.")
    if found.runs:
        control = "; a control, without a corpus context" if training.plan.is_control else ""
        click.echo(f"\nnDCG@10 on held-out documents (points of 100, [95 % interval]){control}")
        print_table(results_rows(found.runs))
        if said := verdict(found.runs, training.plan.encoder.method):
            click.echo(said)
    else:
        click.echo("No documents were held out, so nothing is known of what it finds.")
    _print_next(found, training)


def _print_next(found: Finetuned, training: Training) -> None:
    from ctxindex.training.results.usage import DATASET, eval_command, ingest_command

    model, named = str(found.folder), training.named
    documents = named.data if named.pairs else ()
    dataset = named.validation[0] if named.validation else DATASET
    click.echo(f"\nNext: {ingest_command(model, training.plan, documents, training.loading_flags)}")
    click.echo(f"      {eval_command(model, training.plan, dataset, context=training.context)}")
