"""`ctxindex eval` against a script that has nothing of ours but the chunks, on two of the shared sets.

The script embeds with sentence-transformers, ranks by sorting everything, and writes the formulas out in float64.
"""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ctxindex.chunking import load_chunker
from ctxindex.encoding.known_models import find_folder
from ctxindex.encoding.local import LocalEncoder
from ctxindex.spec import ChunkerSpec
from ctxindex.types import Document
from tests.cli.test_cli import answer, run

SIZE = 500
METRICS = ("ndcg@10", "recall@1", "recall@5", "recall@10", "mrr@10", "document_hit@1", "document_hit@10")


def rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in gzip.decompress(file.read_bytes()).decode().splitlines()]


def gain(places: list[int]) -> float:
    return sum(1 / math.log2(place + 1) for place in places if place <= 10)


def measure(order: list[int], owners: list[str], gold: set[int], answers: set[str]) -> dict[str, float]:
    """All metrics of one query, whose chunks stand in `order`."""
    places = [place for place, chunk in enumerate(order, 1) if chunk in gold]
    documents = list(dict.fromkeys(owners[chunk] for chunk in order))
    return {
        "ndcg@10": gain(places) / gain(list(range(1, len(gold) + 1))),
        **{f"recall@{k}": sum(place <= k for place in places) / len(gold) for k in (1, 5, 10)},
        "mrr@10": 1 / places[0] if places[0] <= 10 else 0.0,
        **{f"document_hit@{k}": float(bool(answers & set(documents[:k]))) for k in (1, 10)},
    }


def expected(folder: Path, chunks_of: Any, *, titled: bool) -> dict[str, float]:
    """The means over all queries of a set, by the script."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(find_folder("minilm")), device="cpu")
    texts: list[str] = []
    places: list[tuple[str, int, int]] = []
    for row in rows(folder / "documents.jsonl.gz"):
        for chunk in chunks_of(Document(row["doc_id"], row["text"])):
            texts.append(f"{row['title']}\n{chunk.text}" if titled else chunk.text)
            places.append((row["doc_id"], chunk.start, chunk.end))
    questions: dict[str, tuple[str, list[tuple[str, int, int]]]] = {}
    for row in rows(folder / "queries.jsonl.gz"):
        spans = questions.setdefault(row["query_id"], (row["query"], []))[1]
        spans.append((row["doc_id"], row["start"], row["end"]))
    vectors = model.encode(texts, normalize_embeddings=True)
    asked = model.encode([text for text, _ in questions.values()], normalize_embeddings=True)
    found: list[dict[str, float]] = []
    for scores, (_, spans) in zip(asked @ vectors.T, questions.values(), strict=True):
        gold = {
            number
            for number, (doc_id, start, end) in enumerate(places)
            if any(doc_id == other and start < stop and begin < end for other, begin, stop in spans)
        }
        order = [int(number) for number in np.argsort(-scores.astype(np.float64))]
        found.append(measure(order, [doc_id for doc_id, _, _ in places], gold, {doc_id for doc_id, _, _ in spans}))
    return {metric: float(np.mean([one[metric] for one in found])) for metric in METRICS}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "method"), [("medquad-eval-masked", "independent"), ("covidqa-eval", "independent+title")]
)
def test_the_command_gives_what_an_independent_script_gives(
    name: str, method: str, shared_data: Path, minilm_independent: LocalEncoder, tmp_path: Path
) -> None:
    chunker = load_chunker(ChunkerSpec("recursive", SIZE, "chars", 0), minilm_independent.tokenizer)
    flags = ["--chunk-size", str(SIZE), "--chunk-unit", "chars", "--chunker", "recursive", "--dtype", "float32"]
    command = ["eval", shared_data / name, "--method", method, *flags, "--cache", tmp_path, "--json", "--quiet"]
    (result,) = answer(run(*command, cwd=tmp_path))["runs"]
    script = expected(shared_data / name, chunker.chunk, titled=method.endswith("title"))
    assert {metric: result["metrics"][metric] for metric in METRICS} == pytest.approx(script, abs=5e-4)
    assert result["queries"] > 500
