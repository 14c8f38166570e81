"""Document -> chunks. langchain-text-splitters decides where to cut; the spans are ours, and exact by construction."""

from __future__ import annotations

from ctxindex.chunking.chunker import CHUNKERS, DEFAULT_CHUNK_SIZE, DEFAULT_CHUNKER, SpanChunker, load_chunker

__all__ = ["CHUNKERS", "DEFAULT_CHUNKER", "DEFAULT_CHUNK_SIZE", "SpanChunker", "load_chunker"]
