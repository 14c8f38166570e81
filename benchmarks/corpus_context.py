"""What a corpus context gains, in docs/results.md: the rows of `cde_rows.py`, and below them what `cde_effect.py` saw.

Knows how it is shown, and nothing of models: what was measured is read from the files of the two.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.tables import ndcg_table, with_interval

OWN, ANOTHER, NONE = "its corpus", "another corpus", "no corpus"
"""Contexts that a model is read in."""

_EFFECT = (
    "What the context does to what a model says: the learnt bias of context scores (mean over layers, from its start "
    "to its end); the mean cosine of chunks read in their corpus and in none; for how many questions another chunk "
    "comes first; and nDCG@10 in the corpus less in none, and less in the other set, with 95 % intervals of a "
    "bootstrap over questions. The last column needs no context: the mean of the set's vectors taken away from all of "
    "them, which is the least that anybody could do who knew the corpus (`python benchmarks/cde_effect.py`)."
)


def section(rows: Mapping[str, Any] | None, effect: Mapping[str, Any] | None) -> list[str]:
    """Heading, tables and words, as far as they were measured."""
    if rows is None:
        return []
    found = [
        "## In the context of a corpus (nDCG@10)",
        ndcg_table(rows["sets"], rows["runs"]),
        rows["about"],
    ]
    if effect is None:
        return found
    models = effect["models"]
    of = sorted({one["documents"] for one in models.values()}, key=str)
    told = [f"the first {count} documents" if count else "all documents" for count in of]
    return [*found, "\n".join(effect_lines(models)), f"{_EFFECT} Of each set {' or '.join(told)}."]


def effect_lines(found: Mapping[str, Any]) -> Iterator[str]:
    """A table in Markdown: a line for each model and set."""
    yield "| | set | bias | cosine to none | other first chunk | own less none | own less another | mean taken away |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
    for name, measured in found.items():
        for dataset, one in measured["sets"].items():
            none, another = one["against"][NONE], one["against"][ANOTHER]
            cells = [
                f"{none['cosine of chunks']:.3f}",
                f"{100 * none['other first chunk']:.1f} %",
                *(with_interval(value, 2) for value in (none["difference"], another["difference"], one["centred"])),
            ]
            moved = f"{measured['bias']['before']:+.2f} to {measured['bias']['after']:+.2f}"
            yield f"| {name} | {dataset} | {moved} | {' | '.join(cells)} |"
