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


_PLAINLY = (
    "Plainly: **the corpus context gains nothing here; the training gains much on one of the two sets.** With 200 "
    "steps on pairs, factbook-eval rises from 76.9 to 82 or 83, whoever has a context: `clusters` finds the same in "
    "its corpus, in the other and in none, and `null`, which never had one, finds it too. Of that gain random batches "
    "of the same pairs have all but a point, and the filter none (one seed each). On medquad-eval-masked nearly "
    "everything was found before: `clusters` is 0.8 behind minilm-insent on these documents, and 0.4 ahead on all of "
    "the set (seed 0: 98.3, minilm-insent 97.9). It costs where a question needs no document: squad-eval 71.0 "
    "(minilm-insent 76.9), covidqa-eval 52.0 (54.9), all of both sets, seed 0 in its corpus (`ctxindex eval`); `null` "
    "finds 98.3, 71.2 and 51.9 on these three sets. Both sets stay sixty points ahead of MiniLM on each chunk alone. "
    "Read in its corpus without its document (contextual document embeddings as they were published), a chunk finds "
    "17.7 and 36.1: the document is what counts.",
    "With the InSeNT loss on half of the weight (`insent`, one seed) the same pairs find a little more on both sets, "
    "again whoever has a context: 83.0 in its corpus, 83.3 in none, and 83.1 for `insent-null`, which never had one; "
    "99.2 for all of them. It costs as much elsewhere: `insent-null` finds 71.3 on squad-eval and 51.0 on covidqa-eval "
    "(all of both sets).",
    "Why: a context does not make the task of training easier. The loss of the last fifty steps is 0.393, 0.373 and "
    "0.334 for the three seeds of `clusters`, and 0.394, 0.373 and 0.335 for those of `null` on the same batches. "
    "What is learnt is to look past it: the bias falls alike in both, and vectors end where they would be without "
    "(table below). A context that counts for seven times as much from the start (`strong`) is not learnt away in so "
    "few steps (its bias falls from 2 to 1.6), and costs most of what the training gains. And what the documents of a "
    "set have in common does not stand in the way of finding: taking it away altogether gains nothing (last column "
    "below). So no `minilm-cde` comes with ctxindex: it would take a quarter more time, its gain is to be had without "
    "a context, and it loses three and six points elsewhere. Nothing is said here of models that are trained for "
    "longer, on more, or in a context from their first day.",
)


def section(rows: Mapping[str, Any] | None, effect: Mapping[str, Any] | None) -> list[str]:
    """Heading, tables and words, as far as they were measured."""
    if rows is None:
        return []
    found = [
        "## In the context of a corpus (nDCG@10)",
        ndcg_table(rows["sets"], rows["runs"]),
        rows["about"],
        *_PLAINLY,
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
