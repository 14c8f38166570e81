"""Filters in Qdrant's JSON form, made once for both engines. Knows the payload's layout, no client library.

Metadata is only asked for through `ctx_facets` (typed equality, one keyword index for all keys) and `ctx_numbers`
(order), so keys with dots, quotes or brackets never become paths.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from ctxindex.stores.facets import Every, HasFacet, HasNumber, IsDocument, Negation, Some, Test
from ctxindex.stores.payload import FACETS, NUMBERS
from ctxindex_qdrant.engine import JsonFilter


def any_of(field: str, values: Collection[str]) -> JsonFilter:
    """A field condition: the field, or an element of it, is one of `values`."""
    return {"key": field, "match": {"any": list(values)}}


def of_revision(doc_id: str, revision: str) -> JsonFilter:
    """Chunks of one revision of one document."""
    return {"must": [any_of("doc_id", [doc_id]), any_of("revision", [revision])]}


def other_revisions(live: Mapping[str, str]) -> JsonFilter:
    """Chunks of these documents that are not of the revision given."""
    parts: list[JsonFilter] = []
    gone = [doc_id for doc_id, revision in live.items() if not revision]
    if gone:
        parts.append(any_of("doc_id", gone))
    for doc_id, revision in live.items():
        if revision:
            parts.append({"must": [any_of("doc_id", [doc_id])], "must_not": [any_of("revision", [revision])]})
    return {"should": parts} if parts else _nothing()


def condition(test: Test) -> JsonFilter:
    """`test` as a whole filter."""
    if isinstance(test, HasFacet):
        return {"must": [any_of(FACETS, test.facets)]} if test.facets else _nothing()
    if isinstance(test, IsDocument):
        return {"must": [any_of("doc_id", test.doc_ids)]} if test.doc_ids else _nothing()
    if isinstance(test, HasNumber):
        element = {"must": [any_of("key", [test.key]), {"key": "value", "range": {test.order: test.bound}}]}
        return {"must": [{"nested": {"key": NUMBERS, "filter": element}}]}
    if isinstance(test, Negation):
        return {"must_not": [condition(test.part)]}
    parts = [condition(part) for part in test.parts]
    if isinstance(test, Every):
        return {"must": parts}
    assert isinstance(test, Some)
    return {"should": parts} if parts else _nothing()


def _nothing() -> JsonFilter:
    """Qdrant takes an empty `should` for no condition at all."""
    return {"must": [{"has_id": []}]}
