"""Pairs on disk: a file of pairs alone, or a folder in the span format, which training and evaluation read.

In a folder, what the pairs say to remove has been cut out of the texts, and all spans are those of the texts there. A
file of pairs alone speaks of the documents as they were loaded; its `remove` is for the reader to cut.
"""

from __future__ import annotations

import filecmp
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from itertools import count
from pathlib import Path
from typing import Any

from ctxindex.chunking.spans import Span
from ctxindex.errors import ConfigError
from ctxindex.evaluation.datasets.evidence import around
from ctxindex.evaluation.datasets.removing import Cuts
from ctxindex.training.pairs.split import Split
from ctxindex.training.pairs.values import KINDS, Pair

DOCUMENTS, QUERIES = "documents.jsonl", "queries.jsonl"


def write_pairs(file: Path, side: Split) -> list[Path]:
    """A line a pair, `{"query_id", "query", "doc_id", "start", "end", "kind"}` and `remove` where there is one.

    `evidence` is the text of `[start, end)`, by which the span is found again where the document changes. Where a span
    begins or ends inside a word, `around` is the rest of it, before and after.

    The file is there whole or as it was before. One that was there and says something else is kept under another name,
    which is given back: somebody may have read its pairs and mended them.

    Raises:
        ConfigError: it cannot be written.
    """
    texts = {document.doc_id: document.text for document in side.documents}
    return _write(file, ({**one.to_json(), **_evidence(one, texts[one.doc_id])} for one in side.pairs), keep=True)


def _evidence(pair: Pair, text: str) -> dict[str, Any]:
    rest = around(text, pair.start, pair.end)
    return {"evidence": text[pair.start : pair.end], **({"around": list(rest)} if any(rest) else {})}


def write_set(folder: Path, side: Split) -> list[Path]:
    """`documents.jsonl` and `queries.jsonl` in a folder, which is made; of other queries there as of `write_pairs`.

    Raises:
        ConfigError: they cannot be written.
    """
    removed: dict[str, list[Span]] = {}
    for pair in side.pairs:
        if pair.remove is not None:
            removed.setdefault(pair.doc_id, []).append(pair.remove)
    cuts = {doc_id: Cuts(sorted(spans)) for doc_id, spans in removed.items()}
    _write(
        folder / DOCUMENTS,
        (
            {
                "doc_id": document.doc_id,
                "title": document.title,
                "text": cuts[document.doc_id].apply(document.text) if document.doc_id in cuts else document.text,
            }
            for document in side.documents
        ),
    )
    return _write(folder / QUERIES, (_moved(pair, cuts) for pair in side.pairs), keep=True)


def holds_pairs(folder: Path) -> bool:
    """Whether a folder has a set that `write_set` wrote, whatever became of it since: its first query has the kind."""
    try:
        with (folder / QUERIES).open(encoding="utf-8") as stream:
            first = json.loads(stream.readline())
    except (OSError, ValueError):
        return False
    return isinstance(first, dict) and first.get("kind") in KINDS


def _moved(pair: Pair, cuts: Mapping[str, Cuts]) -> dict[str, Any]:
    values = pair.to_json()
    if pair.doc_id in cuts:
        cut = cuts[pair.doc_id]
        values |= {"start": cut.move(pair.start), "end": cut.move(pair.end)}
        values.pop("remove", None)
    return values


def _write(file: Path, rows: Iterable[Mapping[str, Any]], *, keep: bool = False) -> list[Path]:
    """Write rows; with `keep`, a file that says something else is kept by the name that is given back."""
    beside = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            with beside.open("w", encoding="utf-8", newline="\n") as stream:
                stream.writelines(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)
            kept = _kept_aside(file, beside) if keep else []
            beside.replace(file)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot write {file}: {error.strerror}") from None
    return kept


def _kept_aside(file: Path, new: Path) -> list[Path]:
    """A second name for a file that will be replaced by another, so that nothing is lost; none where they are equal."""
    if not file.exists() or filecmp.cmp(file, new, shallow=False):
        return []
    # Hidden, so that it is no document where pairs lie among those that they are about.
    names = (file.with_name(f".{file.name}.before{number or ''}") for number in count())
    aside = next(name for name in names if not name.exists())
    shutil.copy2(file, aside)
    return [aside]
