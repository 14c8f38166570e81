"""Evaluation: datasets, metrics, baselines, curves and reports. Ranks every chunk of a corpus exactly.

    dataset -> corpus (its chunks, and which of them are gold) -> scorer (a method) -> ranking -> metrics

Importing it is cheap: the libraries of the extra `eval` come in with the first run.
"""

from __future__ import annotations

from ctxindex.evaluation.configuration import RANKERS, Configuration, parse_configurations
from ctxindex.evaluation.corpus import Corpus, cut
from ctxindex.evaluation.dataset import Dataset, GoldSpan, Query
from ctxindex.evaluation.results import METRICS, Comparison, Estimate, Run

__all__ = [
    "METRICS",
    "RANKERS",
    "Comparison",
    "Configuration",
    "Corpus",
    "Dataset",
    "Estimate",
    "GoldSpan",
    "Query",
    "Run",
    "cut",
    "parse_configurations",
]
