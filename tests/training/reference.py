"""The InSeNT loss once more, written from the formulas, one number after the other, in float64; and random batches."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import exp, log
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st

from ctxindex.training.insent import InsentBatch, InsentOptions, Vectors


@dataclass
class Case:
    """Documents are lists of chunks; a chunk, like a query, is (rows, dim) float64, of one row unless `several`."""

    documents: list[list[np.ndarray]]
    queries: list[np.ndarray]
    asked: list[int]
    golds: list[list[int]]
    positives: list[tuple[int, int]] = field(default_factory=list)
    others: list[np.ndarray] = field(default_factory=list)
    sheltered: list[int] = field(default_factory=list)
    several: bool = False

    def batch(self, dtype: torch.dtype = torch.float64) -> InsentBatch:
        return InsentBatch(
            chunks=self.vectors([chunk for document in self.documents for chunk in document], dtype),
            counts=tuple(map(len, self.documents)),
            queries=self.vectors(self.queries, dtype),
            documents=tuple(self.asked),
            golds=tuple(map(tuple, self.golds)),
            positives=tuple(self.positives),
            others=self.vectors(self.others, dtype) if self.others else None,
            sheltered=frozenset(self.sheltered),
        )

    def vectors(self, items: list[np.ndarray], dtype: torch.dtype) -> Vectors:
        return Vectors(
            torch.tensor(np.concatenate(items), dtype=dtype), tuple(map(len, items)) if self.several else None
        )


def unit(rng: np.random.Generator, rows: int, dim: int) -> np.ndarray:
    values = rng.normal(size=(rows, dim))
    return np.asarray(values / np.linalg.norm(values, axis=1, keepdims=True))


def wave(number: int) -> np.ndarray:
    """The vectors of the golden fixture."""
    values = np.array([np.sin(1 + 0.7 * number + 1.3 * j + 0.11 * number * j) for j in range(4)])
    return np.asarray(values / np.linalg.norm(values))[None]


def golden() -> Case:
    numbers = iter(range(9))
    return Case(
        documents=[[wave(next(numbers)) for _ in range(count)] for count in (3, 2, 4)],
        queries=[wave(number) for number in range(100, 106)],
        asked=[0, 0, 1, 2, 2, 2],
        golds=[[0], [2], [1], [3], [0], [3]],
    )


@st.composite
def cases(draw: st.DrawFn, *, several: bool | None = None) -> Case:
    several = draw(st.booleans()) if several is None else several
    counts = draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    asked = draw(st.lists(st.integers(0, len(counts) - 1), min_size=1, max_size=7))
    golds = [
        draw(st.lists(st.integers(0, counts[document] - 1), min_size=1, max_size=3, unique=True)) for document in asked
    ]
    extra = draw(st.integers(0, 3))
    pair = st.tuples(st.integers(0, len(asked) - 1), st.integers(0, sum(counts) + extra - 1))
    positives = draw(st.lists(pair, max_size=4))
    sheltered = draw(st.lists(st.integers(0, len(asked) - 1), max_size=2))
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))

    def item(most: int) -> np.ndarray:
        return unit(rng, int(rng.integers(1, most + 1)) if several else 1, 5)

    return Case(
        documents=[[item(4) for _ in range(count)] for count in counts],
        queries=[item(3) for _ in asked],
        asked=asked,
        golds=golds,
        positives=positives,
        others=[item(4) for _ in range(extra)],
        sheltered=sheltered,
        several=several,
    )


def options() -> st.SearchStrategy[InsentOptions]:
    return st.builds(
        InsentOptions,
        lambda_seq=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
        tau=st.sampled_from([0.05, 0.3, 1.0]),
        average=st.sampled_from(["macro", "micro"]),
        mode=st.sampled_from(["insent", "joint"]),
        mask_positives=st.booleans(),
        query_mean=st.booleans(),
    )


def reference(case: Case, chosen: InsentOptions) -> dict[str, float]:
    """All numbers of `InsentLoss`."""
    rows: dict[int, list[dict[str, float]]] = {}
    for query, document in enumerate(case.asked):
        golds = [_of_gold(case, query, gold, chosen) for gold in case.golds[query]]
        rows.setdefault(document, []).append(_mean(golds))
    if chosen.average == "macro":
        means = _mean([_mean(of_document) for of_document in rows.values()])
    else:
        means = _mean([row for of_document in rows.values() for row in of_document])
    insent = chosen.lambda_seq * means["l_seq"] + (1 - chosen.lambda_seq) * means["l_batch"]
    return means | {"loss": insent if chosen.mode == "insent" else means["joint"]}


def _mean(rows: list[dict[str, Any]]) -> dict[str, float]:
    return {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}


def _of_gold(case: Case, query: int, gold: int, chosen: InsentOptions) -> dict[str, float]:
    own: list[float] = []
    other: list[float] = []
    positive, number = 0.0, 0
    for document, chunks in enumerate([*case.documents, case.others]):
        for ordinal, chunk in enumerate(chunks):
            score = _similarity(case.queries[query], chunk, chosen)
            mine = document == case.asked[query]
            if document == len(case.documents) and query in case.sheltered:
                continue
            known = chosen.mask_positives and (query, number) in case.positives
            if mine and ordinal == gold:
                positive = score
            elif not (known or (mine and ordinal in case.golds[query])):
                (own if mine else other).append(score)
            number += 1

    def surprise(negatives: list[float]) -> float:
        return log(sum(exp(score) for score in [positive, *negatives])) - positive

    return {
        "l_seq": surprise(own),
        "l_batch": surprise(other),
        "joint": surprise(own + other),
        "accuracy": float(all(score < positive for score in own + other)),
        "accuracy_seq": float(all(score < positive for score in own)),
    }


def _similarity(query: np.ndarray, chunk: np.ndarray, chosen: InsentOptions) -> float:
    total = sum(max(float(np.dot(one, two)) for two in chunk) for one in query)
    return total / (len(query) if chosen.query_mean else 1) / chosen.tau
