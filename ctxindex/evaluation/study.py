"""A study: configurations on datasets, all on the same chunks, with one thing varied or none."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeAlias

from ctxindex.errors import ConfigError
from ctxindex.evaluation.configuration import STORED, Configuration
from ctxindex.evaluation.corpus import Corpus, cut
from ctxindex.evaluation.dataset import Dataset
from ctxindex.evaluation.results import Run, SweepPoint
from ctxindex.evaluation.sweeps import Sweep, chunk_sizes, family_of, sub_corpora
from ctxindex.spec import ChunkerSpec
from ctxindex.types import Chunker

if TYPE_CHECKING:
    from ctxindex.evaluation.evaluator import Evaluator

Chunks: TypeAlias = Literal["given", "cut"]
"""The set's own chunks, or new ones."""

SEEDS = 3
"""Sub-corpora of each size, if nobody says otherwise."""

Place: TypeAlias = tuple[SweepPoint | None, Corpus]


@dataclass(frozen=True)
class Study:
    """What is to be run.

    `chunks` None takes a set's own where it means them to be ranked, and cuts the others by `chunker`.
    """

    datasets: Sequence[Dataset]
    configurations: Sequence[Configuration]
    chunker: ChunkerSpec
    chunks: Chunks | None = None
    sweep: Sweep | None = None
    seeds: int = SEEDS

    def run(self, evaluator: Evaluator, load_chunker: Callable[[ChunkerSpec], Chunker]) -> Iterator[Run]:
        """The runs, one configuration after the other.

        Raises:
            ConfigError: two datasets have one name.
            CtxIndexError: as of `Evaluator.run`, `cut` and the sweeps; what was run before stays in the cache.
        """
        names = [dataset.name for dataset in self.datasets]
        for number, name in enumerate(names):
            if name in names[:number]:
                raise ConfigError(f"two datasets are called {name}: their results would be taken for one another")
        places = list(self._places(load_chunker))
        corpora = [corpus for _, corpus in places]
        for configuration in self.configurations:
            if self.sweep is not None and self.sweep.name == "lambda":
                yield from self._family(self.sweep, configuration, corpora, evaluator)
            else:
                points = [point for point, _ in places]
                for run in evaluator.run(configuration, corpora, points):
                    yield replace(run, notes={**run.notes, **self._unit})

    @property
    def _unit(self) -> dict[str, str]:
        """Of the values of a sweep, where that is a choice."""
        return {"unit": self.chunker.unit} if self.sweep is not None and self.sweep.name == "chunk-size" else {}

    def _family(
        self, sweep: Sweep, configuration: Configuration, corpora: Sequence[Corpus], evaluator: Evaluator
    ) -> Iterator[Run]:
        if not configuration.needs_model:
            raise ConfigError(f"--sweep lambda varies the model, and {configuration.name} has none")
        for point, member in family_of(sweep, configuration):
            for run in evaluator.run(member, corpora, [point] * len(corpora)):
                # One curve, whatever the folders of its models are called.
                yield replace(run, configuration=configuration, model="", notes={**run.notes, "model": run.model})

    def _places(self, load_chunker: Callable[[ChunkerSpec], Chunker]) -> Iterator[Place]:
        """Every corpus to be ranked, and where on a curve it stands."""
        if self.sweep is not None and self.sweep.name == "chunk-size":
            yield from self._sizes(self.sweep, load_chunker)
            return
        chunker: Chunker | None = None
        for dataset in self.datasets:
            given = self.chunks == "given" or (self.chunks is None and dataset.given)
            if not given and chunker is None:
                chunker = load_chunker(self.chunker)
            if not given and any(one.method == STORED for one in self.configurations):
                raise ConfigError("the vectors of an index are those of its own chunks: leave out --chunks cut")
            corpus = cut(dataset, None if given else chunker, None if given else self.chunker)
            if self.sweep is not None and self.sweep.name == "corpus-size":
                yield from sub_corpora(corpus, self.sweep, self.seeds)
            else:
                yield None, corpus

    def _sizes(self, sweep: Sweep, load_chunker: Callable[[ChunkerSpec], Chunker]) -> Iterator[Place]:
        if self.chunks == "given" or any(one.method == STORED for one in self.configurations):
            raise ConfigError("--sweep chunk-size cuts documents anew: it does not go with chunks that are given")
        for size in chunk_sizes(sweep, self.chunker.unit):
            spec = replace(self.chunker, size=size)
            chunker = load_chunker(spec)
            for dataset in self.datasets:
                yield SweepPoint(sweep.name, size), cut(dataset, chunker, spec)
