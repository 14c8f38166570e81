"""Every error ctxindex raises on purpose, in one tree.

    CtxIndexError                 exit 1   unexpected, or a failed check
    ├── UsageError                exit 2   the call, the configuration or the input paths are wrong
    │   ├── ConfigError                    a value in a flag, a variable or ctxindex.toml
    │   └── DuplicateDocumentError         two sources claim one doc_id
    ├── UnreachableError          exit 4   something outside this process cannot be used
    │   ├── StoreError                     the vector database
    │   │   └── IndexNotFoundError         the database answers, but holds no such index
    │   ├── ModelError                     the model's files
    │   ├── GenerationError                the language model that writes contexts and queries
    │   └── MissingDependencyError         an optional package; names the pip install
    └── MismatchError             exit 5   the index was built with another spec

Messages are written for the person at the terminal: what is wrong, then what to do. One more exception,
`DocumentError`, never leaves a run: it carries the reason why one document failed into that document's record.
Exit code 3 (finished, but some documents failed) and 130 (interrupted) are outcomes, not errors.
"""

from __future__ import annotations


class CtxIndexError(Exception):
    """Base of all errors that ctxindex raises on purpose; `exit_code` is what the command line exits with."""

    exit_code = 1


class UsageError(CtxIndexError):
    """The call, the configuration or the paths given cannot be carried out as they are."""

    exit_code = 2


class ConfigError(UsageError):
    """A configured value is not usable; the message names where the value came from."""


class DuplicateDocumentError(UsageError):
    """Two sources of one run have the same doc_id."""


class UnreachableError(CtxIndexError):
    """A store, a model or a package outside this process cannot be reached."""

    exit_code = 4


class StoreError(UnreachableError):
    """The vector database cannot be opened, or refused a request."""


class IndexNotFoundError(StoreError):
    """The store holds no index of that name."""


class ModelError(UnreachableError):
    """The model's files are missing, damaged, or of a layout that cannot be used for the method asked for."""


class GenerationError(UnreachableError):
    """The language model behind a text generator cannot be reached, refuses, or gives no answer that can be read."""


class MissingDependencyError(UnreachableError):
    """An optional package is not installed."""

    def __init__(self, package: str, *, extra: str, purpose: str) -> None:
        self.package = package
        self.extra = extra
        super().__init__(f"{purpose} needs the package {package}: pip install 'ctxindex[{extra}]'")


class MismatchError(CtxIndexError):
    """The index was built with another spec than the one asked for."""

    exit_code = 5


class DocumentError(Exception):
    """Why one document could not be loaded, chunked or encoded. Recorded, never fatal to a run.

    `transient` says that the cause lies outside the file (a missing package, a permission), so that the next run
    tries again although the file has not changed.
    """

    def __init__(self, reason: str, *, transient: bool = False) -> None:
        self.reason = reason
        self.transient = transient
        super().__init__(reason)
