"""Loading: files, folders and JSONL -> documents.

`find_sources` is the plan pass (which documents are there; no text is kept), `hash_source` tells whether one has
changed without parsing it, `load_source` reads one; `load_documents` does all of it in a stream. This room knows
nothing of chunks, models or stores. Parsers are imported when the first file of their kind is loaded.
"""

from __future__ import annotations

from ctxindex.loading.files import hash_source
from ctxindex.loading.ignoring import exact_glob, globs_of
from ctxindex.loading.load import load_documents, load_source
from ctxindex.loading.sources import find_sources
from ctxindex.loading.values import (
    LOADER_VERSION,
    Found,
    Loader,
    LoadOptions,
    Outcome,
    Parsed,
    SkippedSource,
    Source,
)

__all__ = [
    "LOADER_VERSION",
    "Found",
    "LoadOptions",
    "Loader",
    "Outcome",
    "Parsed",
    "SkippedSource",
    "Source",
    "exact_glob",
    "find_sources",
    "globs_of",
    "hash_source",
    "load_documents",
    "load_source",
]
