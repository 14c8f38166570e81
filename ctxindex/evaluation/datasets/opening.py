"""Which format a dataset is in, and what it is called.

Knows the formats by the files that each of them has; reads none of them itself.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from ctxindex.evaluation.dataset import Dataset, DatasetError
from ctxindex.evaluation.datasets.spans import is_spans, open_spans

_FORMATS: Final = "a folder with documents.jsonl and queries.jsonl (or .jsonl.gz)"


def open_dataset(name: str, *, questions: str | None = None) -> Dataset:
    """The dataset that `name` says.

    Args:
        name: a folder in one of the formats.
        questions: a file of questions about the documents that `name` holds, which then need no format.

    Raises:
        DatasetError: it is in no known format, or not as the format has it.
    """
    folder = Path(name)
    if not name or not folder.exists():
        raise DatasetError(f"no such dataset: {name!r}; expected {_FORMATS}")
    if is_spans(folder):
        return open_spans(folder, name_of(name))
    raise DatasetError(f"{name} is no dataset: expected {_FORMATS}")


def name_of(path: str) -> str:
    """What a file or folder is called, wherever it is looked at from; links keep their own name."""
    absolute = os.path.abspath(path)
    return os.path.basename(absolute) or absolute
