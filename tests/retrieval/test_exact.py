"""Exact ranking of a stream against sorting everything at once, with vectors whose products are whole numbers."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxindex.retrieval import exact
from ctxindex.retrieval.exact import ExactRanking

if TYPE_CHECKING:
    from ctxindex.types import FloatArray

VECTORS = st.lists(st.lists(st.integers(-2, 2), min_size=2, max_size=2), min_size=1, max_size=4).map(
    lambda rows: np.array(rows, dtype=np.float32)
)


def max_sim(query: FloatArray, chunk: FloatArray) -> float:
    return float(sum(max(float(row @ other) for other in chunk) for row in query))


@settings(deadline=None)
@given(
    queries=st.lists(VECTORS, min_size=1, max_size=5),
    documents=st.lists(st.lists(VECTORS, min_size=1, max_size=3), min_size=1, max_size=12),
    k=st.integers(1, 14),
    block=st.integers(1, 9),
    products=st.integers(1, 60),
    seed=st.integers(0, 1000),
    chosen=st.none() | st.lists(st.sets(st.integers(0, 11)), min_size=5, max_size=5),
)
def test_it_ranks_as_sorting_does(
    queries: list[FloatArray],
    documents: list[list[FloatArray]],
    k: int,
    block: int,
    products: int,
    seed: int,
    chosen: list[set[int]] | None,
) -> None:
    candidates = None if chosen is None else [np.array(sorted(each), dtype=np.int64) for each in chosen]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exact, "_BLOCK", block)
        patch.setattr(exact, "_PRODUCTS", products)
        ranking = ExactRanking(queries, k, candidates)
        for place in random.Random(seed).sample(range(len(documents)), len(documents)):
            for chunk in documents[place]:
                ranking.add(place, chunk)
        found = ranking.best()
    for number, query in enumerate(queries):
        places = range(len(documents)) if chosen is None else chosen[number] & set(range(len(documents)))
        scores = [(max(max_sim(query, chunk) for chunk in documents[place]), place) for place in places]
        expected = [(place, score) for score, place in sorted(scores, reverse=True)[:k]]
        assert found[number] == expected


def test_one_vector_each() -> None:
    queries = np.array([[1, 0], [0, 1]], dtype=np.float32)
    ranking = ExactRanking(queries, 2)
    for place, vector in enumerate(np.array([[0, 1], [-1, 0], [1, 0], [0, -1]], dtype=np.float32)):
        ranking.add(place, vector)
    assert ranking.best() == [[(2, 1.0), (3, 0.0)], [(0, 1.0), (2, 0.0)]], "0 and -0 are equal"


def test_nothing_to_rank() -> None:
    assert ExactRanking(np.ones((2, 3), dtype=np.float32), 5).best() == [[], []]
