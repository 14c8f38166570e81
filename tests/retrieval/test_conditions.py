from __future__ import annotations

import pytest

from ctxindex.errors import UsageError
from ctxindex.retrieval import parse_conditions
from ctxindex.stores.filters import matches


@pytest.mark.parametrize(
    ("condition", "values", "holds"),
    [
        ("page=3", {"page": 3}, True),
        ("page=3", {"page": "3"}, True),
        ("page = 3", {"page": 3.0}, True),
        ("page=3", {"page": 4}, False),
        ("page=3", {}, False),
        ("page!=3", {"page": "3"}, False),
        ("page!=3", {}, True),
        ("draft=true", {"draft": True}, True),
        ("draft=true", {"draft": "true"}, True),
        ("draft=true", {"draft": 1}, False),
        ("year>=2020", {"year": 2020}, True),
        ("year>2020", {"year": 2020}, False),
        ("year<=2019.5", {"year": 2019}, True),
        ("year<2019", {"year": "2018"}, False),
        ("tags=legal", {"tags": ["tax", "legal"]}, True),
        ("title=a=b", {"title": "a=b"}, True),
        ("doc_id=c/x y.txt", {"doc_id": "c/x y.txt"}, True),
        ("empty=", {"empty": ""}, True),
    ],
)
def test_a_condition_means_what_it_says(condition: str, values: dict[str, object], holds: bool) -> None:
    assert matches(parse_conditions([condition]), values) is holds


def test_several_conditions_must_all_hold() -> None:
    where = parse_conditions(["page=3", "draft=no"])
    assert matches(where, {"page": 3, "draft": "no"})
    assert not matches(where, {"page": 3, "draft": "yes"})
    assert parse_conditions([]) is None


@pytest.mark.parametrize("condition", ["page", "=3", "", "year>last"])
def test_what_is_no_condition_is_refused(condition: str) -> None:
    with pytest.raises(UsageError, match="--filter"):
        parse_conditions([condition])
