"""ctxindex indexes documents, not chunks.

Every chunk is embedded together with the document around it, in one contextual pass, and the document is replaced as a
whole in a vector database. The public names are loaded when they are first used, so importing this package is cheap.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ctxindex.encoding import load_encoder
    from ctxindex.errors import CtxIndexError
    from ctxindex.index import Index
    from ctxindex.indexing import VerifyReport
    from ctxindex.loading import load_documents
    from ctxindex.reports import IndexStatus, IngestReport
    from ctxindex.types import Chunk, Document, FailedDocument, Hit

__version__ = "0.1.0"

_HOMES = {
    "Chunk": "ctxindex.types",
    "CtxIndexError": "ctxindex.errors",
    "Document": "ctxindex.types",
    "FailedDocument": "ctxindex.types",
    "Hit": "ctxindex.types",
    "Index": "ctxindex.index",
    "IndexStatus": "ctxindex.reports",
    "IngestReport": "ctxindex.reports",
    "VerifyReport": "ctxindex.indexing",
    "load_documents": "ctxindex.loading",
    "load_encoder": "ctxindex.encoding",
}

__all__ = [
    "Chunk",
    "CtxIndexError",
    "Document",
    "FailedDocument",
    "Hit",
    "Index",
    "IndexStatus",
    "IngestReport",
    "VerifyReport",
    "__version__",
    "load_documents",
    "load_encoder",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'ctxindex' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
