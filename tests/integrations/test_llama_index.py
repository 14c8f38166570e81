"""The retriever in a real LlamaIndex query engine, over a real index; the language model alone is LlamaIndex's mock."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.response_synthesizers import get_response_synthesizer
from llama_index.core.schema import NodeRelationship, QueryBundle, TextNode
from llama_index.core.vector_stores import FilterCondition, FilterOperator, MetadataFilter, MetadataFilters

from ctxindex import Index
from ctxindex.errors import UsageError
from ctxindex.integrations.llama_index import CtxIndexRetriever
from ctxindex.integrations.llama_index.filters import translate
from ctxindex.stores.filters import matches

QUESTION = "Which law governs the endorsement agreement with Andy North?"


@pytest.fixture(scope="module")
def index(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    with Index.open("contracts", path=tmp_path_factory.mktemp("db"), device="cpu") as opened:
        opened.ingest(*sorted(samples.glob("*.txt"))[:5])
        yield opened


def test_nodes_are_chunks(index: Index) -> None:
    retriever = index.as_retriever(similarity_top_k=4)
    assert isinstance(retriever, BaseRetriever)
    nodes = retriever.retrieve(QUESTION)
    hits = index.search(QUESTION, k=4)
    assert [node.node_id for node in nodes] == [hit.chunk_id for hit in hits]
    scores = [node.score or 0.0 for node in nodes]
    assert scores == sorted(scores, reverse=True)
    for found, hit in zip(nodes, hits, strict=True):
        node = found.node
        assert isinstance(node, TextNode)
        assert (node.text, node.start_char_idx, node.end_char_idx) == (hit.text, hit.start, hit.end)
        assert node.ref_doc_id == node.metadata["doc_id"] == hit.doc_id
        assert node.get_content(metadata_mode="embed") == hit.text  # type: ignore[arg-type]  # a plain string is taken


def test_relationships_name_the_chunks_beside(index: Index) -> None:
    for found in index.as_retriever(similarity_top_k=20).retrieve(QUESTION):
        chunks = index.chunks(found.node.metadata["doc_id"])
        ids: list[str | None] = [None, *(chunk.chunk_id for chunk in chunks), None]
        place = ids.index(found.node_id)
        related = {side: info.node_id for side, info in found.node.relationships.items()}  # type: ignore[union-attr]
        assert related.get(NodeRelationship.PREVIOUS) == ids[place - 1]
        assert related.get(NodeRelationship.NEXT) == ids[place + 1]


def test_async_leaves_the_event_loop_free(index: Index) -> None:
    retriever = index.as_retriever()
    threads: set[int] = set()
    nearest = retriever._searcher.nearest

    def spy(*arguments: object) -> object:
        threads.add(threading.get_ident())
        return nearest(*arguments)  # type: ignore[arg-type]

    retriever._searcher.nearest = spy  # type: ignore[method-assign, assignment]

    async def ask() -> list[list[str]]:
        answers = await asyncio.gather(*(retriever.aretrieve(QUESTION) for _ in range(4)))
        return [[node.node_id for node in nodes] for nodes in answers]

    answers = asyncio.run(ask())
    assert threading.get_ident() not in threads
    assert all(answer == [hit.chunk_id for hit in index.search(QUESTION)] for answer in answers)


def test_metadata_filters_and_doc_ids_apply(index: Index) -> None:
    names = [record.doc_id for record in index.records()]
    wanted = MetadataFilters(filters=[MetadataFilter(key="file_name", value=names[0])])
    assert {node.metadata["doc_id"] for node in index.as_retriever(filters=wanted).retrieve(QUESTION)} == {names[0]}
    some = index.as_retriever(similarity_top_k=30, doc_ids=names[:2]).retrieve(QUESTION)
    assert {node.metadata["doc_id"] for node in some} == set(names[:2])


def test_an_embedding_or_other_texts_of_the_query_are_used(index: Index) -> None:
    retriever = index.as_retriever()
    vector = index.searcher().vector("consultant paid per hour")
    expected = [hit.chunk_id for hit in index.search("consultant paid per hour")]
    by_vector = retriever.retrieve(QueryBundle("ignored", embedding=vector.tolist()))
    assert [node.node_id for node in by_vector] == expected
    texts = ["consultant paid per hour", "hourly rate"]
    mean = np.mean([index.searcher().vector(text) for text in texts], axis=0)
    by_texts = retriever.retrieve(QueryBundle("ignored", custom_embedding_strs=texts))
    assert [node.node_id for node in by_texts] == [hit.chunk_id for hit in index.searcher().nearest(mean, 5)]


def test_it_works_in_a_query_engine(index: Index) -> None:
    synthesizer = get_response_synthesizer(llm=MockLLM())
    engine = RetrieverQueryEngine(retriever=index.as_retriever(similarity_top_k=2), response_synthesizer=synthesizer)
    response = engine.query(QUESTION)
    assert len(response.source_nodes) == 2
    # The mock answers with its prompt, in which the passages must stand.
    assert response.source_nodes[0].node.get_content() in str(response)


def test_the_retriever_takes_a_searcher(index: Index) -> None:
    assert len(CtxIndexRetriever(index.searcher(), similarity_top_k=3).retrieve(QUESTION)) == 3


OPERATORS = [
    (FilterOperator.EQ, 3, True),
    (FilterOperator.NE, 3, False),
    (FilterOperator.GT, 2, True),
    (FilterOperator.GTE, 4, False),
    (FilterOperator.LT, 4, True),
    (FilterOperator.LTE, 2, False),
    (FilterOperator.IN, [1, 3], True),
    (FilterOperator.NIN, [1, 3], False),
    (FilterOperator.IS_EMPTY, None, False),
]


@pytest.mark.parametrize(("operator", "value", "holds"), OPERATORS)
def test_operators_keep_their_meaning(operator: FilterOperator, value: object, holds: bool) -> None:
    filters = MetadataFilters(filters=[MetadataFilter(key="page", value=value, operator=operator)])  # type: ignore[arg-type]
    assert matches(translate(filters), {"page": 3}) is holds


@pytest.mark.parametrize(
    ("operator", "value", "holds"),
    [
        (FilterOperator.CONTAINS, "tax", True),
        (FilterOperator.ANY, ["law", "tax"], True),
        (FilterOperator.ALL, ["law", "tax"], False),
        (FilterOperator.ALL, ["tax", "legal"], True),
    ],
)
def test_operators_on_lists_keep_their_meaning(operator: FilterOperator, value: object, holds: bool) -> None:
    filters = MetadataFilters(filters=[MetadataFilter(key="tags", value=value, operator=operator)])  # type: ignore[arg-type]
    assert matches(translate(filters), {"tags": ["tax", "legal"]}) is holds


@pytest.mark.parametrize(
    ("condition", "holds"), [(FilterCondition.AND, False), (FilterCondition.OR, True), (FilterCondition.NOT, False)]
)
def test_conditions_compose(condition: FilterCondition, holds: bool) -> None:
    parts = [MetadataFilter(key="page", value=3), MetadataFilters(filters=[MetadataFilter(key="page", value=4)])]
    assert matches(translate(MetadataFilters(filters=parts, condition=condition)), {"page": 3}) is holds  # type: ignore[arg-type]


def test_text_matching_is_refused_by_name() -> None:
    filters = MetadataFilters(filters=[MetadataFilter(key="text", value="x", operator=FilterOperator.TEXT_MATCH)])
    with pytest.raises(UsageError, match="text_match"):
        translate(filters)
    assert translate(None) is None
