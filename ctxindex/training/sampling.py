"""What a step of training reads: of each document drawn some windows, and the queries that these answer.

Windows are those of inference, cut from the whole document with its anchor, so a model learns on what it will see; a
document longer than a few of them is read in parts, other parts whenever it is drawn again. The first window is one
that answers a query drawn at random; the others are drawn from the whole document, so that what a query is told apart
from is not only what lies beside its answer. Then queries are drawn among those that the windows answer.

In a share of the steps titles are withheld, so that a model learns to do with a document's text where there is none.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ctxindex.encoding.rows import Place, Row
from ctxindex.errors import UsageError
from ctxindex.training.batches import Draw
from ctxindex.training.clozes import Cloze, cloze, sharing
from ctxindex.training.options import Shares as Shares
from ctxindex.training.readings import Reading

if TYPE_CHECKING:
    from ctxindex.encoding.local import LocalEncoder
    from ctxindex.spec import EncoderSpec
    from ctxindex.types import ChunkedDocument


KEPT_TOKENS = 50_000_000
"""Of rows that are kept between steps: 400 MB, and some more for what lies beside the ids."""


@dataclass(frozen=True, slots=True)
class Question:
    """A query, and the ordinals of the chunks that answer it, one at least."""

    text: str
    golds: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TrainingDocument:
    """A document with what is asked about it, one question at least."""

    source: ChunkedDocument
    questions: tuple[Question, ...]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a step reads of a document at most: windows, of its queries, and of words asking for a chunk (`clozes`)."""

    windows: int
    queries: int
    clozes: int = 0


@dataclass(frozen=True, slots=True)
class Answers:
    """The words of each query (`asked`), and which words each chunk of the batch answers, as (words, chunk).

    Case is folded. `known` has all questions that the chunks answer, whether or not they are asked in this step.
    """

    asked: tuple[str, ...]
    known: tuple[tuple[str, int], ...]

    def answered_by(self, other: Answers) -> list[tuple[int, int]]:
        """(query of this batch, chunk of the other) of which it is known that the chunk answers the query."""
        chunks: dict[str, list[int]] = defaultdict(list)
        for words, chunk in other.known:
            chunks[words].append(chunk)
        return [(query, chunk) for query, words in enumerate(self.asked) for chunk in chunks.get(words, ())]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the chunks of a batch are from, and which chunks of its source answer its queries.

    `chunks` are (number of the document in the source, ordinal of the chunk in the document). `answered` has, for each
    query of a set, every chunk of the source that answers the same words; None stands for a cloze, of which nobody
    knows what other documents say of it.
    """

    source: str
    chunks: tuple[tuple[int, int], ...]
    answered: tuple[frozenset[tuple[int, int]] | None, ...]


@dataclass(frozen=True, slots=True)
class Batch:
    """What a step reads; query i is asked of document `documents[i]`, whose chunks `golds[i]` answer it.

    `contextual` are the documents in their windows, `isolated` the same chunks each alone; queries have one item each.
    `positives` as of `InsentBatch`: what answers the same words where they are asked once more, of this document or
    another, and what holds the sentence that a cloze is made of. `blend` is the weight of the isolated view in this
    step, whose rows are there where it is not 0, as contextual ones where it is not 1. `named` is whether what is read
    of a chunk may tell its document: not where it is read alone, untitled. `answers` is what other devices have to know
    to leave positives of theirs out. `origin` is for a memory of chunks.
    """

    counts: tuple[int, ...]
    contextual: tuple[Reading, ...]
    isolated: tuple[Reading, ...]
    queries: tuple[Reading, ...]
    documents: tuple[int, ...]
    golds: tuple[tuple[int, ...], ...]
    positives: tuple[tuple[int, int], ...]
    blend: float
    named: bool = True
    answers: Answers = Answers((), ())
    origin: Origin = Origin("", (), ())

    @property
    def tokens(self) -> int:
        """Of the documents' rows, special tokens included."""
        return sum(reading.tokens for reading in (*self.contextual, *self.isolated))


@dataclass(frozen=True, slots=True)
class _Sample:
    """What is read of a document, and the questions that it answers, in the chunks' new numbers.

    `texts` and `ordinals` are those of the chunks in the document.
    """

    contextual: Reading
    isolated: Reading
    questions: list[Question]
    texts: tuple[str, ...]
    ordinals: tuple[int, ...]


