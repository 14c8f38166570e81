"""A retrieval task of mteb whose data is in memory, of the structure that NanoBEIR's tasks have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from datasets import Dataset
from mteb.abstasks import AbsTaskRetrieval
from mteb.abstasks.task_metadata import TaskMetadata


class ContractsInMemory(AbsTaskRetrieval):
    """Retrieval of passages, with a corpus, queries and the right passage of each that are given to it."""

    metadata = TaskMetadata(
        name="ContractsInMemory",
        description="passages of contracts, by a few words of theirs",
        reference=None,
        dataset={"path": "memory", "revision": "1"},
        type="Retrieval",
        category="t2t",
        modalities=["text"],
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        main_score="ndcg_at_10",
        date=("2024-01-01", "2024-12-31"),
        domains=["Legal"],
        task_subtypes=[],
        license="cc-by-4.0",
        annotations_creators="derived",
        dialect=[],
        sample_creation="found",
        bibtex_citation="",
    )

    def __init__(self, corpus: Dataset, queries: Mapping[str, str], gold: Mapping[str, str]) -> None:
        super().__init__()
        self.given = (corpus, queries, gold)

    def load_data(self, *_: Any, **__: Any) -> None:
        corpus, queries, gold = self.given
        split = {
            "corpus": corpus,
            "queries": questions(queries),
            "relevant_docs": {query_id: {corpus_id: 1} for query_id, corpus_id in gold.items()},
            "top_ranked": None,
        }
        self.dataset = {"default": {"test": split}}  # type: ignore[dict-item]
        self.data_loaded = True


def questions(texts: Mapping[str, str]) -> Dataset:
    return Dataset.from_dict({"id": list(texts), "text": list(texts.values())})


def corpus_of(texts: Mapping[str, str], titles: Sequence[str] | None = None) -> Dataset:
    columns = {"id": list(texts), "text": list(texts.values())}
    return Dataset.from_dict(columns if titles is None else {**columns, "title": list(titles)})
