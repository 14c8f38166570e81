"""Documents kept apart for evaluation: by document, never by query, and the same for the same seed."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from ctxindex.errors import ConfigError, UsageError
from ctxindex.training.pairs.text import fold
from ctxindex.training.pairs.values import Pair
from ctxindex.types import Document


@dataclass(frozen=True, slots=True)
class Split:
    """Documents with their pairs, in the order in which they came."""

    documents: tuple[Document, ...]
    pairs: tuple[Pair, ...]


def split(documents: Sequence[Document], pairs: Iterable[Pair], share: float, seed: int = 0) -> tuple[Split, Split]:
    """What is trained on, and what is held out: about `share` of the documents, at least one with pairs on each side.

    Documents of one text, white space and letter case aside, go to the same side. Which side a document goes to is
    drawn from its text and the seed.

    Raises:
        ConfigError: `share` is not between 0 and 1.
        UsageError: fewer than two different documents have pairs.
    """
    listed = list(pairs)
    held = hold_out(documents, {pair.doc_id for pair in listed}, share, seed)
    trained = {document.doc_id for document in documents} - held
    return _side(documents, listed, trained), _side(documents, listed, held)


def hold_out(documents: Sequence[Document], asked: Collection[str], share: float, seed: int = 0) -> frozenset[str]:
    """The doc_ids of what is held out by `split`.

    Args:
        documents: all there are.
        asked: doc_ids of those that a query is about.
        share: of the documents, between 0 and 1.
        seed: what decides which.

    Raises:
        ConfigError: `share` is not between 0 and 1.
        UsageError: fewer than two different documents are asked about.
    """
    if not 0 < share < 1:
        raise ConfigError(f"{share:g} of the documents cannot be held out: give a number between 0 and 1, as 0.1")
    groups = {document.doc_id: _group(document, seed) for document in documents}
    with_pairs = {groups[doc_id] for doc_id in asked}
    if len(with_pairs) < 2:
        raise UsageError("to hold out documents, at least two different ones must have pairs")
    held = _drawn(with_pairs, share) | _drawn_freely(set(groups.values()) - with_pairs, share)
    return frozenset(doc_id for doc_id, group in groups.items() if group in held)


def same_text(document: Document) -> str:
    """What documents of one text have in common, white space and letter case aside."""
    return hashlib.sha256(_folded(document).encode()).hexdigest()


def _group(document: Document, seed: int) -> str:
    return hashlib.sha256(f"{seed}\0{_folded(document)}".encode()).hexdigest()


def _folded(document: Document) -> str:
    return fold(document.text).casefold()


def _drawn(groups: set[str], share: float) -> set[str]:
    count = min(max(1, round(share * len(groups))), len(groups) - 1)
    return set(sorted(groups)[:count])


def _drawn_freely(groups: set[str], share: float) -> set[str]:
    return set(sorted(groups)[: round(share * len(groups))])


def _side(documents: Iterable[Document], pairs: Iterable[Pair], doc_ids: Collection[str]) -> Split:
    return Split(
        tuple(document for document in documents if document.doc_id in doc_ids),
        tuple(pair for pair in pairs if pair.doc_id in doc_ids),
    )
