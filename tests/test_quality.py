"""The quality guard: what half precision costs on real contracts, in cosine and in nDCG@10."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from ctxindex.chunking import load_chunker
from ctxindex.encoding import EncoderOptions, load_encoder
from ctxindex.spec import ChunkerSpec
from ctxindex.types import ChunkedDocument, Document, EncodedDocument

if TYPE_CHECKING:
    from ctxindex.types import FloatArray

QUERIES = 461


def ndcg(ranked: list[int], relevant: set[int]) -> float:
    """nDCG@10 of a ranking with binary relevance (Järvelin and Kekäläinen 2002)."""
    gained = sum(1 / math.log2(place + 2) for place, chunk in enumerate(ranked[:10]) if chunk in relevant)
    best = sum(1 / math.log2(place + 2) for place in range(min(10, len(relevant))))
    return gained / best


class Corpus:
    """The contracts, cut once, with the chunks that answer each question."""

    def __init__(self, folder: Path) -> None:
        encoder = load_encoder("minilm")
        chunker = load_chunker(ChunkerSpec("recursive", 128, "tokens", 0), encoder.tokenizer)
        rows = [json.loads(line) for line in (folder / "documents.jsonl").read_text(encoding="utf-8").splitlines()]
        documents = [Document(row["doc_id"], row["text"]) for row in rows]
        self.documents = [ChunkedDocument(document, chunker.chunk(document)) for document in documents]
        places = [(one.document.doc_id, chunk) for one in self.documents for chunk in one.chunks]
        self.texts: dict[str, str] = {}
        self.relevant: dict[str, set[int]] = defaultdict(set)
        for line in (folder / "queries.jsonl").read_text(encoding="utf-8").splitlines():
            row: dict[str, Any] = json.loads(line)
            self.texts[row["query_id"]] = row["query"]
            self.relevant[row["query_id"]] |= {
                number
                for number, (doc_id, chunk) in enumerate(places)
                if doc_id == row["doc_id"] and chunk.start < row["end"] and row["start"] < chunk.end
            }

    def encode(self, dtype: str) -> tuple[FloatArray, float]:
        """All chunk vectors, (chunks, dim), and the mean nDCG@10 over the questions, in points."""
        encoder = load_encoder("minilm", EncoderOptions(method="late", dtype=dtype, device="cpu"))
        done = {
            one.document.doc_id: one.vectors
            for one in encoder.encode_documents(self.documents)
            if isinstance(one, EncodedDocument)
        }
        vectors = np.concatenate([done[one.document.doc_id] for one in self.documents])
        scores = encoder.encode_queries(list(self.texts.values())) @ vectors.T
        ranked = np.argsort(-scores, axis=1)[:, :10]
        values = [ndcg(list(row), self.relevant[query]) for row, query in zip(ranked, self.texts, strict=True)]
        return vectors, 100 * float(np.mean(values))


@pytest.mark.slow
def test_bfloat16_keeps_vectors_and_ranking(contracts: Path) -> None:
    corpus = Corpus(contracts)
    assert len(corpus.texts) == QUERIES
    exact, expected = corpus.encode("float32")
    half, found = corpus.encode("bfloat16")
    cosines = np.einsum("ij,ij->i", exact, half)
    assert float(cosines.min()) > 0.999
    assert abs(found - expected) < 0.3
    assert 5 < expected < 60  # questions were asked and some were answered
