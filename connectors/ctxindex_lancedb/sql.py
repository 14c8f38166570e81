"""Filters and conditions as the SQL that LanceDB understands. Strings only; imports nothing of LanceDB.

A condition on metadata becomes `array_has` on the column `facets` or a comparison with the extremes kept in the JSON
column `extremes`: an element of a list is above a bound exactly where the list's greatest element is. Keys are
hexadecimal there, so that no dot or quote in one means anything.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from ctxindex.stores.facets import Every, HasFacet, HasNumber, IsDocument, Negation, Some, Test

_SIGNS = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}


def quoted(text: str) -> str:
    """A string literal: only the quote is special in Lance's SQL, the backslash is not."""
    return "'" + text.replace("'", "''") + "'"


def among(column: str, values: Collection[str]) -> str:
    """`column` is one of `values`."""
    if not values:
        return "false"
    return f"{column} IN ({', '.join(quoted(value) for value in values)})"


def other_revisions(live: Mapping[str, str]) -> str:
    """Chunks of these documents that are not of the revision given."""
    gone = [doc_id for doc_id, revision in live.items() if not revision]
    parts = [among("doc_id", gone)] if gone else []
    parts += [
        f"(doc_id = {quoted(doc_id)} AND revision <> {quoted(revision)})"
        for doc_id, revision in live.items()
        if revision
    ]
    return " OR ".join(parts) or "false"


def greatest(key: str) -> str:
    """The name in `extremes` under which the greatest number of a metadata key is kept."""
    return "hi_" + key.encode().hex()


def least(key: str) -> str:
    """The name in `extremes` of the least number of a metadata key."""
    return "lo_" + key.encode().hex()


def condition(test: Test) -> str:
    """`test` as an expression that is true or false, never null: `NOT` must mean what it says."""
    if isinstance(test, HasFacet):
        return _has_facet(test.facets)
    if isinstance(test, IsDocument):
        return among("doc_id", test.doc_ids)
    if isinstance(test, HasNumber):
        extreme = greatest(test.key) if test.order in ("gt", "gte") else least(test.key)
        number = f"json_get_float(extremes, '{extreme}')"
        return f"coalesce({number} {_SIGNS[test.order]} CAST({test.bound!r} AS DOUBLE), false)"
    if isinstance(test, Negation):
        return f"(NOT {condition(test.part)})"
    return _joined(test)


def _has_facet(facets: tuple[str, ...]) -> str:
    if not facets:
        return "false"
    if len(facets) == 1:
        return f"array_has(facets, {quoted(facets[0])})"
    return f"array_has_any(facets, [{', '.join(quoted(facet) for facet in facets)}])"


def _joined(test: Every | Some) -> str:
    word, empty = (" AND ", "true") if isinstance(test, Every) else (" OR ", "false")
    return "(" + (word.join(condition(part) for part in test.parts) or empty) + ")"
