"""A LlamaIndex retriever over an index.

LlamaIndex's own path (splitter, then embed model, then vector store) cannot carry a document's context: an embed model
sees texts one by one. So documents come in through `ctxindex ingest`, and this retriever is how a LlamaIndex app asks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.callbacks import CallbackManager
from llama_index.core.schema import NodeRelationship, NodeWithScore, QueryBundle, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores import MetadataFilters

from ctxindex.integrations.llama_index.filters import translate
from ctxindex.retrieval import Searcher
from ctxindex.spec import chunk_id
from ctxindex.stores.filters import AllOf, Condition, Filter
from ctxindex.types import FloatArray, Hit

_NOT_FOR_THE_LLM = ("file_name", "file_type", "encoding", "page_end")
"""What repeats the doc_id, or says nothing to a reader."""


class CtxIndexRetriever(BaseRetriever):
    """Nodes for the chunks nearest to a query; `Index.as_retriever` makes one.

    A node's id is the chunk's id, its `start_char_idx` and `end_char_idx` the chunk's span in the document, its score
    the cosine similarity, or MaxSim in an index of late interaction (higher is better). SOURCE names the document by
    its doc_id, PREVIOUS and NEXT the chunks beside it. Metadata is shown to the LLM and
    never embedded: the document's context is in the vector already.

    Args:
        searcher: the search of an index.
        similarity_top_k: nodes to return.
        filters: conditions on metadata, and on `doc_id` and `title`.
        doc_ids: only chunks of these documents.
    """

    def __init__(
        self,
        searcher: Searcher,
        *,
        similarity_top_k: int = 5,
        filters: MetadataFilters | None = None,
        doc_ids: Sequence[str] | None = None,
        callback_manager: CallbackManager | None = None,
        verbose: bool = False,
    ) -> None:
        self.similarity_top_k = similarity_top_k
        self._searcher = searcher
        self._where = _where(filters, doc_ids)
        super().__init__(callback_manager=callback_manager, verbose=verbose)

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        hits = self._searcher.nearest(self._vector(query_bundle), self.similarity_top_k, self._where)
        counts = {
            record.doc_id: record.n_chunks for record in self._searcher.store.records({hit.doc_id for hit in hits})
        }
        return [NodeWithScore(node=_node(hit, counts.get(hit.doc_id, 0)), score=hit.score) for hit in hits]

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        # Encoding and the store's client are blocking code; in a thread, the event loop goes on meanwhile.
        return await asyncio.to_thread(self._retrieve, query_bundle)

    def _vector(self, query: QueryBundle) -> FloatArray:
        """The embedding that came with the query, or the mean over the texts it is to be embedded by.

        For late interaction, the vectors of all texts together: MaxSim is a sum over them.
        """
        if query.embedding is not None:
            return np.asarray(query.embedding, dtype=np.float32)
        texts = query.custom_embedding_strs or [query.query_str]
        vectors = [self._searcher.vector(text) for text in texts]
        if vectors[0].ndim == 2:
            return np.concatenate(vectors)
        mean: FloatArray = np.mean(vectors, axis=0, dtype=np.float32)
        return mean


def _where(filters: MetadataFilters | None, doc_ids: Sequence[str] | None) -> Filter | None:
    where = translate(filters)
    if doc_ids is None:
        return where
    documents = Condition("doc_id", "in", tuple(doc_ids))
    return documents if where is None else AllOf((where, documents))


def _node(hit: Hit, n_chunks: int) -> TextNode:
    metadata: dict[str, Any] = {"doc_id": hit.doc_id, **hit.metadata}
    if hit.title:
        metadata["title"] = hit.title
    neighbours = {NodeRelationship.PREVIOUS: hit.ordinal - 1, NodeRelationship.NEXT: hit.ordinal + 1}
    related = {
        side: RelatedNodeInfo(node_id=chunk_id(hit.doc_id, hit.revision, ordinal))
        for side, ordinal in neighbours.items()
        if 0 <= ordinal < n_chunks
    }
    return TextNode(
        id_=hit.chunk_id,
        text=hit.text,
        metadata=metadata,
        excluded_embed_metadata_keys=list(metadata),
        excluded_llm_metadata_keys=[key for key in _NOT_FOR_THE_LLM if key in metadata],
        start_char_idx=hit.start,
        end_char_idx=hit.end,
        relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id=hit.doc_id), **related},
    )