class Sampler:
    """Makes the batch of a draw; the same whenever it is asked for.

    Args:
        sources: the documents of each source.
        encoder: whose rows are read.
        limits: of each document.
        shares: of the steps, see `Shares`.
        alone: reads the documents of the sources in `replayed`, each chunk alone: an encoder of the method
            `independent`, or of late interaction with windows of one chunk, so that what the model was trained for
            before is practised, too.
        replayed: sources of pairs that need no context.
    """

    def __init__(
        self,
        sources: Mapping[str, Sequence[TrainingDocument]],
        encoder: LocalEncoder,
        limits: Limits,
        shares: Shares | None = None,
        *,
        alone: LocalEncoder | None = None,
        replayed: Collection[str] = (),
    ) -> None:
        if replayed and alone is None:
            raise ValueError("pairs that need no context are read by an encoder of their own")
        self._sources = sources
        self._limits = limits
        self._shares = shares or Shares()
        self._readers = {name: alone if alone and name in replayed else encoder for name in sources}
        self._answering = {name: _answering(documents) for name, documents in sources.items()}
        self._known = KeptRows(KEPT_TOKENS)

    def batch(self, draw: Draw) -> Batch:
        """What is read in the step of that draw.

        Raises:
            UsageError: a document with a chunk that has no tokens.
        """
        rng = draw.generator()
        reader = self._readers[draw.source]
        views = draw.shared() or rng  # devices that compare their chunks must read them in the same way
        titled = bool(views.random() >= self._shares.titles)
        blend = self._blend(reader.spec, float(views.random()))
        samples = [self._sample(draw.source, number, titled, rng) for number in draw.documents]
        answered = [(number, question) for number, one in enumerate(samples) for question in one.questions]
        drawn: list[int] = []
        for number in range(len(samples)):
            places = [place for place, (document, _) in enumerate(answered) if document == number]
            drawn += sorted(rng.permutation(places)[: self._limits.queries].tolist())
        asked = [answered[place] for place in drawn]
        clozes = [(number, chunk, one) for number, own in enumerate(samples) for chunk, one in self._clozes(own, rng)]
        counts = tuple(one.contextual.items for one in samples)
        shared = _holding_too(clozes, samples, counts, len(asked))
        asked += [(number, Question(one.words, (chunk,))) for number, chunk, one in clozes]
        return Batch(
            counts,
            tuple(one.contextual for one in samples) if blend < 1 else (),
            tuple(one.isolated for one in samples) if blend > 0 else (),
            tuple(Reading((row,), 1) for row in reader.query_rows([question.text for _, question in asked])),
            tuple(number for number, _ in asked),
            tuple(question.golds for _, question in asked),
            tuple(sorted({*_positives(asked, answered, counts), *shared})),
            blend,
            blend < 1 or self._told_alone(reader.spec, draw, titled),
            _answers(asked, answered, counts),
            self._origin(draw, samples, asked, len(asked) - len(clozes)),
        )

    def _origin(
        self, draw: Draw, samples: Sequence[_Sample], asked: Sequence[tuple[int, Question]], named: int
    ) -> Origin:
        """See `Origin`; the first `named` queries are of the sets."""
        known = self._answering[draw.source]
        return Origin(
            draw.source,
            tuple((number, one) for number, own in zip(draw.documents, samples, strict=True) for one in own.ordinals),
            tuple(
                known[question.text.casefold()] if place < named else None for place, (_, question) in enumerate(asked)
            ),
        )

    def _told_alone(self, spec: EncoderSpec, draw: Draw, titled: bool) -> bool:
        """Whether chunks that are read alone are read behind something that tells their documents."""
        if spec.isolated != "title":
            return spec.isolated == "opening"
        return titled and all(self._sources[draw.source][number].source.document.title for number in draw.documents)

    def _blend(self, spec: EncoderSpec, drawn: float) -> float:
        blend, shares = spec.blend, self._shares
        if not blend or drawn < shares.isolated:
            return 0.0
        return 1.0 if drawn < shares.isolated + shares.contextual else blend

    def _sample(self, source: str, number: int, titled: bool, rng: np.random.Generator) -> _Sample:
        document = self._sources[source][number]
        rows = self._rows(source, number, titled)
        contextual = [row for row in rows if not row.isolated]
        homes = homes_of(contextual)
        chosen = _choose_windows(homes, document.questions, len(contextual), self._limits.windows, rng)
        inside = sorted(chunk for chunk, windows in homes.items() if windows <= chosen)
        renumbered = {chunk: place for place, chunk in enumerate(inside)}
        answered = [
            Question(question.text, tuple(renumbered[gold] for gold in question.golds if gold in renumbered))
            for question in document.questions
            if any(gold in renumbered for gold in question.golds)
        ]
        return _Sample(
            Reading(only_chunks([contextual[window] for window in sorted(chosen)], renumbered), len(inside)),
            Reading(only_chunks([row for row in rows if row.isolated], renumbered), len(inside)),
            answered,
            tuple(document.source.chunks[chunk].text for chunk in inside),
            tuple(inside),
        )

    def _clozes(self, sample: _Sample, rng: np.random.Generator) -> Iterator[tuple[int, Cloze]]:
        for chunk in rng.permutation(len(sample.texts))[: self._limits.clozes].tolist():
            found = cloze(sample.texts[chunk], rng)
            if found is not None:
                yield chunk, found

    def _rows(self, source: str, number: int, titled: bool) -> tuple[Row, ...]:
        """All rows of a document, kept: tokenising takes longer than choosing."""
        key = source, number, titled
        rows = self._known.get(key)
        if rows is None:
            one = self._sources[source][number].source
            if not titled:
                one = replace(one, document=replace(one.document, title=None))
            rows = tuple(self._readers[source].document_rows(one))
            if not rows:
                raise UsageError(
                    f"{one.document.doc_id} cannot be trained on: a chunk has no tokens that the model can read"
                )
            self._known.put(key, rows)
        return rows


