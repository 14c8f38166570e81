"""query -> hits: the query is encoded as the index's spec says, and the store ranks."""

from __future__ import annotations

from ctxindex.retrieval.conditions import Where, as_filter, parse_conditions
from ctxindex.retrieval.searcher import Searcher

__all__ = ["Searcher", "Where", "as_filter", "parse_conditions"]
