"""From the flags of `ctxindex eval` to runs: what is read, what is compared, and who writes the contexts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from ctxindex.cli.options import parse_price
from ctxindex.cli.progress import choose_watch
from ctxindex.config import SETTINGS, Settings
from ctxindex.errors import ConfigError, UsageError
from ctxindex.evaluation import Comparison, Configuration, Dataset, Run, parse_configurations
from ctxindex.evaluation.cache import default_folder
from ctxindex.evaluation.comparing import compare
from ctxindex.evaluation.configuration import CHUNKING, STORED, WINDOWED, distinct
from ctxindex.evaluation.contextual import ContextWriter
from ctxindex.evaluation.dataset import without_titles
from ctxindex.evaluation.datasets import open_dataset, open_index_questions
from ctxindex.evaluation.evaluator import Evaluator, Stored, chunker_of, with_method
from ctxindex.evaluation.study import SEEDS, Chunks, Study
from ctxindex.evaluation.sweeps import Sweep, parse_sweep
from ctxindex.indexing import IndexOptions
from ctxindex.llm import CachedGenerator
from ctxindex.spec import ChunkerSpec

_PLACE = ("store", "url", "index", "path")


@dataclass(frozen=True)
class Request:
    """What was asked for: `given` are all flags by name, `settings` what they, variables and files say together."""

    given: Mapping[str, Any]
    settings: Settings

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Request:
        """The request that flags make."""
        flags = {name: given.get(name) for name in SETTINGS if name in given}
        return cls(given, Settings(flags))

    @property
    def datasets(self) -> tuple[str, ...]:
        """As they were written."""
        names: tuple[str, ...] = self.given["datasets"]
        return names

    def configurations(self, model: str | None = None) -> list[Configuration]:
        """Those of --method with the flags, then those of --compare with what says where models come from.

        A flag that does not go with the method is refused, as by an ingest; what a variable or a file says of windows
        is left out where it does not. `model` is the one where nobody names any.

        Raises:
            ConfigError: one is none, or a flag goes with none of them.
        """
        found = {name: self.settings.find(name) for name in IndexOptions.names() if name not in ("method", *CHUNKING)}
        said = {name: one for name, one in found.items() if one.value is not None}
        windowed = {name: one.value for name, one in said.items() if name in WINDOWED}
        flags = {name: one.value for name, one in said.items() if name in WINDOWED and one.origin.startswith("--")}
        common = {name: one.value for name, one in said.items() if name not in WINDOWED}
        if model is not None:
            common.setdefault("model", model)
        main = self._main()
        if flags and not any(one.needs_model for one in main):
            flag = f"--{next(iter(flags)).replace('_', '-')}"
            raise ConfigError(f"{flag} goes with methods that read chunks in their documents, not with {main[0].name}")
        if len(main) == 1 and main[0].needs_model:
            main = [replace(main[0], settings={**flags, **main[0].settings})]
        listed = [self._settled(one, common).over(windowed, common) for one in main]
        listed += [self._settled(one, common).over({}, common) for one in parse_configurations(self.given["compare"])]
        return distinct(listed)

    def _settled(self, configuration: Configuration, common: Mapping[str, Any]) -> Configuration:
        """With a method, the model's own if no other."""
        return with_method(replace(configuration, common=common), trust_remote_code=self.given["trust_remote_code"])

    def _main(self) -> list[Configuration]:
        if self.given["methods"]:
            return parse_configurations(self.given["methods"])
        if self.of_index:
            return [Configuration(STORED)]
        method = self.settings.get("method")
        return [Configuration() if method is None else Configuration(method)]

    @property
    def of_index(self) -> bool:
        """Whether the only dataset is a file of questions, about the documents of an index."""
        if self.given["questions"] is not None or any(not Path(name).is_file() for name in self.datasets):
            return False
        if len(self.datasets) > 1:
            raise UsageError("one file of questions at a time: an index is evaluated by itself")
        return True

    def chunker(self) -> ChunkerSpec:
        """How documents are cut."""
        return IndexOptions(**{name: self.settings.get(name) for name in CHUNKING}).chunker_spec()

    def new_chunks(self) -> str | None:
        """The first flag that says how to cut."""
        origins = (self.settings.find(name).origin for name in CHUNKING)
        return next((origin for origin in origins if origin.startswith("--")), None)

    def chunks(self, *, of_index: bool) -> Chunks | None:
        """The set's own, or new ones; None for what each set means.

        Raises:
            ConfigError: a flag says how to cut what is not cut.
        """
        chosen: Chunks | None = self.given["chunks"]
        flag = self.new_chunks()
        if flag is None:
            return chosen
        if chosen == "given" or of_index:
            whose = "an index has" if of_index else "--chunks given takes"
            raise ConfigError(f"{flag} says how to cut, and {whose} chunks as they are: leave it out")
        return "cut"

    def sweep(self) -> Sweep | None:
        """What is varied.

        Raises:
            ConfigError: two things at once, or a flag that says nothing to it.
        """
        if len(self.given["sweeps"]) > 1:
            raise ConfigError("one --sweep at a time: give each in a command of its own")
        found = parse_sweep(self.given["sweeps"][0]) if self.given["sweeps"] else None
        if self.given["seeds"] and (found is None or found.name != "corpus-size"):
            raise ConfigError("--seeds goes with --sweep corpus-size")
        if found is not None and found.name == "chunk-size" and self.given["chunk_size"] is not None:
            raise ConfigError("--chunk-size says nothing to --sweep chunk-size: give sizes as in chunk-size=64,128")
        return found

    def described(self, runs: Sequence[Run]) -> dict[str, Any]:
        """What a report says of how it was made."""
        chunkers = dict.fromkeys(run.corpus.chunker for run in runs)
        return {
            "chunks": "; ".join("the set's own" if one is None else _in_words(one) for one in chunkers),
            "seed": self.given["seed"],
            **{name: self.settings.get(name) for name in ("device", "threads") if self.settings.get(name) is not None},
        }


