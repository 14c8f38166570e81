"""Small sets on disk: documents about people of three sentences each, a chunk a sentence, and questions about them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ctxindex.chunking import load_chunker
from ctxindex.spec import ChunkerSpec
from ctxindex.types import Chunker, Tokenizer

SPEC = ChunkerSpec("recursive", 48, "chars", 0)
PLACES = ("Arles", "Bergen", "Cadiz", "Dover", "Elche", "Fez", "Ghent", "Hull", "Ibiza", "Jena", "Kiel", "Lyon")


def chunker(tokenizer: Tokenizer) -> Chunker:
    """Cuts the documents below at their sentences."""
    return load_chunker(SPEC, tokenizer)


def text_of(place: str) -> str:
    return "\n\n".join(
        [
            f"{place} was founded by sailors long ago.",
            f"The harbour of {place} has two old piers.",
            f"In {place} a market is held on Sundays.",
        ]
    )


def write_jsonl(file: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return file


def pair(place: str, sentence: int, query: str | None = None, **more: Any) -> dict[str, Any]:
    """A line that asks for a sentence of a document."""
    text = text_of(place)
    evidence = text.split("\n\n")[sentence]
    start = text.index(evidence)
    asked = query or f"What is said of {place}, {sentence}?"
    return {"query": asked, "doc_id": place, "start": start, "end": start + len(evidence), **more}


def write_set(folder: Path, places: Iterable[str] = PLACES, sentences: Iterable[int] = (0, 2)) -> Path:
    """A set in the span format."""
    named = list(places)
    write_jsonl(
        folder / "documents.jsonl", [{"doc_id": place, "title": place, "text": text_of(place)} for place in named]
    )
    rows = [pair(place, sentence) for place in named for sentence in sentences]
    write_jsonl(folder / "queries.jsonl", [{"query_id": str(number), **row} for number, row in enumerate(rows)])
    return folder


def write_beir(folder: Path, places: Iterable[str]) -> Path:
    """A set that ranks documents."""
    named = list(places)
    write_jsonl(folder / "corpus.jsonl", [{"_id": place, "title": place, "text": text_of(place)} for place in named])
    write_jsonl(folder / "queries.jsonl", [{"_id": f"q-{place}", "text": f"tell me of {place}"} for place in named])
    (folder / "qrels").mkdir()
    lines = ["query-id\tcorpus-id\tscore", *(f"q-{place}\t{place}\t1" for place in named)]
    (folder / "qrels" / "test.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def write_documents(folder: Path, places: Iterable[str] = PLACES) -> Path:
    """A folder of text files, called by their places."""
    folder.mkdir(parents=True)
    for place in places:
        (folder / f"{place}.txt").write_text(text_of(place), encoding="utf-8")
    return folder
