"""What people write as a condition -> a filter: `key=value` at a terminal, a mapping or a filter in Python."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TypeAlias

from ctxindex.errors import UsageError
from ctxindex.stores.filters import AllOf, AnyOf, Condition, Filter, Not, Operator, Scalar

Where: TypeAlias = Filter | Mapping[str, Scalar] | Iterable[str] | None
"""A filter; or {key: value} for equality; or conditions as the command line has them, such as "page>=3"."""

_FORM = re.compile(r"(?P<key>.+?)\s*(?P<sign>!=|>=|<=|=|>|<)\s*(?P<value>.*)", re.DOTALL)
_ORDERS: dict[str, Operator] = {">": "gt", ">=": "gte", "<": "lt", "<=": "lte"}


def as_filter(where: Where) -> Filter | None:
    """Any of the forms of `Where` as a filter."""
    if where is None or isinstance(where, Filter):
        return where
    if isinstance(where, Mapping):
        return AllOf(tuple(Condition(key, "eq", value) for key, value in where.items()))
    return parse_conditions([where] if isinstance(where, str) else where)


def parse_conditions(conditions: Iterable[str]) -> Filter | None:
    """The filter that all of `conditions` make together, or None where there are none.

    Each is `key=value`, `key!=value`, or `key>value` (also >=, <, <=) for numbers. A value that could be a number or a
    boolean as well as a text matches either, since a shell does not say which was meant.

    Raises:
        UsageError: not of that form.
    """
    parts = tuple(_parse(condition) for condition in conditions)
    if not parts:
        return None
    return parts[0] if len(parts) == 1 else AllOf(parts)


def _parse(condition: str) -> Filter:
    form = _FORM.fullmatch(condition.strip())
    if form is None:
        raise UsageError(f"--filter {condition!r} is not of the form key=value (or !=, >, >=, <, <=)")
    key, sign, value = form["key"], form["sign"], form["value"]
    if sign in _ORDERS:
        number = _number(value)
        if number is None:
            raise UsageError(f"--filter {condition!r}: {sign} compares numbers, and {value!r} is none")
        return Condition(key, _ORDERS[sign], number)
    equal = AnyOf(tuple(Condition(key, "eq", reading) for reading in _readings(value)))
    return Not(equal) if sign == "!=" else equal


def _readings(value: str) -> list[Scalar]:
    readings: list[Scalar] = [value]
    number = _number(value)
    if number is not None:
        readings.append(number)
    if value.lower() in ("true", "false"):
        readings.append(value.lower() == "true")
    return readings


def _number(value: str) -> int | float | None:
    if re.fullmatch(r"[+-]?\d{1,18}", value):
        return int(value)
    if re.fullmatch(r"[+-]?(\d+\.\d*|\.\d+)([eE][+-]?\d+)?", value):
        return float(value)
    return None
