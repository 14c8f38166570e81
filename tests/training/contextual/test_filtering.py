"""What may answer a query is no negative of it, and what is its own always stays."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxindex.errors import ConfigError
from ctxindex.training.contextual.filtering import FalseNegativeFilter, Rule, known_positives

SURROGATE = torch.tensor([[0.90, 0.95, 0.20], [0.10, 0.80, 0.79], [0.30, 0.30, 0.70]])


def places(removed: torch.Tensor) -> set[tuple[int, ...]]:
    return {tuple(place) for place in removed.nonzero().tolist()}


@pytest.mark.parametrize(
    ("rule", "margin", "expected"),
    [
        ("none", 0.0, set()),
        ("relative", 0.0, {(0, 1)}),
        ("relative", -0.05, {(0, 1), (1, 2)}),
        ("relative", 0.06, set()),
        ("absolute", 0.79, {(0, 1), (1, 2)}),
        ("absolute", 0.3, {(0, 1), (1, 2), (2, 0), (2, 1)}),
    ],
)
def test_what_the_surrogate_likes_is_left_out(rule: Rule, margin: float, expected: set[tuple[int, int]]) -> None:
    assert places(FalseNegativeFilter(rule, margin).removed(SURROGATE)) == expected


def test_what_is_as_good_as_the_gold_is_left_out() -> None:
    assert places(FalseNegativeFilter().removed(torch.full((2, 2), 0.5))) == {(0, 1), (1, 0)}


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 6), st.integers(0, 6), st.sampled_from(["relative", "absolute"]), st.floats(-2, 2), st.data())
def test_what_is_a_querys_own_always_stays(
    queries: int, mined: int, rule: Rule, margin: float, data: st.DataObject
) -> None:
    hard = data.draw(st.lists(st.integers(0, queries - 1), min_size=mined, max_size=mined))
    scores = torch.rand(queries, queries + mined) * 2 - 1
    removed = FalseNegativeFilter(rule, margin).removed(scores, hard)
    owners = [*range(queries), *hard]
    for row in range(queries):
        least = float(scores[row, row]) + margin if rule == "relative" else margin
        for column, owner in enumerate(owners):
            score = float(scores[row, column])
            if abs(score - least) > 1e-6:  # where rounding does not decide
                assert bool(removed[row, column]) == (owner != row and score > least)


def test_known_positives_need_no_surrogate() -> None:
    queries = ["When?", "Who?", "when?", "Where?"]
    documents = ["in May", "Ada", "in 1815", "in May", "Ada", "in 1815", "there"]
    found = known_positives(queries, documents)
    assert found.shape == (4, 7)
    assert places(found) == {(0, 2), (0, 3), (0, 5), (1, 4), (2, 0), (2, 3), (2, 5), (3, 0)}


def test_what_cannot_be_filtered_is_refused() -> None:
    with pytest.raises(ConfigError, match="none of relative, absolute, none"):
        FalseNegativeFilter("other")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="margin"):
        FalseNegativeFilter(margin=math.nan)
    with pytest.raises(ValueError, match="2 queries and 3 documents, and 0 hard negatives"):
        FalseNegativeFilter().removed(torch.zeros(2, 3))
    with pytest.raises(ValueError, match="not numbers"):
        FalseNegativeFilter().removed(torch.full((2, 2), torch.nan))
