"""Files as datasets have them, written for one test."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

Values = Mapping[str, Any]

TEXT = "Zoë signs.\n\nThe fee is 5 €.\n\n\n\nThe end."
"""Four paragraphs: 0-10, 12-27, 29-29 and 31-39."""


def write_jsonl(path: Path, rows: Iterable[Values | str]) -> Path:
    """One line a row, packed where the name says so; a string is a line as it is."""
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    data = "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogatepass")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def document(doc_id: str = "a", text: Any = TEXT, **more: Any) -> dict[str, Any]:
    return {"doc_id": doc_id, "title": "", "text": text, **more}


def asked(query_id: str = "q", start: Any = 12, end: Any = 27, **more: Any) -> dict[str, Any]:
    return {"query_id": query_id, "query": "What is the fee?", "doc_id": "a", "start": start, "end": end, **more}


def write_spans(
    folder: Path, documents: Iterable[Values | str] = (document(),), queries: Iterable[Values | str] = (asked(),)
) -> Path:
    """A folder in the span format."""
    write_jsonl(folder / "documents.jsonl", documents)
    write_jsonl(folder / "queries.jsonl", queries)
    return folder
