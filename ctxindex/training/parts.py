"""Parts of a corpus: some of its documents with what is asked of them, and what of it a model can read.

A text of invisible characters alone (zero-width blanks, byte order marks) is not empty and has no tokens. A document
with a chunk like that gives no vectors, and a query like that cannot be asked; either would end a training when it is
drawn, which may be hours after it began. They are found before it begins, and left out.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ctxindex.evaluation.corpus import Corpus
    from ctxindex.types import Tokenizer

NO_TOKENS = "a chunk has no tokens that the model can read"
"""Why a document is left out."""

_GLANCE = 40
"""Characters of a chunk that are looked at for a letter or a digit, which every tokenizer reads."""


def part(corpus: Corpus, documents: Collection[int], queries: Collection[int] | None = None) -> Corpus:
    """The corpus of some documents, by number, with the answers that are in them.

    Args:
        corpus: the whole.
        documents: the numbers of those to keep.
        queries: the numbers of those to keep, whether anything answers them or not; None keeps those that something
            in the documents answers.
    """
    kept = set(documents)
    owners: Sequence[int] = range(len(corpus.documents)) if corpus.level == "document" else corpus.owners.tolist()
    gold = [{number: grade for number, grade in own.items() if owners[number] in kept} for own in corpus.gold]
    doc_ids = {corpus.document_names[number] for number in kept}
    asked = tuple(
        replace(
            query,
            spans=tuple(span for span in query.spans if span.doc_id in doc_ids),
            grades={doc_id: grade for doc_id, grade in query.grades.items() if doc_id in doc_ids},
        )
        for query in corpus.queries
    )
    inside = replace(corpus, queries=asked, gold=tuple(gold))
    return inside.part(kept, [number for number, own in enumerate(gold) if own] if queries is None else queries)


def readable_documents(corpus: Corpus, tokenizer: Tokenizer) -> Corpus:
    """The corpus without documents that the model has no vectors for, which `unreadable` names then.

    All queries stay; those that nothing else answers are not answered.
    """
    bad = {
        number
        for number, one in enumerate(corpus.documents)
        if not all(_is_readable(chunk.text, tokenizer) for chunk in one.chunks)
    }
    if not bad:
        return corpus
    failures = {corpus.document_names[number]: NO_TOKENS for number in sorted(bad)}
    rest = part(corpus, set(range(len(corpus.documents))) - bad, range(len(corpus.queries)))
    return replace(rest, unreadable={**corpus.unreadable, **failures})


def readable_queries(corpus: Corpus, tokenizer: Tokenizer) -> Corpus:
    """The corpus without queries that the model can read nothing of."""
    texts = [query.text for query in corpus.queries]
    counts = tokenizer.count(texts)
    good = [number for number, count in enumerate(counts) if count and texts[number].strip()]
    return corpus if len(good) == len(texts) else part(corpus, range(len(corpus.documents)), good)


def _is_readable(text: str, tokenizer: Tokenizer) -> bool:
    return any(map(str.isalnum, text[:_GLANCE])) or tokenizer.count([text])[0] > 0
