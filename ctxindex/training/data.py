"""What a model is trained on: from the names that a user gives to chunked documents with questions.

    read -> cut into chunks -> what the model cannot read taken out -> split by document, or other sets to measure on
         -> copies taken out

A set is held out by document, never by query, and what is measured on is kept out of all that is trained on: a document
whose text is held out somewhere is trained on nowhere, whichever source it came from. A query with answers in several
documents is a question to each of them; on either side of a split it has the answers that are there.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ctxindex.errors import ConfigError, UsageError
from ctxindex.evaluation.corpus import Corpus, cut
from ctxindex.evaluation.dataset import DatasetError
from ctxindex.evaluation.datasets import open_dataset
from ctxindex.loading import LoadOptions, load_documents
from ctxindex.training.pairs.reading import open_pairs
from ctxindex.training.pairs.split import hold_out, same_text
from ctxindex.training.parts import NO_TOKENS, part, readable_documents, readable_queries
from ctxindex.training.results.measured import FEW, asked
from ctxindex.types import Document, FailedDocument

if TYPE_CHECKING:
    from ctxindex.evaluation.study import Chunks
    from ctxindex.spec import ChunkerSpec
    from ctxindex.types import Chunker, Tokenizer

HELD_OUT = 0.1
"""Share of the documents that is held out where nobody says otherwise."""

_log = logging.getLogger("ctxindex")


@dataclass(frozen=True)
class Data:
    """What is trained and measured on, each by the name of its source.

    A name says what a corpus is: what is held out of a source has the name of that source, and no other two corpora
    have one name.

    Attributes:
        sources: trained on: documents that are asked something, with their questions.
        held: measured on: held out of the sources, or sets of their own; empty where there are none.
        replay: pairs that need no context, each chunk read alone, trained beside.
        published: the names of those that are datasets on the hub; all others are only here.
    """

    sources: Mapping[str, Corpus]
    held: Mapping[str, Corpus]
    replay: Mapping[str, Corpus]
    published: frozenset[str] = frozenset()

    def require(self, batch: int) -> None:
        """Check that every source fills a batch of so many documents.

        Raises:
            UsageError: one does not; the message says what to do.
        """
        for name, corpus in {**self.sources, **self.replay}.items():
            count = len(corpus.documents)
            if count < batch:
                documents = "document" if count == 1 else "documents"
                less = "hold out less (--held-out), " if name in self.held else ""
                raise UsageError(
                    f"{name} has {count} {documents} with questions to train on, fewer than a batch of {batch}: give "
                    f"more documents, {less}or make batches smaller (--documents {count})"
                )


@dataclass(frozen=True)
class DataOptions:
    """What a user names.

    Attributes:
        data: datasets; or with `pairs`, the files and folders that these are about.
        pairs: a file of pairs.
        held_out: share of each source's documents to hold out, 0 for none; None takes `HELD_OUT`, or nothing where
            there is a `validation`.
        validation: datasets to measure on in its place.
        replay: datasets of pairs that need no context; sets that rank documents will do.
        chunks: sets' own chunks or new ones; None takes a set's own where it means them to be ranked.
        loading: how files become documents, with `pairs`.
        seed: decides what is held out.
    """

    data: tuple[str, ...]
    pairs: str | None = None
    held_out: float | None = None
    validation: tuple[str, ...] = ()
    replay: tuple[str, ...] = ()
    chunks: Chunks | None = None
    loading: LoadOptions = field(default_factory=LoadOptions)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.held_out is not None and not 0 <= self.held_out < 1:
            raise ConfigError(f"--held-out {self.held_out:g}: a share of the documents, 0 to less than 1, as 0.1")
        if self.held_out and self.validation:
            raise ConfigError("--held-out and --validation both say what to measure on: leave one out")

    @property
    def share(self) -> float:
        """Of the documents, held out."""
        if self.held_out is not None:
            return self.held_out
        return 0.0 if self.validation else HELD_OUT


def read_data(options: DataOptions, chunker: Chunker, spec: ChunkerSpec, tokenizer: Tokenizer | None = None) -> Data:
    """Read, cut and split what is named.

    What cannot be used (documents that cannot be read, queries that no chunk answers) is left out and told in the log.

    Args:
        options: what is named.
        chunker: cuts documents.
        spec: what describes the chunker.
        tokenizer: the model's, which says what it cannot read; None takes all as readable.

    Raises:
        DatasetError: a set cannot be read, or does not say where in its documents the answers are.
        UsageError: nothing is left to train on, or there is too little to hold anything out.
    """
    reader = _Reader(options, chunker, spec, tokenizer)
    training = [options.pairs] if options.pairs else list(options.data)
    given = [*training, *options.replay, *options.validation]
    names = _names(given)
    called = dict(zip(given, names, strict=True))
    sources = {called[one]: reader.training(one) for one in training}
    replay = {called[one]: reader.any(one) for one in options.replay}
    if options.validation:
        held = {called[one]: reader.any(one) for one in options.validation}
    else:
        parted = {name: _parted(name, corpus, options, reader.wholes) for name, corpus in sources.items()}
        if options.share and all(side is None for _, side in parted.values()):
            raise UsageError(
                "to hold out documents, at least two different ones of a source must have questions: give more, or "
                "hold out none with --held-out 0"
            )
        sources = {name: rest for name, (rest, _) in parted.items()}
        held = {name: side for name, (_, side) in parted.items() if side is not None}
    _warn_of_few(held, options)
    wholes = {} if options.validation else reader.wholes
    kept_apart = {text for corpus in held.values() for texts in _texts(corpus, wholes) for text in texts}
    return Data(
        {name: _trainable(name, corpus, kept_apart, reader.wholes) for name, corpus in sources.items()},
        {name: replace(corpus, name=name) for name, corpus in held.items()},
        {name: _trainable(name, corpus, kept_apart, {}) for name, corpus in replay.items()},
        frozenset(name for one, name in called.items() if not os.path.exists(one)),
    )


@dataclass(frozen=True)
class _Reader:
    """Makes a corpus of what a user names.

    `wholes` are the documents of the pairs, by doc_id, as they are before anything is removed from them.
    """

    options: DataOptions
    chunker: Chunker
    spec: ChunkerSpec
    tokenizer: Tokenizer | None
    wholes: dict[str, Document] = field(default_factory=dict)

    def training(self, given: str) -> Corpus:
        """A corpus whose queries say where in a document their answers are."""
        if self.options.pairs is not None:
            return self._readable(self._pairs(Path(self.options.pairs)))
        corpus = self.any(given)
        if corpus.level == "document":
            raise DatasetError(
                f"{given} says which documents answer, and not where in them, which training needs to know: "
                "give it with --replay, to be practised beside other sets"
            )
        return corpus

    def any(self, given: str) -> Corpus:
        """A corpus of any kind."""
        dataset = open_dataset(given, training=True)
        own = self.options.chunks == "given" or (self.options.chunks is None and dataset.given)
        return self._readable(cut(dataset, None if own else self.chunker, None if own else self.spec))

    def _readable(self, corpus: Corpus) -> Corpus:
        if self.tokenizer is None:
            return corpus
        found = readable_queries(readable_documents(corpus, self.tokenizer), self.tokenizer)
        if left := len(corpus.documents) - len(found.documents):
            _log.warning("%s: %d documents left out (%s)", corpus.name, left, NO_TOKENS)
        if left := len(corpus.queries) - len(found.queries):
            _log.warning("%s: %d queries left out (the model can read nothing of them)", corpus.name, left)
        if not found.documents or not found.queries:
            what = "query" if found.documents else "document"
            raise DatasetError(f"{corpus.name}: no {what} holds text that the model can read")
        return found

    def _pairs(self, file: Path) -> Corpus:
        loading = self.options.loading
        documents = load_documents(
            self.options.data,
            include=loading.include,
            exclude=loading.exclude,
            no_ignore=loading.no_ignore,
            root=loading.root,
            max_chars=loading.max_chars,
        )
        return open_pairs(file, self._noted(documents), file.stem, self.chunker, self.spec)

    def _noted(self, documents: Iterable[Document | FailedDocument]) -> Iterator[Document | FailedDocument]:
        for one in documents:
            if isinstance(one, Document):
                self.wholes[one.doc_id] = one
            yield one


def _names(given: Sequence[str]) -> list[str]:
    """What corpora are called: the last parts of their paths, as many as tell each from all others.

    Raises:
        UsageError: one is given twice.
    """
    places = [os.path.abspath(one) if os.path.exists(one) else one for one in given]
    for number, place in enumerate(places):
        if place in places[:number]:
            raise UsageError(f"{given[number]} is given twice")
    stems = [place.removesuffix(".jsonl") for place in places]
    chosen = [stem if stems.count(stem) == 1 else place for stem, place in zip(stems, places, strict=True)]
    parts = [one.strip("/").split("/") for one in chosen]
    # A name on the hub stays whole: owner/name.
    counts = [1 if os.path.exists(one) else len(own) for one, own in zip(given, parts, strict=True)]
    while True:
        names = ["/".join(own[-count:]) for own, count in zip(parts, counts, strict=True)]
        same = [number for number, name in enumerate(names) if names.count(name) > 1]
        longer = [number for number in same if counts[number] < len(parts[number])]
        if not longer:
            # What is still the same is one on the hub and a folder at the top of the disk.
            return [f"{name} ({number})" if number in same else name for number, name in enumerate(names)]
        for number in longer:
            counts[number] += 1


def _parted(
    name: str, corpus: Corpus, options: DataOptions, wholes: Mapping[str, Document]
) -> tuple[Corpus, Corpus | None]:
    """What is trained on of a source, and what is held out of it: nothing where it has too few documents."""
    if not options.share:
        return corpus, None
    documents = [wholes.get(one.document.doc_id, one.document) for one in corpus.documents]
    named = {corpus.document_names[owner] for owner in asked(corpus)}
    try:
        held = hold_out(documents, named, options.share, options.seed)
    except UsageError:
        _log.warning("%s: no document is held out, since fewer than two different ones have questions", name)
        return corpus, None
    inside = {number for number, doc_id in enumerate(corpus.document_names) if doc_id in held}
    return part(corpus, set(range(len(documents))) - inside), part(corpus, inside)


def _warn_of_few(held: Mapping[str, Corpus], options: DataOptions) -> None:
    more = (
        "name a larger --validation" if options.validation else "hold out more with --held-out, or name a --validation"
    )
    for name, corpus in held.items():
        count = len(asked(corpus))
        if count < FEW:
            documents = "document" if count == 1 else "documents"
            _log.warning(
                "%s: what is measured on %d %s with questions is mostly chance: %s", name, count, documents, more
            )


def _texts(corpus: Corpus, wholes: Mapping[str, Document]) -> list[set[str]]:
    """What each document is known by: its text, and the whole one, where something was removed from it.

    A set may hold the one or the other: `pairs --remove-sentences --out DIR` writes texts without the sentences.
    """
    documents = [one.document for one in corpus.documents]
    return [{same_text(one), same_text(wholes.get(one.doc_id, one))} for one in documents]


def _trainable(name: str, corpus: Corpus, kept_apart: set[str], wholes: Mapping[str, Document]) -> Corpus:
    """The documents of a corpus that are asked something, without copies of what is held out.

    Raises:
        UsageError: there is none.
    """
    copies = {number for number, texts in enumerate(_texts(corpus, wholes)) if texts & kept_apart}
    if copies:
        _log.warning("%s: %d documents are not trained on, because their texts are held out", name, len(copies))
    if corpus.unanswerable:
        _log.warning("%s: %d queries are not trained on, because no chunk answers them", name, corpus.unanswerable)
    taught = asked(corpus) - copies
    if not taught:
        why = "no chunk of any answers a query"
        if copies:
            why = "the texts of all that have questions are measured on: measure on other documents"
        raise UsageError(f"{name} has no document to train on: {why}")
    return replace(part(corpus, taught), name=name)
