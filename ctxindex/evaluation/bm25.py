"""BM25 over chunks, by bm25s with its own defaults: Lucene's variant, k1 1.5, b 0.75, English stop words, no stemming.

Sources: Robertson and Zaragoza, "The Probabilistic Relevance Framework", 2009; Lù, "BM25S", arXiv 2407.03618.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ctxindex.errors import MissingDependencyError
from ctxindex.evaluation.corpus import Corpus
from ctxindex.evaluation.scoring import BLOCK_NUMBERS, Indexing, Reader

if TYPE_CHECKING:
    from ctxindex.types import FloatArray


class Bm25:
    """Implements `Scorer`. A chunk that shares no word with the query is not found.

    Args:
        read: what is read in the place of the documents.
        done: called for every document, with its doc_id and None.
    """

    def __init__(
        self,
        read: Reader = lambda documents: documents,
        done: Callable[[str, str | None], None] = lambda doc_id, failure: None,
    ) -> None:
        self._read = read
        self._done = done
        self._index: Any = None
        self._n_chunks = 0

    def index(self, corpus: Corpus) -> Indexing:
        """See `Scorer.index`."""
        bm25s = require_bm25s()
        began = time.perf_counter()
        read = self._read(corpus.documents)
        reading, began = time.perf_counter() - began, time.perf_counter()
        texts = []
        for one in read:
            texts += [chunk.text for chunk in one.chunks]
            self._done(one.document.doc_id, None)
        self._n_chunks = len(texts)
        words = bm25s.tokenize(texts, show_progress=False)
        self._index = None
        if words.vocab:
            self._index = bm25s.BM25()
            self._index.index(words, show_progress=False)
        return Indexing(time.perf_counter() - began, reading=reading)

    def score(self, queries: Sequence[str]) -> Iterator[FloatArray]:
        """See `Scorer.score`."""
        bm25s = require_bm25s()
        words = bm25s.tokenize(list(queries), return_ids=False, show_progress=False)
        rows = max(1, BLOCK_NUMBERS // max(1, self._n_chunks))
        for begin in range(0, len(queries), rows):
            scores = np.zeros((len(words[begin : begin + rows]), self._n_chunks), dtype=np.float32)
            for row, asked in enumerate(words[begin : begin + rows]):
                if asked and self._index is not None:
                    scores[row] = self._index.get_scores(asked)
            scores[scores <= 0] = -np.inf
            yield scores


def require_bm25s() -> Any:
    """The library; raises MissingDependencyError where it is not installed."""
    try:
        import bm25s
    except ImportError:
        raise MissingDependencyError("bm25s", extra="eval", purpose="the method bm25") from None
    return bm25s
