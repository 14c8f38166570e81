"""Datasets: what files and folders hold -> `Dataset`. One module a format; `open_dataset` tells them apart.

    spans        documents.jsonl + queries.jsonl; an answer is a span of characters
    conteb       the sets of ConTEB on the hub: documents and queries in parquet; an answer is a chunk
    beir         corpus.jsonl + queries.jsonl + qrels/*.tsv; an answer is a document
    questions    a file of questions about any documents
    stored       a file of questions about an index, and the vectors in it

Importing it is cheap: the libraries that read parquet and talk to the hub come in with the first set that needs them.
"""

from __future__ import annotations

from ctxindex.evaluation.datasets.opening import open_dataset
from ctxindex.evaluation.datasets.questions import open_questions
from ctxindex.evaluation.datasets.stored import StoredVectors, open_index_questions

__all__ = ["StoredVectors", "open_dataset", "open_index_questions", "open_questions"]