def _in_words(chunker: ChunkerSpec) -> str:
    overlap = f", {chunker.overlap} of them repeated" if chunker.overlap else ""
    return f"{chunker.name}, at most {chunker.size} {chunker.unit}{overlap}"


def evaluate(request: Request) -> tuple[list[Run], list[Comparison]]:
    """Everything that was asked for.

    Raises:
        CtxIndexError: as of the datasets, the configurations and the runs.
    """
    request.configurations()  # what is no configuration is told before anything is read
    sweep = request.sweep()
    trusted = request.given["trust_remote_code"]
    watch = choose_watch(request.given["quiet"])
    with ExitStack() as opened:
        datasets, stored = _datasets(request, opened)
        configurations = request.configurations(None if stored is None else stored.encoder.spec.model)
        chunks = request.chunks(of_index=stored is not None)
        study = Study(datasets, configurations, request.chunker(), chunks, sweep, request.given["seeds"] or SEEDS)
        evaluator = Evaluator(
            device=request.settings.get("device", "auto"),
            threads=request.settings.get("threads"),
            trust_remote_code=trusted,
            cache=None if request.given["no_cache"] else _folder(request) / "vectors",
            seed=request.given["seed"],
            watch=watch,
            contexts=_contexts(request, configurations, opened),
            stored=stored,
        )
        evaluator.check(configurations)
        model = next((one.options().model for one in configurations if one.needs_model), request.settings.get("model"))
        try:
            runs = list(study.run(evaluator, lambda spec: chunker_of(spec, model, trust_remote_code=trusted)))
        finally:
            if watch is not None:
                watch.close()
    return runs, compare(runs, request.given["seed"])


def _datasets(request: Request, opened: ExitStack) -> tuple[list[Dataset], Stored | None]:
    if not request.of_index:
        opened_sets = [open_dataset(name, questions=request.given["questions"]) for name in request.datasets]
        return [without_titles(one) for one in opened_sets] if request.given["no_titles"] else opened_sets, None
    if request.given["no_titles"]:
        raise ConfigError("--no-titles: the vectors of an index are those of its documents with their titles")
    from ctxindex.index import Index

    names = (*_PLACE, "model", "device", "threads")
    settings = {name: request.settings.get(name) for name in names}
    index = opened.enter_context(Index.open(**settings, trust_remote_code=request.given["trust_remote_code"]))
    searcher = index.searcher()
    file = request.datasets[0]
    dataset, vectors = open_index_questions(file, searcher.store, Path(file).stem)
    return [dataset], Stored.of(searcher.encoder, dataset, vectors)


def _folder(request: Request) -> Path:
    """What is kept between runs: vectors, and in a folder of their own answers that cost money."""
    return Path(request.given["cache"]).expanduser() if request.given["cache"] else default_folder()


def _contexts(request: Request, configurations: Sequence[Configuration], opened: ExitStack) -> ContextWriter | None:
    if not any(one.prefix == "context" for one in configurations) or request.given["llm"] is None:
        return None
    from ctxindex.integrations.llama_index.generator import open_generator

    generator = opened.enter_context(open_generator(request.given["llm"], url=request.given["llm_url"]))
    answers = CachedGenerator(generator, _folder(request) / "answers" / "contexts.jsonl")
    return ContextWriter(answers, parse_price(request.given["llm_price"]), _say)


def _say(line: str) -> None:
    click.echo(line, err=True)
