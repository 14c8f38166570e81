"""`ctxindex eval` against a script that has nothing of ours but the chunks, on a quarter of two of the shared sets.

The script embeds with sentence-transformers, ranks by sorting everything, and writes the formulas out in float64.
"""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ctxindex.chunking import load_chunker
from ctxindex.encoding.known_models import find_folder
from ctxindex.encoding.local import LocalEncoder
from ctxindex.spec import ChunkerSpec
from ctxindex.types import Chunk, Document
from tests.cli.command_line import answer, run

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


def paragraphs(document: Document) -> list[Chunk]:
    """What lies between blank lines."""
    starts = accumulate((len(part) + 2 for part in document.text.split("\n\n")), initial=0)
    parts = zip(starts, document.text.split("\n\n"), strict=False)
    return [Chunk(number, start, start + len(part), part) for number, (start, part) in enumerate(parts)]


def expected(folder: Path, chunks_of: Any, *, titled: bool) -> dict[str, float]:
    """The means over all queries of a set, by the script."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(find_folder("minilm")), device="cpu")
    model.max_seq_length = 512  # of its 256, so that no paragraph is cut
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


def results(folder: Path, tmp_path: Path, *flags: str) -> dict[str, Any]:
    """What the command prints."""
    fixed = ["--dtype", "float32", "--cache", str(tmp_path), "--json", "--quiet"]
    (found,) = answer(run("eval", folder, "--model", "minilm", *flags, *fixed, cwd=tmp_path))["runs"]
    assert isinstance(found, dict)
    return found


def quarter(folder: Path, target: Path, keep: Callable[[dict[str, Any]], bool]) -> Path:
    """Every fourth of the documents of a set that are to be kept, with their queries, in the folder `target`."""
    documents = [row for row in rows(folder / "documents.jsonl.gz") if keep(row)][::4]
    kept = {row["doc_id"] for row in documents}
    queries = [row for row in rows(folder / "queries.jsonl.gz") if row["doc_id"] in kept]
    target.mkdir()
    for name, some in (("documents", documents), ("queries", queries)):
        (target / f"{name}.jsonl.gz").write_bytes(gzip.compress("\n".join(map(json.dumps, some)).encode()))
    return target


@pytest.mark.slow
def test_chunks_with_titles_rank_as_in_the_script(
    shared_data: Path, minilm_independent: LocalEncoder, tmp_path: Path
) -> None:
    folder = quarter(shared_data / "medquad-eval-masked", tmp_path / "medquad", lambda row: True)
    chunker = load_chunker(ChunkerSpec("recursive", SIZE, "chars", 0), minilm_independent.tokenizer)
    flags = ["--chunk-size", str(SIZE), "--chunk-unit", "chars", "--chunker", "recursive"]
    found = results(folder, tmp_path, "--method", "independent+title", *flags)
    script = expected(folder, chunker.chunk, titled=True)
    assert {metric: found["metrics"][metric] for metric in METRICS} == pytest.approx(script, abs=5e-4)
    assert found["queries"] == 240


@pytest.mark.slow
def test_paragraphs_of_the_set_rank_as_in_the_script(
    shared_data: Path, minilm_independent: LocalEncoder, tmp_path: Path
) -> None:
    def is_read_whole(row: dict[str, Any]) -> bool:
        """sentence-transformers cuts off a paragraph that is longer, and ctxindex reads it in pieces."""
        return max(minilm_independent.tokenizer.count(row["text"].split("\n\n"))) <= 510

    folder = quarter(shared_data / "squad-eval", tmp_path / "squad", is_read_whole)
    found = results(folder, tmp_path, "--method", "independent", "--chunks", "given")
    script = expected(folder, paragraphs, titled=False)
    assert {metric: found["metrics"][metric] for metric in METRICS} == pytest.approx(script, abs=5e-4)
    assert found["queries"] > 500
