"""`ctxindex pairs`: queries with the spans that answer them, from documents without questions."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ctxindex.cli.options import (
    WRITER,
    SectionedCommand,
    SectionedOption,
    chosen_loading,
    json_option,
    loading_options,
    parse_price,
    writer_options,
)
from ctxindex.cli.output import SOME_FAILED, plural, print_json
from ctxindex.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from ctxindex.loading import SkippedSource
    from ctxindex.training.pairs import Drawn, Pair, PairOptions, QueryWriter, Split
    from ctxindex.types import Document, FailedDocument

_SHOWN = 10
_ENDING = re.compile(r"(?:\.[A-Za-z]\w*)+$")
"""Of a name that looks like that of a file; a number after a dot is that of a version."""
_EXAMPLES = 4

_OUT = "FILE.jsonl for the pairs alone, or DIR for a set that eval and training read."
_KINDS = "Of headings, definitions, sentences, cloze and generated.  [default: all, generated with --llm alone]"
_HOLDOUT = "Share of the documents to keep for evaluation; makes DIR/train and DIR/held-out."
_REMOVE = "Cut the sentence of a cloze pair out of its document: harder, less natural."
_MAX_TOKENS = "Most of one answer, with what a model thinks before it.  [default: 120 a query, and 400]"
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
@click.option(
    "--llm-max-tokens", cls=SectionedOption, section=WRITER, type=click.IntRange(min=1), metavar="N", help=_MAX_TOKENS
)
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

    A pair is a line {"query_id", "query", "doc_id", "start", "end", "kind"}; in a file of its own with the words of the
    answer as "evidence". With --out DIR, documents.jsonl stands beside queries.jsonl: what eval and finetune read. The
    split of --holdout is by document, never by query.
    """  # noqa: D301  # \b is click's mark for lines that are not to be wrapped
    from ctxindex.training.pairs import draw

    target = _Target.of(given["out"], given["holdout"])
    target.check()
    options = _options(given)
    read = _load(paths, target, given)
    documents = read.documents
    with ExitStack() as opened:
        writer = _writer(given, options, opened)
        with _progress(given["quiet"], len(documents), "pairs") as done:
            drawn = draw(documents, options, writer=writer, done=done)
    if not given["as_json"]:
        _print_some("failed", read.failed)
        _print_some("skipped", read.skipped)
    if not documents:
        some = "no document could be read" if read.failed else "there are no documents"
        raise UsageError(f"{some} in {', '.join(paths)}")
    if not drawn.pairs:
        raise UsageError(f"no pairs could be made of {plural(len(documents), 'document')}: is there prose in them?")
    written = target.write(documents, drawn.pairs, given["seed"])
    if given["as_json"]:
        print_json(_as_json(read, drawn, written, writer))
    else:
        _print(documents, drawn, written)
        _print_next(paths, target, given)
    if read.failed:
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
        is_file = path.suffix == ".jsonl" and not out.endswith("/")
        ending = None if is_file or out.endswith("/") or path.exists() else _ENDING.search(path.name)
        # A name that begins with a dot is one of a hidden folder, with nothing before an ending.
        if ending and (stem := path.name[: ending.start()]):
            raise ConfigError(
                f"--out {out}: a file of pairs ends in .jsonl, a folder for a set has no ending, or a slash behind it: "
                f"name {stem}.jsonl, {stem} or {out}/"
            )
        if holdout is not None and not 0 < holdout < 1:
            raise ConfigError(f"--holdout {holdout:g}: a share between 0 and 1, as 0.1")
        if is_file and holdout is not None:
            raise ConfigError("--holdout makes two sets, which need a folder: --out DIR")
        if is_file and path.is_dir():
            raise ConfigError(f"--out {out} is a folder, and its name that of a file")
        if not is_file and path.is_file():
            raise ConfigError(f"--out {out} is a file: name one that ends in .jsonl, or a folder")
        return cls(path, is_file, holdout)

    def check(self) -> None:
        """See that nothing lies here that would be overwritten in part, or contradict what is written.

        Raises:
            ConfigError: the folder has a set in two parts, and is to get a whole one, or the other way round.
        """
        from ctxindex.training.pairs import holds_pairs

        if self.is_file:
            return
        others = self._parts if self.holdout is None else (self.path,)
        if there := [str(folder) for folder in others if holds_pairs(folder)]:
            # Whose work these are, and what was mended in them by hand, nobody knows here: they are not removed.
            raise ConfigError(
                f"--out {self.path}: there are pairs in {' and '.join(there)}, and training on one set would see what "
                "the other measures: name another --out, or remove documents.jsonl and queries.jsonl there"
            )

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

    def write(self, documents: Sequence[Document], pairs: Sequence[Pair], seed: int) -> _Written:
        from ctxindex.training.pairs import Split, split, write_pairs, write_set

        everything = Split(tuple(documents), tuple(pairs))
        if self.is_file:
            return _Written({self.path: everything}, write_pairs(self.path, everything))
        sides = {self.path: everything}
        if self.holdout is not None:
            sides = dict(zip(self._parts, split(documents, pairs, self.holdout, seed), strict=True))
        return _Written(sides, [kept for folder, side in sides.items() for kept in write_set(folder, side)])

    @property
    def _parts(self) -> tuple[Path, Path]:
        """The folders of a set that is split."""
        return self.path / "train", self.path / "held-out"

    def commands(self, paths: Sequence[str], loading: Sequence[str]) -> list[str]:
        """What to do next: commands that take what was written, with the documents and the flags of their loading."""
        made = shlex.quote(str(self.path))
        if self.is_file:
            documents = " ".join(map(shlex.quote, paths))
            found = [" ".join([f"finetune {documents} --pairs {made}", *loading, "--out MODEL"])]
            # Elsewhere eval would call the documents by other names, or not have them all.
            if len(paths) == 1 and paths[0] != "-" and not loading:
                found = [f"eval {documents} --questions {made} --compare bm25,independent,late", *found]
            return found
        compared = "--compare bm25,independent,independent+title,late"
        if self.holdout is None:
            return [f"eval {made} {compared}", f"finetune {made} --out MODEL"]
        train, held_out = (shlex.quote(str(part)) for part in self._parts)
        return [f"eval {held_out} {compared}", f"finetune {train} --validation {held_out} --out MODEL"]