class KeptRows:
    """The rows of documents that were read last, so many tokens of them at most."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held: OrderedDict[tuple[str, int, bool], tuple[Row, ...]] = OrderedDict()
        self._tokens = 0

    def get(self, key: tuple[str, int, bool]) -> tuple[Row, ...] | None:
        """The rows kept under that key."""
        if key not in self._held:
            return None
        self._held.move_to_end(key)
        return self._held[key]

    def put(self, key: tuple[str, int, bool], rows: tuple[Row, ...]) -> None:
        """Keep rows, in place of those that were asked for longest ago."""
        self._held[key] = rows
        self._tokens += _length(rows)
        while self._tokens > self._most and len(self._held) > 1:
            self._tokens -= _length(self._held.popitem(last=False)[1])


def _length(rows: Sequence[Row]) -> int:
    return sum(row.length for row in rows)


def homes_of(windows: Sequence[Row]) -> dict[int, set[int]]:
    """The windows that pool each chunk; several for a long one, or where a chunk is the mean of all that hold it."""
    homes: dict[int, set[int]] = defaultdict(set)
    for number, row in enumerate(windows):
        for place in row.places:
            homes[place.chunk].add(number)
    return dict(homes)


def _choose_windows(
    homes: Mapping[int, set[int]], questions: Sequence[Question], count: int, most: int, rng: np.random.Generator
) -> set[int]:
    question = questions[int(rng.integers(len(questions)))]
    gold = question.golds[int(rng.integers(len(question.golds)))]
    chosen = set(homes[gold])  # a chunk in more windows than the limit is read all the same: it is the answer
    for window in rng.permutation(count).tolist():
        if len(chosen) >= most:
            break
        chosen.add(window)
    return chosen


def only_chunks(rows: Sequence[Row], renumbered: Mapping[int, int]) -> tuple[Row, ...]:
    """The rows with the places of the chunks that count, by their new numbers; none without any."""
    found = []
    for row in rows:
        kept = [number for number, place in enumerate(row.places) if place.chunk in renumbered]
        if kept:
            places = [row.places[number] for number in kept]
            moved = tuple(Place(renumbered[place.chunk], place.start, place.end) for place in places)
            found.append(replace(row, places=moved, context=tuple(row.context[number] for number in kept)))
    return tuple(found)


def _answering(documents: Sequence[TrainingDocument]) -> dict[str, frozenset[tuple[int, int]]]:
    """The chunks of a source that answer each of its questions, by the question's words; see `Origin`."""
    found: dict[str, set[tuple[int, int]]] = defaultdict(set)
    for number, document in enumerate(documents):
        for question in document.questions:
            found[question.text.casefold()].update((number, gold) for gold in question.golds)
    return {words: frozenset(chunks) for words, chunks in found.items()}


def _answers(
    asked: Sequence[tuple[int, Question]], answered: Sequence[tuple[int, Question]], counts: Sequence[int]
) -> Answers:
    firsts = np.cumsum([0, *counts]).tolist()
    known = [
        (question.text.casefold(), firsts[document] + gold)
        for document, question in answered
        for gold in question.golds
    ]
    return Answers(tuple(question.text.casefold() for _, question in asked), tuple(known))


def _positives(
    asked: Sequence[tuple[int, Question]], answered: Sequence[tuple[int, Question]], counts: Sequence[int]
) -> Iterator[tuple[int, int]]:
    """For each query the answers that the same words have elsewhere, as (query, chunk of the batch)."""
    firsts = np.cumsum([0, *counts]).tolist()
    answers: dict[str, set[int]] = defaultdict(set)
    for document, question in answered:
        answers[question.text.casefold()].update(firsts[document] + gold for gold in question.golds)
    for query, (document, question) in enumerate(asked):
        for chunk in answers[question.text.casefold()]:
            if chunk - firsts[document] not in question.golds:
                yield query, chunk


def _holding_too(
    clozes: Sequence[tuple[int, int, Cloze]], samples: Sequence[_Sample], counts: Sequence[int], first: int
) -> Iterator[tuple[int, int]]:
    """The same for clozes, which are the queries from `first` on: other chunks that hold the sentence of one."""
    firsts = np.cumsum([0, *counts]).tolist()
    found = sharing([one.sentence for _, _, one in clozes], [text for sample in samples for text in sample.texts])
    for query, ((document, chunk, _), holders) in enumerate(zip(clozes, found, strict=True), first):
        for other in holders:
            if other != firsts[document] + chunk:
                yield query, other
