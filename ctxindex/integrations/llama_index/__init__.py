"""LlamaIndex components. The only room that imports LlamaIndex."""

from __future__ import annotations

from ctxindex.integrations.llama_index.generator import LlamaIndexGenerator, open_generator
from ctxindex.integrations.llama_index.retriever import CtxIndexRetriever

__all__ = ["CtxIndexRetriever", "LlamaIndexGenerator", "open_generator"]
