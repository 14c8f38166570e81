"""`ctxindex eval`: what a method finds on documents with questions, and what it gains over others."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ctxindex.cli.options import (
    SectionedCommand,
    chunk_options,
    corpus_options,
    device_option,
    encoder_options,
    json_option,
    llm_options,
    new_model_option,
    store_options,
    trust_option,
)
from ctxindex.cli.output import SOME_FAILED, plural, print_json, print_table
from ctxindex.errors import ConfigError

if TYPE_CHECKING:
    from ctxindex.evaluation import Comparison, Run

_SHOWN = 10
_FEW = 30
_LEGEND = (
    "R@k: share of a question's gold chunks among the first k (an answer may span several). "
    "DOC@1: the first chunk is of the right document."
)
_USER = re.compile(r"//[^/@\s]+@")
"""Names and passwords in addresses, which no report repeats."""

_METHOD = "late, late-interaction, independent, bm25 …; repeatable.  [default: the model's own]"
_COMPARE = "More configurations on the same chunks, as in bm25,late,anchor=64; repeatable. --method stays the first."
_CHUNKS = "The set's own chunks, or cut anew.  [default: its own where it is made of chunks]"
_SWEEP = "chunk-size, corpus-size (NAME=V1,V2,… for values of your own), or lambda=FOLDER of models."
_CACHE = "Where vectors are kept for the next run.  [default: ~/.cache/ctxindex]"


@click.command("eval", cls=SectionedCommand)
@click.argument("datasets", nargs=-1, required=True, metavar="DATASET...")
@click.option("--method", "methods", multiple=True, metavar="METHOD", help=_METHOD)
@click.option("--compare", multiple=True, metavar="CONFIG,…", help=_COMPARE)
@click.option("--questions", metavar="FILE", help="Questions about the documents that DATASET holds, as JSONL.")
@click.option("--chunks", type=click.Choice(["given", "cut"]), help=_CHUNKS)
@click.option("--no-titles", is_flag=True, help="Leave out all titles: what is found by the texts alone.")
@click.option("--sweep", "sweeps", multiple=True, metavar="NAME", help=_SWEEP)
@click.option("--seeds", type=click.IntRange(min=1), metavar="N", help="Sub-corpora of each size.  [default: 3]")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of intervals and tests.")
@click.option("--report", metavar="DIR", help="Write a page with plots and the failing queries, and CSVs.")
@click.option("--cache", metavar="DIR", help=_CACHE)
@click.option("--no-cache", is_flag=True, help="Keep no vectors, and read none.")
@click.option("--quiet", "-q", is_flag=True, help="No progress.")
@json_option
@chunk_options
@new_model_option
@trust_option
@device_option
@encoder_options
@corpus_options
@llm_options
@store_options
@click.pass_context
def command(ctx: click.Context, /, **given: Any) -> None:
    """Rank all chunks of each DATASET for its questions, and measure: nDCG@10, recall, MRR@10, documents hit.

    \b
    DATASET is
      a folder with documents.jsonl and queries.jsonl (answers are spans), or
      a BEIR folder, a folder or hub name in ConTEB's format, or
      files or a folder of them, with --questions FILE, or
      a file of questions alone, about the documents of an index (--index, --path).

    \b
    A configuration is a method, then settings by the names of flags:
      independent                 every chunk alone      bm25          words
      late,anchor=64              in its document        bm25+title    with the title before each chunk
      independent+title           also +headings         contextual    with a line by a language model (--llm)
      model=./tuned,blend=0.3     the model's own method
      cde,context=null            without the corpus, or in that of another DATASET
    The first is what the others are compared with. Flags of this command go for those of --method.

    A run that was interrupted goes on from the vectors it kept.
    """  # noqa: D301  # \b is click's mark for lines that are not to be wrapped
    from ctxindex.cli.evaluating import Request, evaluate

    as_json, report = given.pop("as_json"), given.pop("report")
    request = Request.of(given)
    folder = None if report is None else _made(Path(report))
    runs, comparisons = evaluate(request)
    if as_json:
        from ctxindex.evaluation.report import as_json as values

        print_json(values(runs, comparisons))
    else:
        _print(runs, comparisons)
        _print_next(runs, folder)
    if folder is not None:
        _write_report(folder, runs, comparisons, request)
    if any(run.failed or run.corpus.unreadable for run in runs):
        ctx.exit(SOME_FAILED)


def _print(runs: Sequence[Run], comparisons: Sequence[Comparison]) -> None:
    from ctxindex.evaluation.report import tables

    for number, (title, rows) in enumerate(tables(runs, comparisons)):
        click.echo(("\n" if number else "") + title)
        print_table(rows)
    click.echo(_LEGEND)
    fewest = min(len(run.corpus.queries) for run in runs)
    if fewest < _FEW:
        click.echo(f"Only {plural(fewest, 'question')}: too few to tell methods apart, whatever the intervals say.")
    failures = {
        (run.corpus.name, *failure) for run in runs for failure in [*run.corpus.unreadable.items(), *run.failed.items()]
    }
    for name, doc_id, reason in sorted(failures)[:_SHOWN]:
        click.echo(f"  failed  {name}: {doc_id}: {reason}", err=True)
    if len(failures) > _SHOWN:
        click.echo(f"  failed  … and {len(failures) - _SHOWN:,} more; --json has all of them", err=True)


def _print_next(runs: Sequence[Run], folder: Path | None) -> None:
    if folder is not None:
        click.echo(f"\nReport: {folder / 'index.html'}")
    elif len({run.name for run in runs}) == 1:
        click.echo("\nNext: the same with --compare bm25,independent+title,late, for what others find")
    else:
        click.echo("\nNext: the same with --report DIR, for plots and the questions that fail")


def _write_report(folder: Path, runs: Sequence[Run], comparisons: Sequence[Comparison], request: Any) -> None:
    from ctxindex.evaluation.report import write_report

    command = _USER.sub("//", shlex.join(["ctxindex", *sys.argv[1:]]))
    try:
        write_report(folder, runs, comparisons, command=command, settings=request.described(runs))
    except OSError as error:
        raise ConfigError(f"--report {folder}: {error.strerror}") from None


def _made(folder: Path) -> Path:
    """The folder of a report, made before hours of work go into what it will hold."""
    from ctxindex.evaluation.report import require_report

    require_report()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--report {folder}: {error.strerror}") from None
    return folder
