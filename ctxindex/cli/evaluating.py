"""From the flags of `ctxindex eval` to runs: what is read, what is compared, and who writes the contexts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from ctxindex.cli.progress import choose_watch
from ctxindex.config import SETTINGS, Settings
from ctxindex.errors import ConfigError, UsageError
from ctxindex.evaluation import Comparison, Configuration, Dataset, Run, parse_configurations
from ctxindex.evaluation.cache import default_folder
from ctxindex.evaluation.comparing import compare
from ctxindex.evaluation.configuration import STORED, WINDOWED
from ctxindex.evaluation.contextual import ContextWriter
from ctxindex.evaluation.datasets import open_dataset, open_index_questions
from ctxindex.evaluation.evaluator import Evaluator, Stored, chunker_of
from ctxindex.evaluation.study import Study
from ctxindex.evaluation.sweeps import parse_sweep
from ctxindex.indexing import IndexOptions
from ctxindex.llm import CachedGenerator, Price
from ctxindex.spec import ChunkerSpec

_PLACE = ("store", "url", "index", "path")
_CHUNKING = ("chunker", "chunk_size", "chunk_unit", "chunk_overlap")
_ANSWERS = "contexts.jsonl"


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

    def configurations(self) -> list[Configuration]:
        """Those of --method with the flags, then those of --compare with what says where models come from.

        Raises:
            ConfigError: one is none, or a flag goes with none of them.
        """
        names = [name for name in IndexOptions.names() if name not in ("method", *_CHUNKING)]
        said = {name: value for name in names if (value := self.settings.get(name)) is not None}
        windowed = {name: value for name, value in said.items() if name in WINDOWED}
        common = {name: value for name, value in said.items() if name not in WINDOWED}
        methods = self.given["methods"] or [self.settings.get("method") or (STORED if self.of_index else "")]
        main = parse_configurations([method for method in methods if method]) or [Configuration()]
        if windowed and not any(one.needs_model for one in main):
            flag = f"--{next(iter(windowed)).replace('_', '-')}"
            raise ConfigError(f"{flag} goes with methods that read chunks in their documents, not with {main[0].name}")
        if len(main) == 1 and main[0].needs_model:  # what does not fit is refused, as by an ingest
            main = [replace(main[0], settings={**windowed, **main[0].settings}, common=common)]
        found = [one.over(windowed, common) for one in main]
        found += [one.over({}, common) for one in parse_configurations(self.given["compare"])]
        return [one for number, one in enumerate(found) if one not in found[:number]]

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
        return IndexOptions(**{name: self.settings.get(name) for name in _CHUNKING}).chunker_spec()

    def described(self) -> dict[str, Any]:
        """What a report says of how it was made."""
        chunker = self.chunker()
        return {
            "chunks": self.given["chunks"] or f"{chunker.name}, at most {chunker.size} {chunker.unit}",
            "seed": self.given["seed"],
        }


def evaluate(request: Request) -> tuple[list[Run], list[Comparison]]:
    """Everything that was asked for.

    Raises:
        CtxIndexError: as of the datasets, the configurations and the runs.
    """
    configurations = request.configurations()
    sweep = None if request.given["sweep"] is None else parse_sweep(request.given["sweep"])
    trusted = request.given["trust_remote_code"]
    watch = choose_watch(request.given["quiet"])
    with ExitStack() as opened:
        datasets, stored = _datasets(request, opened)
        chunks = request.given["chunks"]
        if chunks is None and any(request.settings.get(name) is not None for name in _CHUNKING) and stored is None:
            chunks = "cut"
        study = Study(datasets, configurations, request.chunker(), chunks, sweep, request.given["seeds"])
        evaluator = Evaluator(
            device=request.settings.get("device", "auto"),
            threads=request.settings.get("threads"),
            trust_remote_code=trusted,
            cache=_cache(request),
            seed=request.given["seed"],
            watch=watch,
            contexts=_contexts(request, configurations, opened),
            stored=stored,
        )
        model = next((one.options().model for one in configurations if one.needs_model), request.settings.get("model"))
        try:
            runs = list(study.run(evaluator, lambda spec: chunker_of(spec, model, trust_remote_code=trusted)))
        finally:
            if watch is not None:
                watch.close()
    return runs, compare(runs, request.given["seed"])


def _datasets(request: Request, opened: ExitStack) -> tuple[list[Dataset], Stored | None]:
    if not request.of_index:
        return [open_dataset(name, questions=request.given["questions"]) for name in request.datasets], None
    from ctxindex.index import Index

    names = (*_PLACE, "model", "device", "threads")
    settings = {name: request.settings.get(name) for name in names}
    index = opened.enter_context(Index.open(**settings, trust_remote_code=request.given["trust_remote_code"]))
    searcher = index.searcher()
    file = request.datasets[0]
    dataset, vectors = open_index_questions(file, searcher.store, Path(file).stem)
    return [dataset], Stored.of(searcher.encoder, dataset, vectors)


def _cache(request: Request) -> Path | None:
    if request.given["no_cache"]:
        return None
    return Path(request.given["cache"]).expanduser() if request.given["cache"] else default_folder()


def _contexts(request: Request, configurations: Sequence[Configuration], opened: ExitStack) -> ContextWriter | None:
    if not any(one.prefix == "context" for one in configurations) or request.given["llm"] is None:
        return None
    from ctxindex.integrations.llama_index.generator import open_generator

    generator = opened.enter_context(open_generator(request.given["llm"], url=request.given["llm_url"]))
    folder = _cache(request) or default_folder()
    folder.mkdir(parents=True, exist_ok=True)
    return ContextWriter(CachedGenerator(generator, folder / _ANSWERS), _price(request.given["llm_price"]), _say)


def _price(text: str | None) -> Price | None:
    if text is None:
        return None
    try:
        prompt, completion = map(float, text.split(","))
    except ValueError:
        raise ConfigError(f"--llm-price {text}: a million prompt and completion tokens, as in 0.15,0.6") from None
    return Price(prompt, completion)


def _say(line: str) -> None:
    click.echo(line, err=True)
