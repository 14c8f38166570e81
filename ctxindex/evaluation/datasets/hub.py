"""Datasets of the hub: a name -> a folder on this machine. Knows the hub; no format."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from ctxindex.errors import UnreachableError
from ctxindex.evaluation.dataset import DatasetError

_NAME: Final = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_FILES: Final = ("*.parquet", "*.jsonl", "*.jsonl.gz", "*.tsv", "README.md")


def is_hub_name(name: str) -> bool:
    """Whether a name has the form owner/name."""
    return _NAME.fullmatch(name) is not None


def download(name: str) -> Path:
    """The folder of a dataset of the hub, from the cache where it was downloaded before.

    Raises:
        DatasetError: the hub has no such dataset, or not for everybody.
        UnreachableError: the hub can't be reached.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

    try:
        return Path(snapshot_download(name, repo_type="dataset", allow_patterns=list(_FILES)))
    except (HFValidationError, RepositoryNotFoundError) as error:
        raise DatasetError(
            f"{name!r} is neither a file or folder here nor a dataset on the hub that can be read ({_reason(error)}); "
            "for one that is private or gated, set HF_TOKEN"
        ) from None
    except Exception as error:  # the hub's client raises many kinds, from several libraries, for one fact
        raise UnreachableError(
            f"there is no file or folder {name!r} here, and the dataset of that name can't be had from the hub "
            f"({_reason(error)}); where there is a network, run hf download {name} --repo-type dataset "
            f"--local-dir DIR, and give DIR"
        ) from None


def _reason(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).split("\n")[0]
