"""Conditions on chunks, in one small language that every store translates into its own.

A condition compares one key with a value. Keys are `doc_id`, `title`, or any metadata key. Where a metadata value is a
list, a condition holds if it holds for one of the elements. A chunk that lacks the key satisfies no condition on
it except `ne`, `not_in` and `exists` with False: those three say "not", and what is absent is not equal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

Scalar: TypeAlias = str | int | float | bool
Operator: TypeAlias = Literal["eq", "ne", "gt", "gte", "lt", "lte", "in", "not_in", "exists"]


@dataclass(frozen=True, slots=True)
class Condition:
    """`key operator value`. `in` and `not_in` take a tuple of scalars, `exists` a bool, the rest one scalar.

    Equality is typed as in JSON, except that 1 equals 1.0: the string "1" is not the number 1. Order operators compare
    numbers only.
    """

    key: str
    operator: Operator
    value: Scalar | tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class AllOf:
    """Every part holds; an empty one always does."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """At least one part holds; an empty one never does."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The part does not hold."""

    part: Filter


Filter: TypeAlias = Condition | AllOf | AnyOf | Not


def matches(where: Filter | None, values: Mapping[str, Any]) -> bool:
    """What `where` says of a chunk whose doc_id, title and metadata are merged in `values`.

    The meaning that every store's translation is tested against.
    """
    if where is None:
        return True
    if isinstance(where, AllOf):
        return all(matches(part, values) for part in where.parts)
    if isinstance(where, AnyOf):
        return any(matches(part, values) for part in where.parts)
    if isinstance(where, Not):
        return not matches(where.part, values)
    value = values.get(where.key)
    elements = value if isinstance(value, list | tuple) else [] if value is None else [value]
    if where.operator == "exists":
        return bool(elements) == where.value
    if where.operator in ("ne", "not_in"):
        positive: Operator = "eq" if where.operator == "ne" else "in"
        return not any(_holds(positive, element, where.value) for element in elements)
    return any(_holds(where.operator, element, where.value) for element in elements)


def _holds(operator: Operator, element: Any, value: Any) -> bool:
    if operator == "in":
        return any(_equal(element, candidate) for candidate in value)
    if operator == "eq":
        return _equal(element, value)
    if not (_is_number(element) and _is_number(value)):
        return False
    orders = {"gt": element > value, "gte": element >= value, "lt": element < value, "lte": element <= value}
    return bool(orders[operator])


def _equal(left: Any, right: Any) -> bool:
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    return bool(left == right)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
