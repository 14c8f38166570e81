"""LlamaIndex's MetadataFilters in ctxindex's filter language."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llama_index.core.vector_stores import FilterCondition, FilterOperator, MetadataFilter, MetadataFilters

from ctxindex.errors import UsageError
from ctxindex.stores.filters import AllOf, AnyOf, Condition, Filter, Not

_CONDITIONS: dict[FilterOperator, Callable[[str, Any], Filter]] = {
    FilterOperator.EQ: lambda key, value: Condition(key, "eq", value),
    FilterOperator.NE: lambda key, value: Condition(key, "ne", value),
    FilterOperator.GT: lambda key, value: Condition(key, "gt", value),
    FilterOperator.GTE: lambda key, value: Condition(key, "gte", value),
    FilterOperator.LT: lambda key, value: Condition(key, "lt", value),
    FilterOperator.LTE: lambda key, value: Condition(key, "lte", value),
    FilterOperator.IN: lambda key, value: Condition(key, "in", tuple(value)),
    FilterOperator.NIN: lambda key, value: Condition(key, "not_in", tuple(value)),
    # Conditions on a list hold if they hold for one element, so these three need no operator of their own.
    FilterOperator.ANY: lambda key, value: Condition(key, "in", tuple(value)),
    FilterOperator.ALL: lambda key, value: AllOf(tuple(Condition(key, "eq", element) for element in value)),
    FilterOperator.CONTAINS: lambda key, value: Condition(key, "eq", value),
    FilterOperator.IS_EMPTY: lambda key, _: Condition(key, "exists", False),
}


def translate(filters: MetadataFilters | None) -> Filter | None:
    """The same conditions as a ctxindex filter; None where there are none.

    Raises:
        UsageError: an operator that stores cannot apply (text matching).
    """
    if filters is None or not filters.filters:
        return None
    parts = tuple(
        part
        for entry in filters.filters
        if (part := _one(entry) if isinstance(entry, MetadataFilter) else translate(entry)) is not None
    )
    if filters.condition == FilterCondition.OR:
        return AnyOf(parts)
    if filters.condition == FilterCondition.NOT:
        return Not(AnyOf(parts))
    return AllOf(parts)


def _one(entry: MetadataFilter) -> Filter:
    if entry.operator not in _CONDITIONS:
        raise UsageError(f"the filter operator {entry.operator.value!r} on {entry.key!r} is not supported")
    return _CONDITIONS[entry.operator](entry.key, entry.value)
