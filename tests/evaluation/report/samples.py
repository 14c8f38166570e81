"""Small corpora of real text, and runs on them with made rankings and the metrics that follow from these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ctxindex.evaluation import METRICS, Comparison, Configuration, Corpus, Dataset, Estimate, GoldSpan, Query, Run, cut
from ctxindex.evaluation.configuration import parse_configurations
from ctxindex.evaluation.results import Ranking, SweepPoint
from ctxindex.types import Document, Section

HOSTILE = (
    "<script>alert('1')</script> \"quoted\" & <img src=http://evil.example/x.png onerror=alert(2)> \x1b[31m\x00 \u202e"
)
NAPOLEON = [
    "Napoleon was born on Corsica in 1769 to a family of minor Italian nobility.",
    "He rose through the ranks of the army during the wars of the Revolution.",
    f"He became emperor in 1804. {HOSTILE}",
    "Après la défaite de Waterloo, il fut exilé à Sainte-Hélène.",
    "He died there in 1821.",
]
TOKYO = ["東京は日本の首都である。人口は約一千四百万人。", "Its old name is Edo. 🗼", "The tower was built in 1958."]
TOWNS = [
    f"{name} has {number:,} inhabitants. " + "The river runs by. " * 20 for number, name in enumerate("ABCDEFGHIJKL")
]


def document(
    doc_id: str, parts: Sequence[str], title: str | None = None
) -> tuple[Document, tuple[tuple[int, int], ...]]:
    text, spans = "", []
    for part in parts:
        spans.append((len(text), len(text) + len(part)))
        text += part + "\n\n"
    return Document(doc_id, text, title, sections=(Section(0, ("Head", "Part")),)), tuple(spans)


def dataset(name: str = "people", *, level: str = "chunk") -> Dataset:
    """Four documents, ten questions; of one document the second chunk is asked about many times."""
    made = [
        document("wiki/napoleon.txt", NAPOLEON, "Napoleon <b>Bonaparte</b>"),
        document("wiki/東京.md", TOKYO),
        document("towns.txt", TOWNS, "Towns"),
        document("short.txt", ["A single sentence."], "Short"),
    ]
    units = {one.doc_id: spans for one, spans in made}
    asked = [("wiki/napoleon.txt", 2), ("wiki/napoleon.txt", 3), ("wiki/東京.md", 0), ("short.txt", 0)]
    asked += [("towns.txt", number) for number in range(0, 12, 2)]
    queries = tuple(
        Query(
            f"q{number}",
            f"Question {number} about {doc_id}? {HOSTILE if number == 0 else ''}",
            *_answer(level, doc_id, units[doc_id][part]),
        )
        for number, (doc_id, part) in enumerate(asked)
    )
    return Dataset(name, tuple(one for one, _ in made), queries, units, given=True)


def _answer(level: str, doc_id: str, span: tuple[int, int]) -> tuple[tuple[GoldSpan, ...], Mapping[str, int]]:
    return ((GoldSpan(doc_id, *span),), {}) if level == "chunk" else ((), {doc_id: 1})


def corpus(name: str = "people", *, level: str = "chunk") -> Corpus:
    return cut(dataset(name, level=level), None)


def ranking(of: Corpus, seed: int, depth: int = 12, quality: float = 0.5) -> Ranking:
    """Random, with the gold chunk pulled to the front by `quality`; -1 where fewer are there than the depth."""
    generator = np.random.default_rng(seed)
    there = of.n_chunks if of.level == "chunk" else len(of.documents)
    chunks = np.full((len(of.queries), depth), -1, dtype=np.int64)
    scores = np.full(chunks.shape, -np.inf, dtype=np.float32)
    ranks = np.zeros(len(of.queries), dtype=np.int64)
    for query, gold in enumerate(of.gold):
        drawn = generator.random(there)
        drawn[list(gold)] += quality
        order = np.argsort(-drawn, kind="stable")
        kept = order[:depth]
        chunks[query, : len(kept)], scores[query, : len(kept)] = kept, drawn[kept]
        if gold:
            ranks[query] = 1 + min(int(np.flatnonzero(order == number)[0]) for number in gold)
    return Ranking(chunks, scores, ranks)


def values_of(of: Ranking) -> dict[str, np.ndarray]:
    rank = of.gold_rank.astype(np.float64)
    found = rank > 0
    safe = np.where(found, rank, 1)
    values = {"ndcg@10": np.where(found & (rank <= 10), 1 / np.log2(1 + safe), 0.0)}
    values["mrr@10"] = np.where(found & (rank <= 10), 1 / safe, 0.0)
    for k in (1, 5, 10):
        values[f"recall@{k}"] = values[f"document_hit@{k}"] = (found & (rank <= k)).astype(np.float64)
    return {metric: values[metric] for metric in METRICS}


def run(
    of: Corpus | None = None,
    name: str = "late",
    *,
    seed: int = 0,
    quality: float = 0.5,
    point: SweepPoint | None = None,
    model: str = "minilm",
    **changed: Any,
) -> Run:
    of = of or corpus()
    configuration = Configuration() if name == "default" else parse_configurations([name])[0]
    ranked = changed.pop("ranking", None) or ranking(of, seed, quality=quality)
    values = values_of(ranked)
    metrics = {metric: _estimate(numbers) for metric, numbers in values.items()}
    made = Run(of, configuration, model, values, metrics, ranked, {"index": 12.345, "search": 0.5}, point=point)
    return replace(made, **changed)


def _estimate(numbers: np.ndarray) -> Estimate:
    mean, half = float(numbers.mean()), float(1.96 * numbers.std() / np.sqrt(len(numbers)))
    return Estimate(mean, mean - half, mean + half)


def swept(of: Corpus, names: Sequence[str], values: Sequence[float], seeds: Sequence[int | None]) -> list[Run]:
    """A curve of corpus sizes, of every configuration."""
    return [
        run(of, name, seed=100 * row + int(value) + (seed or 0), point=SweepPoint("corpus-size", value, seed))
        for row, name in enumerate(names)
        for value in values
        for seed in seeds
    ]


def compared(run: Run, baseline: Run, p: float = 0.0123) -> Comparison:
    difference = _estimate(run.values["ndcg@10"] - baseline.values["ndcg@10"])
    return Comparison(run.corpus.name, run.name, baseline.name, "ndcg@10", difference, p, min(1.0, 2 * p))
