"""The meaning of a filter, and that its reduction to facets and numbers keeps it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxindex.stores.facets import (
    LONGEST_FACET,
    Every,
    HasFacet,
    HasNumber,
    IsDocument,
    Negation,
    Test,
    facets_of,
    numbers_of,
    reduce_filter,
)
from ctxindex.stores.filters import AllOf, AnyOf, Condition, Filter, Not, matches

KEYS = st.sampled_from(["a", "b", "a.b", 'a"', "title", "doc_id", ""])
SCALARS = st.one_of(
    st.sampled_from(["1", "x", "", '"', "#", "true", "x" * 300, "x" * 301, 1, 0, 2**53, -0.0, 1.5, True]),
    st.integers(-3, 3),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
    st.text(max_size=3),
)
VALUES = st.one_of(st.none(), SCALARS, st.lists(st.one_of(st.none(), SCALARS), max_size=3))
CONDITIONS = st.one_of(
    st.builds(Condition, KEYS, st.sampled_from(["eq", "ne"]), SCALARS),
    st.builds(Condition, KEYS, st.sampled_from(["gt", "gte", "lt", "lte"]), st.one_of(SCALARS, st.integers(-3, 3))),
    st.builds(Condition, KEYS, st.sampled_from(["in", "not_in"]), st.lists(SCALARS, max_size=3).map(tuple)),
    st.builds(Condition, KEYS, st.just("exists"), st.booleans()),
)
FILTERS: st.SearchStrategy[Filter] = st.recursive(
    CONDITIONS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda parts: AllOf(tuple(parts))),
        st.lists(inner, max_size=3).map(lambda parts: AnyOf(tuple(parts))),
        inner.map(Not),
    ),
    max_leaves=5,
)


def holds(test: Test, doc_id: str, facets: set[str], numbers: dict[str, list[float]]) -> bool:
    """What a database does with a reduced filter."""
    if isinstance(test, HasFacet):
        return bool(facets & set(test.facets))
    if isinstance(test, IsDocument):
        return doc_id in test.doc_ids
    if isinstance(test, HasNumber):
        sides = {
            "gt": lambda number: number > test.bound,
            "gte": lambda number: number >= test.bound,
            "lt": lambda number: number < test.bound,
            "lte": lambda number: number <= test.bound,
        }
        return any(sides[test.order](number) for number in numbers.get(test.key, ()))
    if isinstance(test, Negation):
        return not holds(test.part, doc_id, facets, numbers)
    parts = [holds(part, doc_id, facets, numbers) for part in test.parts]
    return all(parts) if isinstance(test, Every) else any(parts)


@given(
    FILTERS,
    st.dictionaries(KEYS, VALUES, max_size=4),
    st.sampled_from(["d", "1", "x"]),
    st.sampled_from([None, "", "x", "1"]),
)
def test_reduction_keeps_the_meaning(where: Filter, metadata: dict[str, Any], doc_id: str, title: str | None) -> None:
    expected = matches(where, {**metadata, "doc_id": doc_id, "title": title})
    numbers = numbers_of(metadata)
    assert holds(reduce_filter(where), doc_id, set(facets_of(metadata, title)), numbers) == expected


def test_equality_is_exact_where_floats_are_not() -> None:
    facets = set(facets_of({"n": 2**53 + 1}, None))
    assert holds(reduce_filter(Condition("n", "eq", 2**53 + 1)), "d", facets, {})
    assert not holds(reduce_filter(Condition("n", "eq", 2**53)), "d", facets, {})


def test_order_is_that_of_floats() -> None:
    assert numbers_of({"n": 2**53 + 1}) == {"n": [float(2**53)]}
    assert numbers_of({"n": [10**400, -(10**400)]})["n"][0] > 1e308
    assert numbers_of({"n": [True, "1", None]}) == {}


def test_facets_stay_short_and_distinct() -> None:
    long = [facets_of({"k": "x" * 5000 + tail}, None) for tail in ("a", "b")]
    assert all(len(facet) < LONGEST_FACET + 100 for facets in long for facet in facets)
    assert long[0] != long[1]


@pytest.mark.parametrize(
    ("where", "values", "expected"),
    [
        (None, {}, True),
        (Condition("a", "eq", 1), {"a": 1.0}, True),
        (Condition("a", "eq", 1), {"a": True}, False),
        (Condition("a", "eq", 1), {"a": "1"}, False),
        (Condition("a", "eq", "x"), {"a": ["y", "x"]}, True),
        (Condition("a", "ne", "x"), {"a": ["y", "x"]}, False),
        (Condition("a", "ne", "x"), {}, True),
        (Condition("a", "not_in", ("x",)), {"a": None}, True),
        (Condition("a", "in", ()), {"a": 1}, False),
        (Condition("a", "gt", 1), {"a": [0, 2]}, True),
        (Condition("a", "gt", 1), {"a": "2"}, False),
        (Condition("a", "gt", 0), {"a": True}, False),
        (Condition("a", "exists", True), {"a": []}, False),
        (Condition("a", "exists", False), {"a": None}, True),
        (AllOf(()), {}, True),
        (AnyOf(()), {}, False),
        (Not(AnyOf(())), {}, True),
    ],
)
def test_matches(where: Filter | None, values: dict[str, Any], expected: bool) -> None:
    assert matches(where, values) is expected
