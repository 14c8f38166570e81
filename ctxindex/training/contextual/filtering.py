"""False negatives: documents of a batch that may answer a query although they are not its gold document.

In batches of pairs that are about the same, some documents answer queries of others. A frozen surrogate says which:
with g(q, d) its cosine, document j is no negative of query i where

    relative    g(q_i, d_j) >= g(q_i, d_i) + margin      it likes d_j as well as the gold
    absolute    g(q_i, d_j) >= margin

A negative margin of the relative rule leaves out more; the authors' is 0. Where a query has several golds, of which d_i
is one, the largest g(q_i, gold) stands for g(q_i, d_i): what is liked less than the best answer is not taken for one.
What belongs to a query itself, its gold and the hard negatives that were mined for it, is never left out by either.
Source: arXiv 2410.02525, the filtering of false negatives, and the authors' code; margins other than 0 of the relative
rule and several golds are ours.

What needs no surrogate (`known_positives`): a document with the very text of a gold, and a gold document of the same
query in another pair.

Rows are queries. Columns are documents: first the gold of each query, in the same order, then hard negatives.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from ctxindex.errors import ConfigError

if TYPE_CHECKING:
    import torch

Rule: TypeAlias = Literal["relative", "absolute", "none"]
RULES: tuple[Rule, ...] = get_args(Rule)


@dataclass(frozen=True, slots=True)
class FalseNegativeFilter:
    """A rule for what counts as a false negative; see the top of this file.

    Raises:
        ConfigError: no such rule, or a margin that is no number.
    """

    rule: Rule = "relative"
    margin: float = 0.0

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise ConfigError(f"filter {self.rule} is none of {', '.join(RULES)}")
        if not math.isfinite(self.margin):
            raise ConfigError(f"the margin of the filter, {self.margin}, must be a number")

    def removed(self, scores: torch.Tensor, hard: Sequence[int] = (), best: torch.Tensor | None = None) -> torch.Tensor:
        """What is left out of the loss.

        Args:
            scores: (queries, documents) of any floating dtype, the surrogate's cosines.
            hard: for each document behind the golds, the number of the query that it was mined for.
            best: (queries,), the largest score of each query with any of its golds; None where it has one.

        Returns:
            (queries, documents) bool, True where a document is no negative of a query.

        Raises:
            ValueError: the parts do not belong together, or scores are not numbers.
        """
        import torch

        queries, documents = scores.shape
        if documents != queries + len(hard):
            raise ValueError(
                f"scores of {queries} queries and {documents} documents, and {len(hard)} hard negatives: a document "
                "is the gold of a query, or a hard negative of one"
            )
        if not torch.isfinite(scores).all():
            raise ValueError("scores of the surrogate are not numbers")
        if self.rule == "none":
            return torch.zeros_like(scores, dtype=torch.bool)
        golds = scores.diagonal() if best is None else best
        least = golds[:, None] + self.margin if self.rule == "relative" else self.margin
        rows = torch.arange(queries, device=scores.device)
        owners = torch.cat([rows, torch.tensor(list(hard), dtype=rows.dtype, device=scores.device)])
        return (scores >= least) & (owners[None, :] != rows[:, None])


def known_positives(
    queries: Sequence[str], documents: Sequence[str], golds: Sequence[Collection[str]] = ()
) -> torch.Tensor:
    """What is known to answer a query beside its gold: the same text, another gold, or a gold of the same query.

    Case of queries is folded. A hard negative with the text of a gold is a mistake of the mining, and is among them.

    Args:
        queries: of the batch.
        documents: their golds in the same order, then hard negatives.
        golds: all texts that are known to answer each query, where it is more than one.

    Returns:
        (queries, documents) bool; never True for a query's own gold.
    """
    import torch

    answers: dict[str, set[str]] = defaultdict(set)
    asked = [query.casefold() for query in queries]
    for query, gold in zip(asked, documents, strict=False):
        answers[query].add(gold)
    for query, known in zip(asked, golds, strict=False):
        answers[query].update(known)
    places: dict[str, list[int]] = defaultdict(list)
    for number, document in enumerate(documents):
        places[document].append(number)
    found = torch.zeros(len(queries), len(documents), dtype=torch.bool)
    for row, query in enumerate(asked):
        found[row, [place for answer in answers[query] for place in places[answer]]] = True
    return found.fill_diagonal_(False)
