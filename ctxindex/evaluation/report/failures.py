"""The queries that a run answers worst, with the gold chunk in its document and what was ranked above it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, TypeAlias

import numpy as np

from ctxindex.evaluation.corpus import Corpus
from ctxindex.evaluation.dataset import GoldSpan
from ctxindex.evaluation.report import words
from ctxindex.evaluation.report.grouping import HEADLINE
from ctxindex.evaluation.results import Run
from ctxindex.types import Document

WORST = 25
"""The most that are shown of a run."""

_AROUND = 300
_PASSAGES = 3
_ABOVE = 5
_NAME_CHARS = 200
_QUERY_CHARS = 600
_PIECE_CHARS = 1_200
_PERFECT = 1 - 1e-9

Kind: TypeAlias = Literal["around", "chunk", "answer"]


@dataclass(frozen=True, slots=True)
class Place:
    """A span of a document, as it is named."""

    doc_id: str
    title: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Passage:
    """Something gold in its document: `pieces` are texts in order, of the surroundings, the chunk, and the answer."""

    place: Place
    rank: str
    pieces: tuple[tuple[Kind, str], ...]
    cut_before: bool
    cut_after: bool


@dataclass(frozen=True, slots=True)
class Ranked:
    """Something that is not gold and was ranked before what is; `same` says that its document holds an answer."""

    rank: int
    place: Place
    score: str
    text: str
    same: bool


@dataclass(frozen=True, slots=True)
class Failure:
    """One query that was not answered as well as can be. `more` counts gold passages that are not shown."""

    query_id: str
    query: str
    value: str
    rank: str
    passages: tuple[Passage, ...]
    more: int
    above: tuple[Ranked, ...]
    note: str


def failing(run: Run) -> list[int]:
    """The queries that are not answered perfectly, by number: lowest nDCG@10 first, then the furthest gold chunk."""
    values = np.nan_to_num(run.values[HEADLINE])
    rank = run.ranking.gold_rank
    furthest = np.where(rank == 0, np.iinfo(np.int64).max, rank)
    order = np.lexsort((-furthest, values))
    return [int(query) for query in order if values[query] < _PERFECT]


def failure(run: Run, query: int) -> Failure:
    """What there is to see of one query."""
    corpus, asked = run.corpus, run.corpus.queries[query]
    passages, more = _passages(run, query)
    return Failure(
        asked.query_id,
        shortened(asked.text, _QUERY_CHARS),
        words.points(float(run.values[HEADLINE][query])),
        _rank(run, int(run.ranking.gold_rank[query]), bool(_relevant(corpus, query))),
        tuple(passages),
        more,
        tuple(_above(run, query)),
        _note(corpus, query),
    )


def shortened(text: str, limit: int) -> str:
    """The beginning and the end of a text that is longer than `limit`, with a mark between them."""
    if len(text) <= limit:
        return text
    return f"{text[: limit // 2]} [… {len(text) - limit:,} characters …] {text[len(text) - limit // 2 :]}"


def _relevant(corpus: Corpus, query: int) -> list[int]:
    return sorted(number for number, grade in corpus.gold[query].items() if grade > 0)


def _ranked_things(run: Run) -> tuple[int, str]:
    if run.corpus.level == "document":
        return len(run.corpus.documents), "documents"
    return run.corpus.n_chunks, "chunks"


def _rank(run: Run, rank: int, gold: bool) -> str:
    total, things = _ranked_things(run)
    if not gold:
        return "no answer to find"
    return f"rank {rank:,} of {total:,} {things}" if rank else f"not among {total:,} {things}"


def _note(corpus: Corpus, query: int) -> str:
    if _relevant(corpus, query):
        return ""
    reasons = [
        f"{doc_id} could not be read: {corpus.unreadable[doc_id]}"
        for doc_id in sorted(corpus.queries[query].doc_ids)
        if doc_id in corpus.unreadable
    ]
    return "; ".join(reasons) or f"no {corpus.level} holds the answer"


def _places(run: Run, query: int) -> dict[int, int]:
    """The rank of each chunk or document that was kept of the ranking."""
    return {number: rank for rank, number in enumerate(run.ranking.chunks[query].tolist(), 1) if number >= 0}


def _passages(run: Run, query: int) -> tuple[list[Passage], int]:
    """The gold passages that were ranked first, in the order of their ranks, and how many more there are."""
    corpus, places = run.corpus, _places(run, query)
    gold = _relevant(corpus, query)
    if not gold:
        return list(_unchunked(corpus, query)), 0
    if len(gold) == 1 and (rank := int(run.ranking.gold_rank[query])):
        places = {gold[0]: rank}
    gold.sort(key=lambda number: (places.get(number, math.inf), number))
    shown = [_gold_passage(run, query, number, places.get(number)) for number in gold[:_PASSAGES]]
    return shown, len(gold) - len(shown)


def _gold_passage(run: Run, query: int, number: int, rank: int | None) -> Passage:
    corpus = run.corpus
    said = f"rank {rank:,}" if rank else "not among the first"
    if corpus.level == "document":
        return _head(corpus.documents[number].document, said)
    document, chunk = corpus.chunk(number)
    return _passage(document, chunk.start, chunk.end, corpus.queries[query].spans, said)


def _unchunked(corpus: Corpus, query: int) -> Iterator[Passage]:
    """Answers in documents that are there, but that no chunk holds."""
    documents = {one.document.doc_id: one.document for one in corpus.documents}
    for span in corpus.queries[query].spans[:_PASSAGES]:
        if span.doc_id in documents:
            yield _passage(documents[span.doc_id], span.start, span.end, (span,), "in no chunk")


def _head(document: Document, rank: str) -> Passage:
    """The beginning of a document that is gold as a whole."""
    text = document.text[: 2 * _AROUND]
    pieces: tuple[tuple[Kind, str], ...] = (("around", text),)
    return Passage(_place(document, 0, len(document.text)), rank, pieces, False, len(text) < len(document.text))


def _passage(document: Document, start: int, end: int, spans: Sequence[GoldSpan], rank: str) -> Passage:
    text = document.text
    first, last = max(0, start - _AROUND), min(len(text), end + _AROUND)
    inside = [span for span in spans if span.doc_id == document.doc_id and span.start < end and start < span.end]
    cuts = sorted({start, end} | {min(max(at, start), end) for span in inside for at in (span.start, span.end)})
    pieces: list[tuple[Kind, str]] = [("around", text[first:start])]
    for left, right in pairwise(cuts):
        kind: Kind = "answer" if any(span.start <= left and right <= span.end for span in inside) else "chunk"
        pieces.append((kind, shortened(text[left:right], _PIECE_CHARS)))
    pieces.append(("around", text[end:last]))
    held = tuple((kind, piece) for kind, piece in pieces if piece)
    return Passage(_place(document, start, end), rank, held, first > 0, last < len(text))


def _above(run: Run, query: int) -> Iterator[Ranked]:
    """The first that are not gold, down to the last gold one where all of them were found."""
    corpus, places = run.corpus, _places(run, query)
    gold = set(_relevant(corpus, query))
    found = [places[number] for number in gold if number in places]
    end = max(found) if gold and len(found) == len(gold) else len(places) + 1
    others = [(rank, number) for number, rank in places.items() if number not in gold and rank < end]
    scores = run.ranking.scores[query]
    for rank, number in others[:_ABOVE]:
        document, start, stop = _span(corpus, number)
        score = float(scores[rank - 1])
        yield Ranked(
            rank,
            _place(document, start, stop),
            f"{score:.4g}" if math.isfinite(score) else words.NOTHING,
            _beginning(document.text[start:stop]),
            corpus.level == "chunk" and document.doc_id in corpus.queries[query].doc_ids,
        )


def _beginning(text: str) -> str:
    """The first words of a text, white space folded."""
    folded = " ".join(text[: 4 * _AROUND].split())
    return folded if len(folded) <= _AROUND and len(text) <= 4 * _AROUND else f"{folded[:_AROUND]} …"


def _span(corpus: Corpus, number: int) -> tuple[Document, int, int]:
    if corpus.level == "document":
        document = corpus.documents[number].document
        return document, 0, len(document.text)
    document, chunk = corpus.chunk(number)
    return document, chunk.start, chunk.end


def _place(document: Document, start: int, end: int) -> Place:
    title = shortened(document.title or "", _NAME_CHARS)
    return Place(shortened(document.doc_id, _NAME_CHARS), title, start, end)
