"""What an evaluation gives: estimates with intervals, the values they are made of, and comparisons.

Numbers and names only: nothing here knows how a corpus was ranked or how results are shown. Values lie between 0 and 1,
as the metrics define them; people are shown points of 100.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from ctxindex.evaluation.configuration import Configuration
    from ctxindex.evaluation.corpus import Corpus

    Values = npt.NDArray[np.float64]
    Numbers = npt.NDArray[np.int64]

METRICS = (
    "ndcg@10",
    "recall@1",
    "recall@5",
    "recall@10",
    "mrr@10",
    "document_hit@1",
    "document_hit@5",
    "document_hit@10",
)
"""In the order in which they are shown. A document hit: one of the first k documents, ranked by their best chunks,
holds an answer."""

POSITIONS = 10
"""Parts of equal length that documents are divided in, to see quality by position."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over queries and its 95 % interval, of a bootstrap over queries."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class SweepPoint:
    """Where on a curve a run stands: `name` is what was varied, `value` how; `seed` drew the sub-corpus, if any."""

    name: str
    value: float
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Ranking:
    """The best of every query, best first.

    `chunks` is (queries, depth) int64, chunk numbers, -1 where nothing more was found; `scores` the same shape,
    float32. `gold_rank` is (queries,) int64: the place, from 1, of the gold chunk that is ranked first among all chunks
    (of the gold document among all documents, where documents are ranked), or 0 where none was found.
    """

    chunks: Numbers
    scores: npt.NDArray[np.float32]
    gold_rank: Numbers


@dataclass(frozen=True)
class Run:
    """One configuration on one corpus.

    `metrics` has an estimate and `values` the (queries,) float64 behind it, for each of `METRICS`. `seconds` are of
    wall time: `load` until the model is there, `read` to put together what is read of each chunk (a language model may
    write it), `index` to make everything else ready for queries, `search` to encode all queries and rank all chunks for
    them. Vectors read from a cache count with the time they took when they were made; where that was on another device,
    or nobody knows, `index` is not a number.
    `cached` counts chunks whose vectors came from a cache. `failed` are documents that gave no vectors, and why.
    """

    corpus: Corpus
    configuration: Configuration
    model: str
    values: Mapping[str, Values]
    metrics: Mapping[str, Estimate]
    ranking: Ranking
    seconds: Mapping[str, float]
    cached: int = 0
    failed: Mapping[str, str] = field(default_factory=dict)
    point: SweepPoint | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What the configuration is called."""
        return self.configuration.name

    @property
    def queries_per_second(self) -> float:
        """Queries encoded and answered in a second."""
        return len(self.corpus.queries) / max(self.seconds["search"], 1e-9)

    def positions(self, metric: str = "ndcg@10") -> list[tuple[float, float, int, float]]:
        """(from, to, queries, mean) of a metric, by where in their documents the gold chunks stand.

        Queries about documents of a single chunk have no position and are left out.
        """
        places = np.array([self.corpus.position(query) for query in range(len(self.corpus.queries))])
        known = ~np.isnan(places)
        part = np.minimum((places[known] * POSITIONS).astype(np.int64), POSITIONS - 1)
        values = self.values[metric][known]
        return [
            (number / POSITIONS, (number + 1) / POSITIONS, int(here.sum()), float(values[here].mean()))
            for number in range(POSITIONS)
            if (here := part == number).any()
        ]


@dataclass(frozen=True, slots=True)
class Comparison:
    """A run against a baseline on the same chunks and queries: the mean of paired differences in a metric.

    `difference` has the 95 % interval of a bootstrap over queries. `p` is two-sided, of a paired randomisation test;
    `p_holm` is corrected (Holm 1979) for all comparisons of this metric on the corpus.
    """

    dataset: str
    name: str
    baseline: str
    metric: str
    difference: Estimate
    p: float
    p_holm: float
