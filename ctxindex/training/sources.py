"""From a chunked corpus with queries to the documents that a step draws."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from ctxindex.training.sampling import Question, TrainingDocument

if TYPE_CHECKING:
    from ctxindex.evaluation.corpus import Corpus


def training_documents(corpus: Corpus) -> list[TrainingDocument]:
    """The documents that are asked something, in the order of the corpus.

    A query with answers in several documents is a question to each. Where a corpus ranks documents, all chunks of a
    gold document are gold.
    """
    questions: dict[int, list[Question]] = defaultdict(list)
    for number, query in enumerate(corpus.queries):
        for document, golds in _golds(corpus, number).items():
            questions[document].append(Question(query.text, golds))
    return [TrainingDocument(corpus.documents[number], tuple(questions[number])) for number in sorted(questions)]


def _golds(corpus: Corpus, query: int) -> dict[int, tuple[int, ...]]:
    """The ordinals of a query's gold chunks, by document."""
    if corpus.level == "document":
        return {number: tuple(range(len(corpus.documents[number].chunks))) for number in corpus.gold[query]}
    found: dict[int, list[int]] = defaultdict(list)
    for chunk in sorted(corpus.gold[query]):
        owner = int(corpus.owners[chunk])
        found[owner].append(chunk - int(corpus.starts[owner]))
    return {owner: tuple(ordinals) for owner, ordinals in found.items()}
