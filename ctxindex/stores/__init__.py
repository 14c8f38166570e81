"""The store room: the seam to vector databases and everything that all of them share.

`open_store` finds a connector by name or URI. The rest is for those who write connectors: the write order of a
replace (`replacing`), the filter language and its reduction to exact tests (`filters`, `facets`), the payload
(`payload`), byte batching, retry, and the conformance suite that every connector must pass. Knows no database.
"""

from __future__ import annotations

from ctxindex.stores.filters import AllOf, AnyOf, Condition, Filter, Not
from ctxindex.stores.protocol import Counts, Store, StoreLocation
from ctxindex.stores.registry import installed_stores, open_store

__all__ = [
    "AllOf",
    "AnyOf",
    "Condition",
    "Counts",
    "Filter",
    "Not",
    "Store",
    "StoreLocation",
    "installed_stores",
    "open_store",
]
