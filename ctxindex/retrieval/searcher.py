"""Search in one index with the encoder that built it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from ctxindex.errors import MismatchError, UsageError

if TYPE_CHECKING:
    from ctxindex.encoding import Encoder
    from ctxindex.stores import Store
    from ctxindex.stores.filters import Filter
    from ctxindex.types import FloatArray, Hit


class Searcher:
    """Queries of one index. May be used from several threads: the model takes one query at a time, the store several.

    Raises:
        MismatchError: the encoder's vectors and the index's cannot be compared.
    """

    def __init__(self, store: Store, encoder: Encoder, dim: int) -> None:
        if encoder.spec.dim != dim:
            raise MismatchError(f"the model gives {encoder.spec.dim} dimensions, the index has {dim}")
        self.store = store
        self.encoder = encoder
        self._lock = threading.Lock()

    def search(self, query: str, k: int = 5, where: Filter | None = None) -> list[Hit]:
        """The `k` chunks nearest to `query`, best first.

        Raises:
            UsageError: an empty query, or k below 1.
            StoreError: the store cannot answer.
        """
        return self.nearest(self.vector(query), k, where)

    def nearest(self, vector: FloatArray, k: int, where: Filter | None = None) -> list[Hit]:
        """The `k` chunks nearest to `vector`, as of `vector()`, best first; errors as in `search`."""
        if k < 1:
            raise UsageError(f"k is {k}: ask for at least one hit")
        return self.store.search(vector, k, where)

    def vector(self, query: str) -> FloatArray:
        """The query's vector, (dim,) float32, unit length; for late interaction (query vectors, dim), unit rows.

        Raises:
            UsageError: there is nothing in the query.
        """
        if not isinstance(query, str) or not query.strip():
            raise UsageError("the query is empty" if isinstance(query, str) else f"a query is text, not {query!r}")
        with self._lock:
            vector: FloatArray = self.encoder.encode_queries([query])[0]
        return vector
