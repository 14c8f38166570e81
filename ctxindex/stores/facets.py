"""The filter language reduced to exact tests that any database can do.

Databases disagree about JSON: about 1 and 1.0 and true, about keys with dots or quotes, about lists. So a connector
stores two derived values beside a chunk's metadata and tests only those. *Facets* are strings, one for
every key that is there (`"lang"`) and one for every scalar under it (`"lang"="de"`), in canonical JSON: equality of
facets is the typed equality of `filters.matches`. *Numbers* are the numbers under each key, as floats, for order.
Both are made here, and `reduce_filter` turns a filter into tests on them, so that no connector interprets a key.
Knows no database and no payload layout.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, TypeAlias, cast

from ctxindex.stores.filters import AllOf, AnyOf, Condition, Filter, Not

LONGEST_FACET = 200
"""Characters; a longer value is represented by its hash, since keyword indexes are not made for essays."""

DOC_ID = "doc_id"
Order: TypeAlias = Literal["gt", "gte", "lt", "lte"]


@dataclass(frozen=True, slots=True)
class HasFacet:
    """The chunk has one of these facets."""

    facets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class IsDocument:
    """The chunk's doc_id is one of these. Apart from facets, so that a database can use its index on doc_id."""

    doc_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class HasNumber:
    """One of the numbers under `key` lies on the given side of `bound`, a finite float."""

    key: str
    order: Order
    bound: float


@dataclass(frozen=True, slots=True)
class Every:
    """Every part holds; an empty one always does."""

    parts: tuple[Test, ...]


@dataclass(frozen=True, slots=True)
class Some:
    """At least one part holds; an empty one never does."""

    parts: tuple[Test, ...]


@dataclass(frozen=True, slots=True)
class Negation:
    """The part does not hold."""

    part: Test


Test: TypeAlias = HasFacet | IsDocument | HasNumber | Every | Some | Negation
ALWAYS = Every(())
NEVER = Some(())


def facets_of(metadata: Mapping[str, Any], title: str | None) -> list[str]:
    """The facets of a chunk: of its metadata, and of its title under the key `title`."""
    found: dict[str, None] = {}
    for key, elements in _elements(metadata, title):
        found[_name(key)] = None
        found.update((_facet(key, element), None) for element in elements if _is_scalar(element))
    return list(found)


def numbers_of(metadata: Mapping[str, Any]) -> dict[str, list[float]]:
    """The numbers under each key that has any, as floats."""
    found = {
        key: [_as_float(element) for element in elements if _is_number(element)]
        for key, elements in _elements(metadata, None)
    }
    return {key: numbers for key, numbers in found.items() if numbers}


def reduce_filter(where: Filter) -> Test:
    """The test on doc_id, facets and numbers that means what `where` means."""
    if isinstance(where, AllOf):
        return Every(tuple(reduce_filter(part) for part in where.parts))
    if isinstance(where, AnyOf):
        return Some(tuple(reduce_filter(part) for part in where.parts))
    if isinstance(where, Not):
        return Negation(reduce_filter(where.part))
    return _reduce_condition(where)


def _reduce_condition(condition: Condition) -> Test:
    key, operator, value = condition.key, condition.operator, condition.value
    if operator == "exists":
        present: Test = ALWAYS if key == DOC_ID else HasFacet((_name(key),))
        return present if value else Negation(present)
    if operator in ("eq", "ne", "in", "not_in"):
        values = value if isinstance(value, tuple | list) else (value,)
        equal = _reduce_equality(key, values)
        return equal if operator in ("eq", "in") else Negation(equal)
    if key in (DOC_ID, "title") or isinstance(value, str | bool | tuple | list) or _is_nan(value):
        return NEVER
    return HasNumber(key, cast("Order", operator), _as_float(value))


def _reduce_equality(key: str, values: tuple[Any, ...]) -> Test:
    if key == DOC_ID:
        return IsDocument(tuple(value for value in values if isinstance(value, str)))
    return HasFacet(tuple(_facet(key, value) for value in values if _is_scalar(value)))


def _elements(metadata: Mapping[str, Any], title: str | None) -> Iterator[tuple[str, list[Any]]]:
    values = {**metadata, "title": title}
    values.pop(DOC_ID, None)
    for key, value in values.items():
        elements = list(value) if isinstance(value, list | tuple) else [] if value is None else [value]
        if elements:
            yield key, elements


@lru_cache(maxsize=4096)
def _name(key: str) -> str:
    return _shortened("", json.dumps(key, ensure_ascii=False))


def _facet(key: str, value: str | int | float | bool) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return _shortened(_name(key) + "=", json.dumps(value, ensure_ascii=False))


def _shortened(head: str, text: str) -> str:
    """A quoted text never begins with `#`, so a hash is never taken for a value."""
    if len(text) <= LONGEST_FACET:
        return head + text
    return f"{head}#{hashlib.sha256(text.encode()).hexdigest()}"


def _is_scalar(value: Any) -> bool:
    """NaN equals nothing, so it has no facet."""
    return isinstance(value, str | int) or (isinstance(value, float) and not _is_nan(value))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and not _is_nan(value)


def _is_nan(value: float) -> bool:
    """Also for integers that no float can hold, where `math.isnan` gives up."""
    return value != value


def _as_float(value: float) -> float:
    """Finite, so that it can be written in JSON and SQL."""
    largest = sys.float_info.max
    try:
        return min(largest, max(-largest, float(value)))
    except OverflowError:
        return largest if value > 0 else -largest
