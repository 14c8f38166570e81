"""All kinds together: documents -> pairs, at most so many a document, the same for the same seed."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from ctxindex.errors import ConfigError
from ctxindex.training.pairs import cloze, definitions, headings, sentences
from ctxindex.training.pairs.choosing import Chosen, choose, without_shared
from ctxindex.training.pairs.generated import QueryWriter
from ctxindex.training.pairs.salience import Statistics
from ctxindex.training.pairs.subject import Subject, subjects_of
from ctxindex.training.pairs.values import KINDS, Candidate, Kind, Material, Pair, Proposer
from ctxindex.types import Document

OFFLINE: Final[tuple[Kind, ...]] = ("headings", "definitions", "sentences", "cloze")
"""The kinds that need nothing but the documents."""


@dataclass(frozen=True, slots=True)
class PairOptions:
    """What is wanted.

    `per_document` is the most pairs of one document. With `remove_sentences`, a cloze pair says which sentence is to
    be cut out of the text, and its answer is what stands around it.

    Raises:
        ConfigError: a value is none.
    """

    per_document: int = 20
    kinds: tuple[Kind, ...] = OFFLINE
    seed: int = 0
    remove_sentences: bool = False

    def __post_init__(self) -> None:
        if self.per_document < 1:
            raise ConfigError("a document has at least 1 pair at most")
        unknown = [kind for kind in self.kinds if kind not in KINDS]
        if unknown or not self.kinds:
            said = f"{', '.join(unknown)} is no kind of pair" if unknown else "no kind of pair is chosen"
            raise ConfigError(f"{said}: there are {', '.join(KINDS)}")


@dataclass(frozen=True, slots=True)
class Drawn:
    """The pairs, by document and in the order of its text; `duplicates` were dropped for being like another."""

    pairs: tuple[Pair, ...]
    duplicates: int

    def by_kind(self) -> dict[Kind, int]:
        """How many there are of each kind that there is one of."""
        counts = Counter(pair.kind for pair in self.pairs)
        return {kind: counts[kind] for kind in KINDS if counts[kind]}


def draw(
    documents: Sequence[Document],
    options: PairOptions | None = None,
    *,
    writer: QueryWriter | None = None,
    done: Callable[[str], None] = lambda doc_id: None,
) -> Drawn:
    """Pairs of documents.

    Subjects and what is salient are told from all documents together, so a document's pairs depend on which others are
    there. They do not depend on the order of the others, nor on anything but the seed.

    Args:
        documents: with different doc_ids.
        options: what is wanted.
        writer: asks a language model for the kind `generated`.
        done: called with the doc_id of each document when its pairs are chosen.

    Raises:
        ConfigError: the kind `generated` is wanted and there is no writer.
        GenerationError: the language model gave no answer; what it has answered is kept by the writer's generator.
    """
    options = options or PairOptions()
    if "generated" in options.kinds and writer is None:
        raise ConfigError("pairs of the kind generated are written by a language model: name it with --llm")
    statistics = Statistics.of(documents)
    subjects = subjects_of(documents, statistics)
    written = _written(documents, subjects, options, writer)
    pairs: list[Pair] = []
    duplicates = 0
    for document, subject in zip(documents, subjects, strict=True):
        material = Material(document, subject, statistics, random.Random())
        found = {**_offline(material, options), **written.get(document.doc_id, {})}
        chosen = Chosen(subject)
        pairs += choose(chosen, found, options.per_document, _random(options, document, "chosen"))
        duplicates += chosen.duplicates
        done(document.doc_id)
    kept, shared = without_shared(pairs)
    return Drawn(tuple(kept), duplicates + shared)


def _offline(material: Material, options: PairOptions) -> dict[Kind, list[Candidate]]:
    proposers: Mapping[Kind, Proposer] = {
        "headings": headings.propose,
        "definitions": definitions.propose,
        "sentences": sentences.propose,
        "cloze": partial(cloze.propose, remove=options.remove_sentences),
    }
    found: dict[Kind, list[Candidate]] = {}
    for kind in OFFLINE:
        if kind in options.kinds:
            # Each kind draws from the start of a series of its own, whichever others are wanted.
            material.random.seed(_series(options, material.document, kind))
            found[kind] = proposers[kind](material)
    return found


def _written(
    documents: Sequence[Document], subjects: Iterable[Subject], options: PairOptions, writer: QueryWriter | None
) -> dict[str, dict[Kind, list[Candidate]]]:
    """What the language model proposes, by doc_id."""
    if writer is None or "generated" not in options.kinds:
        return {}
    share = -(-options.per_document // len(options.kinds))
    drawers = [_random(options, document, "generated") for document in documents]
    found = writer.propose(list(zip(documents, subjects, drawers, strict=True)), share)
    return {document.doc_id: {"generated": some} for document, some in zip(documents, found, strict=True)}


def _random(options: PairOptions, document: Document, purpose: str) -> random.Random:
    return random.Random(_series(options, document, purpose))


def _series(options: PairOptions, document: Document, purpose: str) -> str:
    return f"{options.seed}\0{document.doc_id}\0{purpose}"
