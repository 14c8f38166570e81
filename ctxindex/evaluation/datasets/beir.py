"""BEIR folders: corpus.jsonl, queries.jsonl and qrels/SPLIT.tsv, the first two gzipped or not.

    corpus     {"_id", "title", "text"}; where the text is empty, the title is the text
    queries    {"_id", "text"}; only those with a relevant document are asked
    qrels      query-id, corpus-id and score, with tabs between them and a header

An answer is a document, with the score as its grade. A document with neither text nor title stays in the set; it gives
no chunk, so what it alone answers counts as not answered.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Final

from ctxindex.evaluation.dataset import Dataset, DatasetError, Query, check
from ctxindex.evaluation.datasets.rows import Row, jsonl_file, read_jsonl, read_lines
from ctxindex.loading.building import clean_title
from ctxindex.types import Document

_SPLITS: Final = ("test", "dev", "validation", "train")

_log = logging.getLogger("ctxindex")


def is_beir(folder: Path) -> bool:
    """Whether a folder has the corpus of this format."""
    return jsonl_file(folder, "corpus") is not None


def open_beir(folder: Path, name: str) -> Dataset:
    """The dataset in a folder of this format: its split `test`, or else `dev`, or else `train`.

    Judgments about documents or queries that the set does not have are dropped, with a warning, and so is a query
    that has no other.

    Raises:
        DatasetError: something in it can't be read, or makes no sense.
    """
    corpus_file = _present(jsonl_file(folder, "corpus"), "corpus.jsonl", folder)
    queries_file = _present(jsonl_file(folder, "queries"), "queries.jsonl", folder)
    splits = [folder / "qrels" / f"{split}.tsv" for split in _SPLITS]
    qrels_file = _present(next((path for path in splits if path.is_file()), None), "qrels/test.tsv", folder)
    documents = tuple(_document(row) for row in read_jsonl(corpus_file))
    texts = _texts(read_jsonl(queries_file))
    judged = _known(_judgments(qrels_file), {document.doc_id for document in documents}, texts, qrels_file)
    queries = tuple(Query(query_id, texts[query_id], grades=grades) for query_id, grades in judged.items())
    units = {document.doc_id: ((0, len(document.text)),) for document in documents}
    return check(Dataset(name, documents, queries, units))


def _present(path: Path | None, what: str, folder: Path) -> Path:
    if path is None:
        raise DatasetError(f"{folder} has the corpus.jsonl of a BEIR dataset, but no {what}")
    return path


def _document(row: Row) -> Document:
    title = clean_title(row.string("title")) if row.has("title") else None
    text = row.string("text")
    if not text.strip() and title is not None:
        return Document(row.identifier("_id"), title)
    return Document(row.identifier("_id"), text, title)


def _texts(rows: Iterable[Row]) -> dict[str, str]:
    texts: dict[str, str] = {}
    for row in rows:
        query_id, text = row.identifier("_id"), row.string("text")
        if texts.setdefault(query_id, text) != text:
            raise row.error(f"the query {query_id!r} has another text than in an earlier row")
    return texts


def _judgments(path: Path) -> dict[str, dict[str, int]]:
    """The grades of 1 and more, by query and document."""
    found: dict[str, dict[str, int]] = {}
    for position, (number, data) in enumerate(read_lines(path)):
        place = f"{path}, line {number}"
        try:
            query_id, doc_id, written = data.decode().split("\t")
        except UnicodeDecodeError as error:
            raise DatasetError(f"{place}: broken UTF-8 at byte {error.start} of the line") from None
        except ValueError:
            raise DatasetError(f"{place}: expected query-id, corpus-id and score with tabs between them") from None
        score = _score(written)
        if score is None:
            if position == 0:
                continue  # the header
            raise DatasetError(f"{place}: the score is {written!r}, not a whole number")
        if score > 0 and found.setdefault(query_id, {}).setdefault(doc_id, score) != score:
            raise DatasetError(f"{place}: {doc_id!r} has another score for {query_id!r} than in an earlier line")
    return found


def _score(written: str) -> int | None:
    try:
        value = float(written)
    except ValueError:
        return None
    return int(value) if value.is_integer() else None


def _known(
    judgments: Mapping[str, Mapping[str, int]], documents: Collection[str], queries: Collection[str], path: Path
) -> dict[str, dict[str, int]]:
    """The judgments about what the set has, which are all but a few in most sets; queries without any are left out."""
    kept: dict[str, dict[str, int]] = {}
    dropped = [0, 0]
    for query_id, grades in judgments.items():
        own = {doc_id: grade for doc_id, grade in grades.items() if doc_id in documents}
        if query_id not in queries:
            dropped[1] += len(grades)
            continue
        dropped[0] += len(grades) - len(own)
        if own:
            kept[query_id] = own
    if not kept:
        reason = "about queries and documents that the set has" if judgments else "positive"
        raise DatasetError(f"{path}: no judgment is {reason}")
    for number, what in zip(dropped, ("documents", "queries"), strict=True):
        if number:
            _log.warning("%s: %d judgments about %s that the set does not have were dropped", path, number, what)
    return kept
