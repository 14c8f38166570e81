"""What a step of contextual training reads: questions, the documents that answer them, and a context that they share.

A pair is a question, a document and the chunks of it that answer; one of these is drawn in a step as the positive. What
is read of a document are the windows in which the chunks that were drawn stand, as at inference, so that the positive
of a question is the vector of a chunk in its document and its corpus. A document is read once in a step, whatever
number of its pairs are in the batch. Where siblings of the gold are told apart, too (InSeNT), all chunks of the windows
that are read have a vector, and there may be more windows.

The context of a step is drawn from gold chunks of all pairs of the clusters that are in the batch, one of each pair: a
sample of a small domain, as an index has one of its corpus. Its size is drawn, too, so that a model learns on no one
size. Slots are withheld for the whole step, and so is the whole context now and then: vectors of an index were all made
in one context or all without any, and a question that had lost its own with its document would know it by that alone.

All is drawn from the generator of the step.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ctxindex.errors import UsageError
from ctxindex.training.contextual.context import draw_context
from ctxindex.training.contextual.golds import Golds
from ctxindex.training.readings import Reading
from ctxindex.training.sampling import KEPT_TOKENS, KeptRows, Question, TrainingDocument, homes_of, only_chunks

if TYPE_CHECKING:
    import numpy.typing as npt

    from ctxindex.encoding.local import LocalEncoder
    from ctxindex.encoding.rows import Row
    from ctxindex.training.batches import Draw
    from ctxindex.training.contextual.options import ContextualOptions

    Numbers = npt.NDArray[np.int64]
    Marks = npt.NDArray[np.bool_]

Sources = Mapping[str, Sequence[TrainingDocument]]
ReadAlone = Callable[[str], Reading]
"""What the first stage reads of a text."""

Remove = Callable[["Numbers", "Numbers"], "Marks"]
"""(pairs, pairs) bool: which positives of a batch are no negatives of which of its questions.

Taken are the numbers of its pairs, and the place of each positive among the golds of its question.
"""


@dataclass(frozen=True, slots=True)
class Pair:
    """A question to a document of a source, by number."""

    source: str
    document: int
    question: Question


def pairs_of(sources: Sources) -> list[Pair]:
    """Every question to every document, source after source."""
    return [
        Pair(source, number, question)
        for source, documents in sources.items()
        for number, document in enumerate(documents)
        for question in document.questions
    ]


@dataclass(frozen=True, slots=True)
class GoldTexts:
    """The gold chunks of all pairs as texts, each once: what contexts are drawn from; `golds` says whose they are."""

    texts: tuple[str, ...]
    golds: Golds

    @classmethod
    def of(cls, sources: Sources, pairs: Sequence[Pair]) -> GoldTexts:
        """Those of these pairs, in the order in which they come first."""
        return cls(*Golds.of(chunks_of(sources, one) for one in pairs))


def chunks_of(sources: Sources, pair: Pair) -> list[str]:
    """The texts of the chunks that answer a pair, in the order of its question's golds."""
    chunks = sources[pair.source][pair.document].source.chunks
    return [chunks[gold].text for gold in pair.question.golds]


@dataclass(frozen=True, slots=True)
class Text:
    """What a stage reads.

    `reading` is None where the first stage is frozen: then `number` says which of its vectors is meant. Of a context,
    `bare` is the null vector in a slot; of a question or a document it is to be read with the null context. In a step
    that a `PairSampler` makes all questions and documents are bare, or none is.
    """

    reading: Reading | None = None
    number: int = -1
    bare: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class PairBatch:
    """What a step reads; question i is asked of document `documents[i]`, whose chunk `golds[i]` is its positive.

    `contextual` are the documents in their windows, `isolated` the same chunks each alone, where the encoder mixes the
    two by `blend`; `counts` are the chunks of each document that have a vector. `answers[i]` are all of these that
    answer question i. `removed` (pairs, pairs) says which positives are no negatives of which questions; `elsewhere`
    are (question, chunk of the batch) where the same words are asked once more, of this document or another, and
    answered by a chunk that is no gold of this question.
    """

    context: tuple[Text, ...]
    queries: tuple[Text, ...]
    contextual: tuple[Text, ...]
    isolated: tuple[Text, ...]
    counts: tuple[int, ...]
    documents: tuple[int, ...]
    golds: tuple[int, ...]
    answers: tuple[tuple[int, ...], ...]
    removed: Marks
    blend: float
    elsewhere: tuple[tuple[int, int], ...] = ()

    @property
    def groups(self) -> list[tuple[Text, ...]]:
        """What the second stage reads: questions first."""
        return [self.queries, self.contextual, *([self.isolated] if self.isolated else [])]

    @property
    def positives(self) -> Numbers:
        """(pairs,): the number of each question's positive among all chunks of the batch."""
        firsts = np.cumsum([0, *self.counts])
        return np.asarray(firsts[list(self.documents)] + np.array(self.golds), dtype=np.int64)


