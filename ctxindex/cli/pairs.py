"""`ctxindex pairs`: queries with the spans that answer them, from documents without questions."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ctxindex.cli.options import SectionedCommand, json_option, loading_options, parse_price, writer_options
from ctxindex.cli.output import SOME_FAILED, plural, print_json
from ctxindex.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from ctxindex.training.pairs import Drawn, Pair, PairOptions, QueryWriter, Split
    from ctxindex.types import Document, FailedDocument

_SHOWN = 10
_EXAMPLES = 4

_OUT = "FILE.jsonl for the pairs alone, or DIR for a set that eval and training read."
_KINDS = "Of headings, definitions, sentences, cloze and generated.  [default: all, generated with --llm alone]"
_HOLDOUT = "Share of the documents to keep for evaluation; makes DIR/train and DIR/held-out."
_REMOVE = "Cut the sentence of a cloze pair out of its document: harder, less natural."
_CACHE = "Where the answers of the language model are kept.  [default: ~/.cache/ctxindex]"


@click.command("pairs", cls=SectionedCommand)
@click.argument("paths", nargs=-1, required=True, metavar="DOCS...")
@click.option("--out", required=True, metavar="FILE|DIR", help=_OUT)
@click.option("--per-document", type=click.IntRange(min=1), default=20, show_default=True, help="Most pairs of each.")
@click.option("--kinds", metavar="KIND,…", help=_KINDS)
@click.option("--holdout", type=float, metavar="SHARE", help=_HOLDOUT)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of all that is drawn.")
@click.option("--remove-sentences", is_flag=True, help=_REMOVE)
@click.option("--per-passage", type=click.IntRange(min=1), default=3, show_default=True, help="Most, with --llm.")
@click.option("--cache", metavar="DIR", help=_CACHE)
@click.option("--quiet", "-q", is_flag=True, help="No progress.")
@json_option
@loading_options
@writer_options
@click.pass_context
def command(ctx: click.Context, /, paths: tuple[str, ...], **given: Any) -> None:
    """Make training pairs of DOCS: queries that name what a document is about, and the characters that answer them.

    DOCS are what ingest takes: files, folders, JSONL, "-". Nothing but the documents is needed; --llm adds queries by a
    language model. A file that cannot be read does not stop the run (exit code 3). The same documents and the same
    seed give the same pairs.

    \b
    headings      a heading asks, the paragraphs under it answer
    definitions   what a term means (English)
    sentences     the sentences that matter most, turned to questions (English) or key words
    cloze         about half of the words of a sentence, without its stop words
    generated     by a language model that reads a passage (--llm)

    A pair is a line {"query_id", "query", "doc_id", "start", "end", "kind"}. With --out DIR, documents.jsonl stands
    beside queries.jsonl: what eval reads. The split of --holdout is by document, never by query.
    """  # noqa: D301  # \b is click's mark for lines that are not to be wrapped
    from ctxindex.training.pairs import draw

    target = _Target.of(given["out"], given["holdout"])
    options = _options(given)
    documents, failed = _load(paths, target, given)
    with ExitStack() as opened:
        writer = _writer(given, options, opened)
        with _progress(given["quiet"], len(documents), "pairs") as done:
            drawn = draw(documents, options, writer=writer, done=done)
    if not given["as_json"]:
        _print_failed(failed)
    if not drawn.pairs:
        raise UsageError(f"no pairs could be made of {plural(len(documents), 'document')}: is there prose in them?")
    written = target.write(documents, drawn.pairs, given["seed"])
    if given["as_json"]:
        print_json(_as_json(documents, drawn, failed, written, writer))
    else:
        _print(documents, drawn, written)
    if failed:
        ctx.exit(SOME_FAILED)


@dataclass(frozen=True)
class _Target:
    """Where the pairs go: a file of their own, a set, or with `holdout` two sets."""

    path: Path
    is_file: bool
    holdout: float | None

    @classmethod
    def of(cls, out: str, holdout: float | None) -> _Target:
        path = Path(out).expanduser()
        is_file = path.suffix == ".jsonl"
        if holdout is not None and not 0 < holdout < 1:
            raise ConfigError(f"--holdout {holdout:g}: a share between 0 and 1, as 0.1")
        if is_file and holdout is not None:
            raise ConfigError("--holdout makes two sets, which need a folder: --out DIR")
        if is_file and path.is_dir():
            raise ConfigError(f"--out {out} is a folder, and its name that of a file")
        if not is_file and path.is_file():
            raise ConfigError(f"--out {out} is a file: name one that ends in .jsonl, or a folder")
        return cls(path, is_file, holdout)

    def left_out(self, paths: Sequence[str]) -> list[str]:
        """Globs that keep what an earlier run wrote here from being read: its pairs are no documents.

        Raises:
            ConfigError: one of `paths` would be overwritten.
        """
        from ctxindex.loading import globs_of

        own, places = self.path.resolve(), [path for path in paths if path != "-"]
        for path in map(Path, places):
            if path.resolve() == own or own in path.resolve().parents:
                raise ConfigError(f"--out {self.path} is where documents are read from: name another place")
        return globs_of(own, places)

    def write(self, documents: Sequence[Document], pairs: Sequence[Pair], seed: int) -> dict[Path, Split]:
        from ctxindex.training.pairs import Split, split, write_pairs, write_set

        everything = Split(tuple(documents), tuple(pairs))
        if self.is_file:
            write_pairs(self.path, pairs)
            return {self.path: everything}
        sides = {self.path: everything}
        if self.holdout is not None:
            train, held_out = split(documents, pairs, self.holdout, seed)
            sides = {self.path / "train": train, self.path / "held-out": held_out}
        for folder, side in sides.items():
            write_set(folder, side)
        return sides


def _options(given: Mapping[str, Any]) -> PairOptions:
    from ctxindex.training.pairs import KINDS, OFFLINE, PairOptions

    wanted = given["kinds"]
    kinds = KINDS if given["llm"] is not None else OFFLINE
    if wanted is not None:
        named = [name.strip() for name in wanted.split(",") if name.strip()]
        kinds = tuple(kind for kind in KINDS if kind in named)
        if unknown := [name for name in named if name not in KINDS]:
            raise ConfigError(f"--kinds {unknown[0]}: there are {', '.join(KINDS)}")
    if "generated" in kinds and given["llm"] is None:
        raise ConfigError("--kinds generated: a language model writes these, name it with --llm")
    return PairOptions(given["per_document"], kinds, given["seed"], given["remove_sentences"])


def _load(
    paths: tuple[str, ...], target: _Target, given: Mapping[str, Any]
) -> tuple[list[Document], list[FailedDocument]]:
    """The documents, and those that failed."""
    from ctxindex.loading import LoadOptions, SkippedSource, find_sources, load_source
    from ctxindex.loading.values import DEFAULT_MAX_CHARS
    from ctxindex.types import FailedDocument

    root = None if given["root"] is None else Path(given["root"])
    most = DEFAULT_MAX_CHARS if given["max_chars"] is None else given["max_chars"]
    exclude = [*given["exclude"], *target.left_out(paths)]
    loading = LoadOptions.of(given["include"], exclude, root, no_ignore=given["no_ignore"], max_chars=most)
    documents: list[Document] = []
    with find_sources(paths, loading) as found:
        failed = list(found.failures)
        with _progress(given["quiet"], len(found.sources), "read") as done:
            for source in found.sources:
                outcome = load_source(source, loading)
                done(source.doc_id)
                if isinstance(outcome, FailedDocument):
                    failed.append(outcome)
                elif not isinstance(outcome, SkippedSource):
                    documents.append(outcome)
    return documents, failed


def _writer(given: Mapping[str, Any], options: PairOptions, opened: ExitStack) -> QueryWriter | None:
    if "generated" not in options.kinds:
        return None
    from ctxindex.evaluation.cache import default_folder
    from ctxindex.integrations.llama_index.generator import open_generator
    from ctxindex.llm import CachedGenerator
    from ctxindex.training.pairs import QueryWriter

    price = parse_price(given["llm_price"])
    folder = default_folder() if given["cache"] is None else Path(given["cache"]).expanduser()
    generator = opened.enter_context(open_generator(given["llm"], url=given["llm_url"]))
    answers = CachedGenerator(generator, folder / "answers" / "pairs.jsonl")
    return QueryWriter(answers, per_passage=given["per_passage"], price=price, say=_say)


@contextmanager
def _progress(quiet: bool, total: int, what: str) -> Iterator[Callable[[str], None]]:
    """A bar on a terminal, a line elsewhere, nothing where nobody wants to know."""
    if not quiet and sys.stderr.isatty():
        from tqdm import tqdm

        with tqdm(total=total, desc=what, leave=False, ncols=60) as bar:

            def move(doc_id: str) -> None:
                bar.update()

            yield move
        return
    if not quiet and total:
        _say(f"{what}: {plural(total, 'document')}")
    yield lambda doc_id: None


def _as_json(
    documents: Sequence[Document],
    drawn: Drawn,
    failed: Sequence[FailedDocument],
    written: Mapping[Path, Split],
    writer: QueryWriter | None,
) -> dict[str, Any]:
    return {
        "schema": "ctxindex.pairs/1",
        "documents": len(documents),
        "pairs": {"total": len(drawn.pairs), **drawn.by_kind()},
        "dropped": {"duplicates": drawn.duplicates},
        "failed": [{"doc_id": one.doc_id, "reason": one.reason} for one in failed],
        "written": [
            {"path": str(path), "documents": len(side.documents), "pairs": len(side.pairs)}
            for path, side in written.items()
        ],
        "llm_cost": None if writer is None else writer.cost,
    }


def _print_failed(failed: Sequence[FailedDocument]) -> None:
    for failure in failed[:_SHOWN]:
        click.echo(f"  failed  {failure.doc_id}: {failure.reason}", err=True)
    if len(failed) > _SHOWN:
        click.echo(f"  failed  … and {len(failed) - _SHOWN:,} more; --json has all of them", err=True)


def _print(documents: Sequence[Document], drawn: Drawn, written: Mapping[Path, Split]) -> None:
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in drawn.by_kind().items())
    click.echo(
        f"{plural(len(drawn.pairs), 'pair')} of {plural(len(documents), 'document')} ({kinds}); "
        f"{drawn.duplicates:,} dropped for being like another."
    )
    texts = {document.doc_id: document.text for document in documents}
    for pair in drawn.pairs[:: max(1, len(drawn.pairs) // _EXAMPLES)][:_EXAMPLES]:
        answer = " ".join(texts[pair.doc_id][pair.start : pair.end].split())
        click.echo(f"  {pair.kind}: {pair.query}")
        click.echo(f"      {answer if len(answer) <= 90 else answer[:89] + '…'}")
    for path, side in written.items():
        click.echo(f"{path}: {plural(len(side.documents), 'document')}, {plural(len(side.pairs), 'pair')}")
    last = list(written)[-1]
    if last.suffix == ".jsonl":
        click.echo(f"Next: ctxindex eval DOCS --questions {shlex.quote(str(last))} --compare bm25,independent,late")
    else:
        click.echo(f"Next: ctxindex eval {shlex.quote(str(last))} --compare bm25,independent,independent+title,late")


def _say(line: str) -> None:
    click.echo(line, err=True)
