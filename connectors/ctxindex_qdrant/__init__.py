"""ctxindex in Qdrant: a server or cloud by URL, or the embedded engine in a local folder.

Found through the entry point `ctxindex.stores` as `qdrant`. The client or the engine is imported at the first connect.
"""

from __future__ import annotations

from ctxindex_qdrant.store import QdrantStore

__all__ = ["QdrantStore"]
