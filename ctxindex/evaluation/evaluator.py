"""From configurations to runs: makes the scorer of each, and keeps the vectors.

A model is loaded once for all corpora that a configuration is run on. Vectors are kept in a cache, by everything that
decides them, so a run that is repeated, killed or varied encodes only what it has not met.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ctxindex.chunking import load_chunker
from ctxindex.encoding import Encoder, load_encoder, open_checkpoint
from ctxindex.encoding.encoder import as_context_encoder
from ctxindex.encoding.known_models import default_model
from ctxindex.encoding.runtime import usable_processors
from ctxindex.encoding.tokenizer import ModelTokenizer
from ctxindex.errors import ConfigError
from ctxindex.evaluation.bm25 import Bm25, require_bm25s
from ctxindex.evaluation.cache import Cache, DiskCache, Kept, MemoryCache, key_of
from ctxindex.evaluation.conditioning import Conditioning
from ctxindex.evaluation.configuration import STORED, Configuration, Prefix
from ctxindex.evaluation.corpus import Corpus
from ctxindex.evaluation.dataset import Dataset
from ctxindex.evaluation.datasets import StoredVectors
from ctxindex.evaluation.metrics import require_metrics
from ctxindex.evaluation.prefixes import Before, headings_before, put_before, title_before
from ctxindex.evaluation.results import Run, SweepPoint
from ctxindex.evaluation.run import evaluate
from ctxindex.evaluation.scoring import Encoded, Reader, Scorer
from ctxindex.evaluation.significance import require_statistics
from ctxindex.metering import Meter
from ctxindex.spec import ChunkerSpec
from ctxindex.types import ChunkedDocument, Chunker

if TYPE_CHECKING:
    from ctxindex.encoding.cde.context_encoder import ContextEncoder


class Watch(Protocol):
    """Who is told how far an evaluation is."""

    def begin(self, corpus: Corpus, configuration: Configuration) -> None:
        """A corpus is about to be indexed by a configuration."""
        ...

    def advance(self, tokens: int) -> None:
        """That many content tokens more are through the model."""
        ...

    def done(self, doc_id: str, failure: str | None) -> None:
        """A document is ready, or has failed for the reason given."""
        ...

    def end(self, run: Run) -> None:
        """The queries are answered, too."""
        ...


class Unwatched(Watch):
    """An evaluation that nobody watches."""

    def begin(self, corpus: Corpus, configuration: Configuration) -> None:
        """Nothing."""

    def advance(self, tokens: int) -> None:
        """Nothing."""

    def done(self, doc_id: str, failure: str | None) -> None:
        """Nothing."""

    def end(self, run: Run) -> None:
        """Nothing."""


class WriteContexts(Protocol):
    """Writes lines of context: `ctxindex.evaluation.contextual.ContextWriter`."""

    def __call__(self, documents: Sequence[ChunkedDocument]) -> Mapping[str, Sequence[str]]:
        """A line for every chunk, by doc_id."""
        ...

    def notes(self) -> Mapping[str, str]:
        """What is to be told of a run with these lines."""
        ...


@dataclass(frozen=True, slots=True)
class Stored:
    """What an index holds: the encoder that made it, and the vectors of its documents by doc_id."""

    encoder: Encoder
    vectors: Mapping[str, Kept]

    @classmethod
    def of(cls, encoder: Encoder, dataset: Dataset, held: StoredVectors) -> Stored:
        """What `open_index_questions` gave, with the encoder of the index."""
        lengths = held.lengths or (None,) * len(held.vectors)
        rows = zip(dataset.documents, held.vectors, lengths, strict=True)
        return cls(encoder, {document.doc_id: Kept(vectors, own, math.nan) for document, vectors, own in rows})


class Evaluator:
    """Evaluates configurations on corpora.

    Args:
        device: where models run.
        threads: of the CPU; None takes those this process may use.
        trust_remote_code: let Python code in a model's folder run.
        cache: the folder that vectors are kept in; None keeps them for the length of one `run`.
        seed: of the intervals.
        watch: told how far it is.
        contexts: writes the lines of `+context`.
        stored: what the index that is evaluated holds, if it is one.
    """

    def __init__(
        self,
        *,
        device: str = "auto",
        threads: int | None = None,
        trust_remote_code: bool = False,
        cache: Path | None = None,
        seed: int = 0,
        watch: Watch | None = None,
        contexts: WriteContexts | None = None,
        stored: Stored | None = None,
    ) -> None:
        self._machine: dict[str, Any] = {"threads": threads, "trust_remote_code": trust_remote_code}
        self._device = device
        self._cache = cache
        self._seed = seed
        self._watch = watch or Unwatched()
        self._contexts = contexts
        self._stored = stored
        self._conditioning = Conditioning(self._watch.advance)

    def check(self, configurations: Sequence[Configuration]) -> None:
        """Find out what could not be run, before hours go into what can.

        Raises:
            ModelError: a model cannot be found or used.
            ConfigError: a setting does not fit its model or method, or nobody is there to do what is asked.
            MissingDependencyError: the extra `eval` is not installed.
        """
        require_metrics()
        require_statistics()
        for configuration in configurations:
            if configuration.method == "bm25":
                require_bm25s()
            if configuration.prefix == "context" and self._contexts is None:
                raise ConfigError("a language model has to write the lines of context: say which with --llm NAME")
            if configuration.needs_model or configuration.method == STORED:
                encoder = as_context_encoder(self._encoder(configuration))
                self._conditioning.check(encoder, configuration.options())

    def run(
        self, configuration: Configuration, corpora: Sequence[Corpus], points: Sequence[SweepPoint | None] | None = None
    ) -> Iterator[Run]:
        """The configuration on each corpus; `points` says where on a curve each stands.

        Raises:
            ModelError: the model cannot be found or used.
            ConfigError: a setting does not fit the model or the method.
            MissingDependencyError: the extra `eval` is not installed.
        """
        reader = self._reader(configuration.prefix)
        conditioned: ContextEncoder | None = None
        if configuration.method == "bm25":
            scorer: Scorer = Bm25(reader, self._watch.done)
            model, notes = "", dict[str, Any](method="bm25")
        else:
            scorer, encoder = self._encoded(configuration, corpora, reader)
            spec = encoder.spec
            model, notes = spec.model, {"method": spec.method, "dtype": spec.dtype, "encoder": asdict(spec)}
            conditioned = None if configuration.method == STORED else as_context_encoder(encoder)
        for corpus, point in zip(corpora, points or [None] * len(corpora), strict=True):
            self._watch.begin(corpus, configuration)
            if conditioned is not None:
                placed, told = self._conditioning.of(conditioned, configuration.options(), corpus)
                scorer = Encoded(placed, self._vectors(placed), reader, self._watch.done)
                notes = {**notes, "encoder": asdict(placed.spec), "corpus_context": told}
            run = evaluate(corpus, configuration, scorer, model=model, seed=self._seed, point=point, notes=notes)
            if configuration.prefix == "context" and self._contexts is not None:
                run = replace(run, notes={**run.notes, **self._contexts.notes()})
            self._watch.end(run)
            yield run

    def _encoded(
        self, configuration: Configuration, corpora: Sequence[Corpus], reader: Reader
    ) -> tuple[Scorer, Encoder]:
        encoder = self._encoder(configuration)
        if configuration.method == STORED and self._stored is not None:
            return Encoded(encoder, _held(self._stored, corpora), done=self._watch.done), encoder
        return Encoded(encoder, self._vectors(encoder), reader, self._watch.done), encoder

    def _encoder(self, configuration: Configuration) -> Encoder:
        if configuration.method == STORED:
            if self._stored is None:
                raise ConfigError("stored vectors are those of an index: give a file of questions, and --index NAME")
            return self._stored.encoder
        options = configuration.options()
        meter = Meter(on_tokens=self._conditioning.advance)
        return load_encoder(options.model_name, options.encoder_options(self._device, **self._machine), meter)

    def _vectors(self, encoder: Encoder) -> Cache:
        if self._cache is None:
            return MemoryCache()
        return DiskCache(self._cache, encoder.spec, f"{self._device} {self._machine['threads'] or usable_processors()}")

    def _reader(self, prefix: Prefix | None) -> Reader:
        if prefix is None:
            return lambda documents: documents
        if prefix == "context":
            return self._with_contexts
        before: Before = title_before if prefix == "title" else headings_before
        return lambda documents: put_before(documents, before)

    def _with_contexts(self, documents: Sequence[ChunkedDocument]) -> Sequence[ChunkedDocument]:
        if self._contexts is None:
            raise ConfigError("a language model has to write the lines of context: say which with --llm MODEL")
        lines = self._contexts(documents)
        return put_before(documents, lambda document, chunk: lines[document.doc_id][chunk.ordinal])


def with_method(configuration: Configuration, *, trust_remote_code: bool = False) -> Configuration:
    """The configuration with its model's own method, where it names none.

    Raises:
        ModelError: the model cannot be found.
    """
    if configuration.method is not None:
        return configuration
    checkpoint = open_checkpoint(configuration.options().model_name, trust_remote_code=trust_remote_code)
    return replace(configuration, method=checkpoint.method)


def chunker_of(spec: ChunkerSpec, model: str | None, *, trust_remote_code: bool = False) -> Chunker:
    """The chunker that an index with this model would have.

    Raises:
        ModelError: the model cannot be found.
        ConfigError: the chunker's settings cannot be used.
    """
    checkpoint = open_checkpoint(model or default_model(), trust_remote_code=trust_remote_code)
    return load_chunker(spec, ModelTokenizer(checkpoint.tokenizer, lower_case=checkpoint.lower_case))


def _held(stored: Stored, corpora: Sequence[Corpus]) -> Cache:
    """The vectors of an index, as a cache that misses nothing in it."""
    held = MemoryCache()
    for corpus in corpora:
        for one in corpus.documents:
            held.keep(key_of(one), stored.vectors[one.document.doc_id])
    return held
