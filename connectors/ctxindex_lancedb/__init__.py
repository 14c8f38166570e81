"""ctxindex in LanceDB: an embedded database in a folder or an object store. The default store.

Found through the entry point `ctxindex.stores` as `lancedb`. LanceDB itself is imported at the first connect.
"""

from __future__ import annotations

from ctxindex_lancedb.store import LanceStore

__all__ = ["LanceStore"]
