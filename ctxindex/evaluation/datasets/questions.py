"""Questions about documents that came without any: a JSONL file beside files, folders, or an index.

    {"query_id", "query", "doc_id", "start", "end"}     a line an answer; without a query_id, a line a question

Documents are called what `ingest` calls them, and `text[start:end]` is in the text that loading gives. An answer with
its words in `evidence` is looked for by them where its document has changed; `around` has the rest of cut ones. What a
row says to `remove` is cut out of its document, but for documents of an index, which holds it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from ctxindex.evaluation.dataset import Dataset, DatasetError, check
from ctxindex.evaluation.datasets.evidence import found_again
from ctxindex.evaluation.datasets.gathering import gather
from ctxindex.evaluation.datasets.removing import removed_by, without
from ctxindex.evaluation.datasets.rows import JSONL, Row, read_jsonl
from ctxindex.loading import exact_glob, load_documents
from ctxindex.types import Document, FailedDocument


def open_questions(file: str | Path, documents: Iterable[Document | FailedDocument], name: str) -> Dataset:
    """The questions in `file` about `documents`, as `load_documents` gives them.

    Documents that failed are named in `unreadable`, and questions about them stay unanswered.

    Raises:
        DatasetError: the file can't be read, or a question is about a document that is not there.
    """
    loaded: list[Document] = []
    failures: dict[str, str] = {}
    for one in documents:
        if isinstance(one, Document):
            loaded.append(one)
        else:
            failures[one.doc_id] = one.reason
    dataset, rows = with_questions(Dataset(name, tuple(loaded), (), unreadable=failures), file)
    return without(dataset, removed_by(rows, {document.doc_id: len(document.text) for document in loaded}))


def with_questions(dataset: Dataset, file: str | Path) -> tuple[Dataset, list[Row]]:
    """The dataset with the questions in `file`, whose answers are where its documents have them now, and their rows.

    Raises:
        DatasetError: the file can't be read, a question makes no sense, or no answer stands in its document any more.
    """
    rows = list(found_again(read_jsonl(Path(file)), dataset.documents, file))
    asked = gather(rows, numbered=True)
    return check(replace(dataset, queries=asked.queries()), asked.places), rows


def holds_questions(file: Path) -> bool:
    """Whether a file is one of questions about documents that are elsewhere."""
    if not file.is_file() or not file.name.endswith(JSONL):
        return False
    try:
        first = next(read_jsonl(file), None)
    except DatasetError:
        return False
    return first is not None and first.has("query")


def documents_beside(path: str, questions: str) -> Iterator[Document | FailedDocument]:
    """The documents in a file or folder, without the file of questions where it lies among them.

    Raises:
        UsageError: the path does not exist, or two documents have one name.
    """
    inside = os.path.relpath(os.path.abspath(questions), os.path.abspath(path))
    outside = inside == os.curdir or inside.split(os.sep)[0] == os.pardir
    return load_documents(path, exclude=() if outside else (exact_glob(inside),))
