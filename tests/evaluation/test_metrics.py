"""Metrics of cut rankings: pytrec_eval on all scores, and formulas written out, say the same."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxindex.errors import MissingDependencyError
from ctxindex.evaluation.metrics import DEPTH, document_hits, item_metrics
from ctxindex.evaluation.ranking import best, tie_order
from ctxindex.evaluation.results import METRICS

if TYPE_CHECKING:
    from ctxindex.types import FloatArray

    Gold = Sequence[Mapping[int, int]]

NAMES = [f"{doc_id}_{ordinal}" for doc_id in ("a", "a_1", "b", "é", "\U0001f642") for ordinal in range(11)]
MEASURES = {
    "ndcg@10": "ndcg_cut_10",
    "recall@1": "recall_1",
    "recall@5": "recall_5",
    "recall@10": "recall_10",
    "document_hit@1": "success_1",
    "document_hit@5": "success_5",
    "document_hit@10": "success_10",
}


@st.composite
def rankings(draw: st.DrawFn) -> tuple[list[str], FloatArray, Gold]:
    """Few values, so that most places are decided by names; a third of them is not found at all."""
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=len(NAMES), unique=True))
    queries = draw(st.integers(1, 4))
    values = st.sampled_from([-math.inf, 0.0, 1.0, 2.0, 3.0, -math.inf])
    row = st.lists(values, min_size=len(names), max_size=len(names))
    scores = np.array(draw(st.lists(row, min_size=queries, max_size=queries)), dtype=np.float32)
    grades = st.dictionaries(st.integers(0, len(names) - 1), st.integers(0, 3), max_size=6)
    return names, scores, draw(st.lists(grades, min_size=queries, max_size=queries))


def ours(names: Sequence[str], scores: FloatArray, gold: Gold) -> dict[str, Any]:
    numbers, values = best(scores, tie_order(names), DEPTH)
    return {**item_metrics(gold, numbers, values, names), **document_hits(gold, numbers, values, names)}


def of_everything(names: Sequence[str], scores: FloatArray, gold: Gold) -> dict[str, list[float]]:
    """The same by pytrec_eval, from all scores of what was found; MRR cut to ten places as MS MARCO cuts it."""
    judged = {str(query): {names[n]: grade for n, grade in one.items()} for query, one in enumerate(gold) if one}
    found = {
        str(query): {name: float(score) for name, score in zip(names, row, strict=True) if score > -math.inf}
        for query, row in enumerate(scores)
    }
    results = pytrec_eval.RelevanceEvaluator(judged, {*MEASURES.values(), "recip_rank"}).evaluate(found)
    values: dict[str, list[float]] = {}
    for ours_, theirs in {**MEASURES, "mrr@10": "recip_rank"}.items():
        values[ours_] = [results.get(str(query), {}).get(theirs, 0.0) for query in range(len(gold))]
    values["mrr@10"] = [value if value >= 0.0999 else 0.0 for value in values["mrr@10"]]
    return values


def written_out(names: Sequence[str], scores: FloatArray, gold: Gold, query: int) -> tuple[float, float, float]:
    """nDCG@10 (Järvelin and Kekäläinen 2002), recall@5 and MRR@10, in float64."""
    found = [number for number in range(len(names)) if scores[query, number] > -math.inf]
    order = sorted(found, key=lambda number: (scores[query, number], names[number]), reverse=True)[:10]
    grades = gold[query]
    relevant = {number for number, grade in grades.items() if grade}
    if not relevant:
        return 0, 0, 0
    gained = sum(grades.get(number, 0) / math.log2(place + 2) for place, number in enumerate(order))
    ideal = sorted(grades.values(), reverse=True)[:10]
    most = sum(grade / math.log2(place + 2) for place, grade in enumerate(ideal))
    first = next((1 / (place + 1) for place, number in enumerate(order) if number in relevant), 0.0)
    return gained / most, len(relevant & set(order[:5])) / len(relevant), first


@settings(max_examples=300, deadline=None)
@given(ranking=rankings())
def test_ten_places_give_what_all_places_give(ranking: tuple[list[str], FloatArray, Gold]) -> None:
    names, scores, gold = ranking
    found = ours(names, scores, gold)
    assert sorted(found) == sorted(METRICS)
    for name, values in of_everything(names, scores, gold).items():
        assert found[name].tolist() == values, name


@settings(max_examples=200, deadline=None)
@given(ranking=rankings())
def test_metrics_are_those_of_the_formulas(ranking: tuple[list[str], FloatArray, Gold]) -> None:
    names, scores, gold = ranking
    found = ours(names, scores, gold)
    for query in range(len(gold)):
        values = [found[name][query] for name in ("ndcg@10", "recall@5", "mrr@10")]
        np.testing.assert_allclose(values, written_out(names, scores, gold, query), rtol=1e-12)


def test_a_query_that_nothing_answers_counts_as_zero() -> None:
    scores = np.ones((4, 2), dtype=np.float32)
    scores[2:] = -np.inf
    found = ours(["a_0", "a_1"], scores, [{}, {0: 0}, {0: 1}, {0: 1, 1: 2}])
    for name in METRICS:
        assert found[name].tolist() == [0, 0, 0, 0], name


def test_the_tenth_place_counts_and_the_eleventh_does_not() -> None:
    names = [f"{number:02}" for number in range(12)]
    scores = np.arange(12, 0, -1, dtype=np.float32)[None].repeat(2, axis=0)
    found = ours(names, scores, [{9: 1}, {10: 1}])
    assert found["recall@10"].tolist() == [1, 0]
    assert found["document_hit@10"].tolist() == [1, 0]
    np.testing.assert_allclose(found["mrr@10"], [0.1, 0])
    np.testing.assert_allclose(found["ndcg@10"], [1 / math.log2(11), 0])
    assert found["recall@5"].tolist() == found["document_hit@5"].tolist() == [0, 0]


def test_the_values_are_float64_in_the_order_of_the_queries() -> None:
    scores = np.array([[1, 2], [2, 1]], dtype=np.float32).repeat(6, axis=0)  # "10" sorts before "2"
    found = ours(["a", "b"], scores, [{0: 1}] * 12)
    assert found["recall@1"].dtype == np.float64
    assert found["recall@1"].tolist() == [0] * 6 + [1] * 6


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pytrec_eval", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'ctxindex\[eval\]'"):
        ours(["a"], np.ones((1, 1), dtype=np.float32), [{0: 1}])
