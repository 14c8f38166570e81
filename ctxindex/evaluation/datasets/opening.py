"""Which format a dataset is in, and what it is called.

Knows the formats by the files that each of them has; reads none of them itself.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from ctxindex.evaluation.dataset import Dataset, DatasetError
from ctxindex.evaluation.datasets.beir import is_beir, open_beir
from ctxindex.evaluation.datasets.conteb import is_conteb, open_conteb
from ctxindex.evaluation.datasets.hub import download, is_hub_name
from ctxindex.evaluation.datasets.questions import documents_beside, open_questions
from ctxindex.evaluation.datasets.spans import is_spans, open_spans

_FORMATS: Final = (
    "a folder with documents.jsonl and queries.jsonl, one with documents and queries in parquet (ConTEB), one with "
    "corpus.jsonl, queries.jsonl and qrels (BEIR), a dataset on the hub as owner/name, or any documents with "
    "--questions FILE"
)


def open_dataset(name: str, *, questions: str | None = None) -> Dataset:
    """The dataset that `name` says; a name that is no path here is looked for on the hub.

    Args:
        name: a folder in one of the formats, or owner/name on the hub.
        questions: a file of questions about the documents in the file or folder `name`, which then need no format.

    Raises:
        DatasetError: it is in no known format, or not as its format has it.
        DuplicateDocumentError: two documents would have one name.
        UnreachableError: it would have to come from the hub, which can't be reached.
    """
    if not name:
        raise DatasetError(f"the name of a dataset is empty: expected {_FORMATS}")
    path = Path(name)
    if questions is not None:
        if not path.exists():
            raise DatasetError(f"there is no file or folder {name!r} to ask the questions of {questions!r} about")
        return open_questions(questions, documents_beside(name, questions), name_of(name))
    if path.exists():
        return _of_folder(path, name, name_of(name))
    if is_hub_name(name):
        return _of_folder(download(name), name, name)
    raise DatasetError(f"no such dataset: {name!r}; expected {_FORMATS}")


def _of_folder(folder: Path, given: str, name: str) -> Dataset:
    if is_beir(folder):
        return open_beir(folder, name)
    if is_conteb(folder):  # before spans: its files may have the same names, with chunks in them
        return open_conteb(folder, name)
    if is_spans(folder):
        return open_spans(folder, name)
    raise DatasetError(f"{given} is no dataset: expected {_FORMATS}")


def is_dataset(name: str) -> bool:
    """Whether the folder of that name is in one of the formats."""
    folder = Path(name)
    return folder.is_dir() and (is_beir(folder) or is_conteb(folder) or is_spans(folder))


def name_of(path: str) -> str:
    """What a file or folder is called, wherever it is looked at from; links keep their own name."""
    absolute = os.path.abspath(path)
    return os.path.basename(absolute) or absolute