@dataclass(frozen=True)
class _Written:
    """What was written where, and the files that were there before and said something else, by their new names."""

    sides: Mapping[Path, Split]
    kept: Sequence[Path]


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


@dataclass(frozen=True)
class _Read:
    """What the paths gave."""

    documents: list[Document]
    failed: list[FailedDocument]
    skipped: list[SkippedSource]


def _load(paths: tuple[str, ...], target: _Target, given: Mapping[str, Any]) -> _Read:
    """The documents, those that failed, and what is none."""
    from ctxindex.loading import LoadOptions, SkippedSource, find_sources, load_source
    from ctxindex.loading.values import DEFAULT_MAX_CHARS
    from ctxindex.types import FailedDocument

    root = None if given["root"] is None else Path(given["root"])
    most = DEFAULT_MAX_CHARS if given["max_chars"] is None else given["max_chars"]
    exclude = [*given["exclude"], *target.left_out(paths)]
    loading = LoadOptions.of(given["include"], exclude, root, no_ignore=given["no_ignore"], max_chars=most)
    with find_sources(paths, loading) as found:
        read = _Read([], list(found.failures), list(found.skipped))
        with _progress(given["quiet"], len(found.sources), "read") as done:
            for source in found.sources:
                outcome = load_source(source, loading)
                done(source.doc_id)
                if isinstance(outcome, FailedDocument):
                    read.failed.append(outcome)
                elif isinstance(outcome, SkippedSource):
                    read.skipped.append(outcome)
                else:
                    read.documents.append(outcome)
    return read


def _writer(given: Mapping[str, Any], options: PairOptions, opened: ExitStack) -> QueryWriter | None:
    if "generated" not in options.kinds:
        return None
    from ctxindex.evaluation.cache import default_folder
    from ctxindex.integrations.llama_index.generator import open_generator
    from ctxindex.llm import CachedGenerator
    from ctxindex.training.pairs import QueryWriter, most_tokens

    price = parse_price(given["llm_price"])
    folder = default_folder() if given["cache"] is None else Path(given["cache"]).expanduser()
    most = given["llm_max_tokens"] or most_tokens(given["per_passage"])
    asked = open_generator(given["llm"], url=given["llm_url"], max_tokens=most, empty_at_length=True)
    generator = opened.enter_context(asked)
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


def _as_json(read: _Read, drawn: Drawn, written: _Written, writer: QueryWriter | None) -> dict[str, Any]:
    return {
        "schema": "ctxindex.pairs/1",
        "documents": len(read.documents),
        "pairs": {"total": len(drawn.pairs), **drawn.by_kind()},
        "dropped": {"duplicates": drawn.duplicates},
        "failed": [{"doc_id": one.doc_id, "reason": one.reason} for one in read.failed],
        "skipped": [{"doc_id": one.doc_id, "reason": one.reason} for one in read.skipped],
        "written": [
            {"path": str(path), "documents": len(side.documents), "pairs": len(side.pairs)}
            for path, side in written.sides.items()
        ],
        "kept": list(map(str, written.kept)),
        "llm_cost": None if writer is None else writer.cost,
        "llm_unanswered": None if writer is None else writer.unanswered,
    }


def _print_some(what: str, entries: Sequence[FailedDocument | SkippedSource]) -> None:
    for one in entries[:_SHOWN]:
        click.echo(f"  {what}  {one.doc_id}: {one.reason}", err=True)
    if len(entries) > _SHOWN:
        click.echo(f"  {what}  … and {len(entries) - _SHOWN:,} more; --json has all of them", err=True)


def _print(documents: Sequence[Document], drawn: Drawn, written: _Written) -> None:
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
    for kept in written.kept:
        click.echo(f"{kept}: what was there before, and is not the same")
    for path, side in written.sides.items():
        click.echo(f"{path}: {plural(len(side.documents), 'document')}, {plural(len(side.pairs), 'pair')}")


def _print_next(paths: Sequence[str], target: _Target, given: Mapping[str, Any]) -> None:
    first, *more = target.commands(paths, chosen_loading(given))
    click.echo(f"Next: ctxindex {first}")
    for command in more:
        click.echo(f"      ctxindex {command}")


def _say(line: str) -> None:
    click.echo(line, err=True)
