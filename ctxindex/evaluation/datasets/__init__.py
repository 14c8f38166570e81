"""Datasets: what files and folders hold -> `Dataset`. One module a format; `open_dataset` tells them apart.

    spans        documents.jsonl + queries.jsonl; an answer is a span of characters
    conteb       the sets of ConTEB on the hub: documents and queries in parquet; an answer is a chunk
    beir         corpus.jsonl + queries.jsonl + qrels/*.tsv; an answer is a document
    questions    a file of questions about any documents, or about those of an index

Importing it is cheap: the libraries that read parquet and talk to the hub come in with the first set that needs them.
"""

from __future__ import annotations

from ctxindex.evaluation.datasets.opening import open_dataset

__all__ = ["open_dataset"]