@dataclass(frozen=True, slots=True)
class _Asked:
    """A pair of a step, and the ordinal of the chunk that is its positive there."""

    pair: Pair
    gold: int


@dataclass(frozen=True, slots=True)
class _Read:
    """What is read of a document, and which of its chunks (by their numbers in it) have a vector there."""

    contextual: Reading
    isolated: Reading
    chunks: tuple[int, ...]


class PairSampler:
    """Makes the batch of a draw, whose `documents` are numbers of pairs.

    Args:
        sources: the documents.
        pairs: of these documents.
        encoder: whose rows are read.
        options: of the training.
        windows: read of a document at most; more than those of its golds only where siblings are told apart.
        labels: (pairs,) the cluster of each pair, or anything that says which pairs are of one small domain.
        texts: the gold chunks as texts.
        remove: what is known or taken for a false negative.
        first: what the first stage reads of a text; None where it is frozen.
    """

    def __init__(
        self,
        sources: Sources,
        pairs: Sequence[Pair],
        encoder: LocalEncoder,
        options: ContextualOptions,
        *,
        windows: int,
        labels: Numbers,
        texts: GoldTexts,
        remove: Remove,
        first: ReadAlone | None = None,
    ) -> None:
        self._sources = sources
        self._pairs = pairs
        self._encoder = encoder
        self._options = options
        self._windows = windows
        self._labels = labels
        self._texts = texts
        self._remove = remove
        self._first = first
        self._known = KeptRows(KEPT_TOKENS)

    def batch(self, draw: Draw) -> PairBatch:
        """What is read in the step of that draw.

        Raises:
            UsageError: a document with a chunk that has no tokens.
        """
        rng = draw.generator()
        numbers = np.array(draw.documents, dtype=np.int64)
        places, context = self._drawn(numbers, rng)
        bare = bool(rng.random() < self._options.dropout.row)
        chosen = [
            _Asked(self._pairs[number], self._pairs[number].question.golds[place])
            for number, place in zip(draw.documents, places.tolist(), strict=True)
        ]
        asked: dict[int, set[int]] = {}
        for each in chosen:
            asked.setdefault(each.pair.document, set()).add(each.gold)
        at = {document: place for place, document in enumerate(asked)}
        read = [self._read(draw.source, document, golds, rng) for document, golds in asked.items()]
        rows = self._encoder.query_rows([each.pair.question.text for each in chosen])
        of_document = [read[at[each.pair.document]].chunks for each in chosen]
        blend = self._encoder.spec.blend
        return PairBatch(
            # Without any, nothing of a context is read: a first stage that learns would work for nothing.
            context=(Text(bare=True),) if bare else context,
            queries=tuple(Text(Reading((row,), 1), bare=bare) for row in rows),
            contextual=tuple(Text(one.contextual, bare=bare) for one in read),
            isolated=tuple(Text(one.isolated, bare=bare) for one in read if blend),
            counts=tuple(len(one.chunks) for one in read),
            documents=tuple(at[each.pair.document] for each in chosen),
            golds=tuple(chunks.index(each.gold) for each, chunks in zip(chosen, of_document, strict=True)),
            answers=tuple(
                tuple(place for place, chunk in enumerate(chunks) if chunk in each.pair.question.golds)
                for each, chunks in zip(chosen, of_document, strict=True)
            ),
            removed=self._remove(numbers, places) | _answering(chosen),
            blend=blend,
            elsewhere=tuple(self._elsewhere(draw.source, chosen, list(zip(asked, read, strict=True)))),
        )

    def _elsewhere(
        self, source: str, chosen: Sequence[_Asked], read: Sequence[tuple[int, _Read]]
    ) -> Iterator[tuple[int, int]]:
        """See `PairBatch`; siblings are among them, which nobody has drawn, but the set says what they answer."""
        # Of each chunk its document, its number there, and its number in the batch; a dict keeps their order.
        answers: dict[str, dict[tuple[int, int, int], None]] = defaultdict(dict)
        first = 0
        for document, one in read:
            for question in self._sources[source][document].questions:
                own = ((document, chunk, first + place) for place, chunk in enumerate(one.chunks))
                answers[question.text.casefold()].update((each, None) for each in own if each[1] in question.golds)
            first += len(one.chunks)
        for number, each in enumerate(chosen):
            for document, chunk, place in answers[each.pair.question.text.casefold()]:
                # Golds of the same document may be in several lines of a set, and are several questions then.
                if document != each.pair.document or chunk not in each.pair.question.golds:
                    yield number, place

    def _drawn(self, numbers: Numbers, rng: np.random.Generator) -> tuple[Numbers, tuple[Text, ...]]:
        """Which of its golds each pair of the step has, and the context: golds are drawn of all that it may be of."""
        inside = np.flatnonzero(np.isin(self._labels, self._labels[numbers]))
        places = self._texts.golds.draw(inside, rng)
        context = self._context(self._texts.golds.texts(inside, places), rng)
        return places[np.searchsorted(inside, numbers)], context

    def _context(self, texts: Numbers, rng: np.random.Generator) -> tuple[Text, ...]:
        """Some of these texts, none twice, however often they are named."""
        known = np.unique(texts)
        least, most = self._options.context_size
        drawn = known[draw_context(len(known), int(rng.integers(least, most + 1)), rng)].tolist()
        withheld = (rng.random(len(drawn)) < self._options.dropout.slot).tolist()
        return tuple(self._slot(number, bare) for number, bare in zip(drawn, withheld, strict=True))

    def _slot(self, number: int, bare: bool) -> Text:
        if bare or self._first is None:
            return Text(number=number, bare=bare)
        return Text(self._first(self._texts.texts[number]), number)

    def _read(self, source: str, document: int, golds: Set[int], rng: np.random.Generator) -> _Read:
        rows = self._rows(source, document)
        contextual = [row for row in rows if not row.isolated]
        homes = homes_of(contextual)
        windows = set().union(*(homes[gold] for gold in golds))
        inside = sorted(golds)
        if self._options.insent:
            for window in rng.permutation(len(contextual)).tolist():
                if len(windows) >= self._windows:
                    break
                windows.add(window)
            inside = sorted(chunk for chunk, own in homes.items() if own <= windows)
        renumbered = {chunk: place for place, chunk in enumerate(inside)}
        return _Read(
            Reading(only_chunks([contextual[window] for window in sorted(windows)], renumbered), len(inside)),
            Reading(only_chunks([row for row in rows if row.isolated], renumbered), len(inside)),
            tuple(inside),
        )

    def _rows(self, source: str, number: int) -> tuple[Row, ...]:
        key = source, number, True
        rows = self._known.get(key)
        if rows is None:
            one = self._sources[source][number].source
            rows = tuple(self._encoder.document_rows(one))
            if not rows:
                raise UsageError(
                    f"{one.document.doc_id} cannot be trained on: a chunk has no tokens that the model can read"
                )
            self._known.put(key, rows)
        return rows


def read_alone(encoder: LocalEncoder) -> ReadAlone:
    """What a first stage reads of a text: its rows, pooled to one vector, without those of titles or documents."""
    from ctxindex.types import Chunk, ChunkedDocument, Document

    def read(text: str) -> Reading:
        rows = encoder.document_rows(ChunkedDocument(Document("", text), (Chunk(0, 0, len(text), text),)))
        if not rows:
            raise UsageError(f"there is nothing in {text[:50]!r} that the model can read")
        return Reading(tuple(rows), 1)

    return read


def _answering(asked: Sequence[_Asked]) -> Marks:
    """(pairs, pairs) of one source: positives that are another gold of a question, or its own."""
    rows = [
        [one.pair.document == other.pair.document and other.gold in one.pair.question.golds for other in asked]
        for one in asked
    ]
    return np.array(rows, dtype=np.bool_)
