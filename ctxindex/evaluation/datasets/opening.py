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
from ctxindex.evaluation.datasets.questions import documents_beside, holds_questions, open_questions
from ctxindex.evaluation.datasets.spans import is_spans, open_spans

_FORMATS: Final = (
    "a folder with documents.jsonl and queries.jsonl, one with documents and queries in parquet (ConTEB), one with "
    "corpus.jsonl, queries.jsonl and qrels (BEIR), a dataset on the hub as owner/name, or any documents with "
)

_SHOWN: Final = 3
"""Sets that a message names."""


def open_dataset(name: str, *, questions: str | None = None, training: bool = False) -> Dataset:
    """The dataset that `name` says; a name that is no path here is looked for on the hub.

    Args:
        name: a folder in one of the formats, or owner/name on the hub.
        questions: a file of questions about the documents in the file or folder `name`, which then need no format.
        training: messages name the flag for such a file that training has.

    Raises:
        DatasetError: it is in no known format, or not as its format has it.
        DuplicateDocumentError: two documents would have one name.
        UnreachableError: it would have to come from the hub, which can't be reached.
    """
    formats = f"{_FORMATS}{'--pairs' if training else '--questions'} FILE"
    if not name:
        raise DatasetError(f"the name of a dataset is empty: expected {formats}")
    path = Path(name)
    if questions is not None:
        if not path.exists():
            raise DatasetError(f"there is no file or folder {name!r} to ask the questions of {questions!r} about")
        return open_questions(questions, documents_beside(name, questions), name_of(name))
    folder, called = path, name_of(name)
    if not path.exists():
        if not is_hub_name(name):
            raise DatasetError(f"no such dataset: {name!r}; expected {formats}")
        folder, called = download(name), name
    found = _opened(folder, called)
    if found is None:
        # What lies in a folder of the hub's cache has no name that could be given here.
        advice = _advice(path, name, training=training) if folder is path else ""
        raise DatasetError(advice or f"{name} is no dataset: expected {formats}")
    return found


def _opened(folder: Path, name: str) -> Dataset | None:
    """None where the folder is in no format."""
    if is_beir(folder):
        return open_beir(folder, name)
    if is_conteb(folder):  # before spans: its files may have the same names, with chunks in them
        return open_conteb(folder, name)
    return open_spans(folder, name) if is_spans(folder) else None


def _advice(path: Path, given: str, *, training: bool) -> str:
    """What to give in the place of something that is no dataset, where that can be told."""
    if holds_questions(path):
        if training:
            # Nobody knows here which argument it was given as.
            return (
                f"{given} is a file of questions: to train on them, give the documents as DATA and this file with "
                "--pairs; --validation and --replay take sets, as ctxindex pairs --out DIR writes them"
            )
        return f"{given} is a file of questions: give the documents, and this file with --questions (finetune: --pairs)"
    # What is trained on comes first: held-out lies beside it.
    inside = sorted(path.iterdir(), key=lambda one: (one.name != "train", one.name)) if path.is_dir() else []
    sets = [f"{given.rstrip('/')}/{one.name}" for one in inside if one.is_dir() and is_spans(one)]
    return f"{given} is no dataset, but has some in it: give {' or '.join(sets[:_SHOWN])}" if sets else ""


def is_dataset(name: str) -> bool:
    """Whether the folder of that name is in one of the formats."""
    folder = Path(name)
    return folder.is_dir() and (is_beir(folder) or is_conteb(folder) or is_spans(folder))


def name_of(path: str) -> str:
    """What a file or folder is called, wherever it is looked at from; links keep their own name."""
    absolute = os.path.abspath(path)
    return os.path.basename(absolute) or absolute
