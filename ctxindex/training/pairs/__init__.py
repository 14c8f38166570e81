"""Pairs: documents without questions -> queries with the spans that answer them.

    documents -> subjects, statistics -> candidates of each kind -> chosen, no two alike -> split by document -> files

One module a kind: `headings`, `definitions`, `sentences` and `cloze` need nothing but the documents, `generated` asks a
language model. Every query names what its document is about, because that is what a chunk in context can answer and a
chunk alone cannot. Importing it is cheap.
"""

from __future__ import annotations

from ctxindex.training.pairs.generate import OFFLINE, Drawn, PairOptions, draw
from ctxindex.training.pairs.generated import QueryWriter, most_tokens
from ctxindex.training.pairs.split import Split, split
from ctxindex.training.pairs.values import KINDS, Kind, Pair
from ctxindex.training.pairs.writing import holds_pairs, write_pairs, write_set

__all__ = [
    "KINDS",
    "OFFLINE",
    "Drawn",
    "Kind",
    "Pair",
    "PairOptions",
    "QueryWriter",
    "Split",
    "draw",
    "holds_pairs",
    "most_tokens",
    "split",
    "write_pairs",
    "write_set",
]
