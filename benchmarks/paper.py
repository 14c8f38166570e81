"""What of the paper's findings is found here as well: a section of docs/results.md.

A claim is one that "Context is Gold to find the Gold Passage" (arXiv 2505.24782, tables 2 and 4, figure 3) makes with
figures. Beside it stands the same comparison with what was measured here, and whether both point the same way. Nothing
but the direction is judged: model, data and sets are others. A claim whose figures were not all measured is left out.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.rows import Row

UNTRAINED, ALONE = "late", "independent"
ANCHORED = "late,anchor=64,anchor-title"
PLAIN = "InSeNT, lambda 0.3"
"""The variant of `ablations.py` that the others are compared with."""
LAMBDAS = ("0", "0.1", "0.3", "0.5", "1")
FLATTENED = "+Training: every chunk alone"
MENDING = ("with replay", "merged, three quarters")
EXTRACTIVE, SHORT = "covidqa-eval", "squad-eval"
"""Sets whose questions repeat the words of the answer, and whose passages need no document."""


@dataclass(frozen=True)
class Found:
    """nDCG@10 in points of 100: of configurations by set, and of variants of `ablations.py` on the sets of that."""

    rows: Mapping[tuple[str, str], Row]
    variants: Mapping[str, Mapping[str, float]]

    def point(self, name: str, dataset: str) -> float:
        """A configuration on one set."""
        return 100 * self.rows[dataset, name].ndcg

    def mean(self, name: str, sets: Sequence[str] = ()) -> float:
        """A configuration on some sets, or on all."""
        every = sets or tuple(dict.fromkeys(dataset for dataset, _ in self.rows))
        return statistics.fmean(self.point(name, dataset) for dataset in every)

    def variant(self, name: str, dataset: str = "") -> float:
        """A variant on one set, or the mean over all that variants were scored on."""
        found = self.variants[name]
        return 100 * (found[dataset] if dataset else statistics.fmean(found.values()))

    @property
    def sets(self) -> tuple[str, ...]:
        """What variants were scored on."""
        return tuple(self.variants[PLAIN])


@dataclass(frozen=True)
class Claim:
    """What the paper finds, its figures, and what says ours and whether they agree."""

    text: str
    theirs: str
    ours: Callable[[Found], tuple[str, bool]]
    needs: frozenset[str] = frozenset()
    """Variants without which nothing is said."""


def _trained(found: Found) -> tuple[str, bool]:
    before, after = found.mean(ANCHORED, found.sets), found.variant(PLAIN)
    told = f"{before:.1f} -> {after:.1f} (with anchor and title, lambda 0.3, no blend)"
    return told, after > before


def _untrained(found: Found) -> tuple[str, bool]:
    alone, late, anchored = found.mean(ALONE), found.mean(UNTRAINED), found.mean(ANCHORED)
    return f"{alone:.1f} -> {late:.1f} (with anchor and title {anchored:.1f})", late > alone


def _extractive(found: Found) -> tuple[str, bool]:
    alone, late = found.point(ALONE, EXTRACTIVE), found.point(UNTRAINED, EXTRACTIVE)
    return f"{alone:.1f} -> {late:.1f} ({EXTRACTIVE})", late < alone


def _flattened(found: Found) -> tuple[str, bool]:
    before, after = found.mean(ALONE, found.sets), found.variant(FLATTENED)
    return f"{before:.1f} -> {after:.1f}", after < before


def _lambdas(found: Found) -> tuple[str, bool]:
    means = {value: found.variant(f"InSeNT, lambda {value}") for value in LAMBDAS}
    told = ", ".join(f"{value}: {mean:.1f}" for value, mean in means.items())
    worst = sorted(means, key=lambda value: means[value])[:2]
    return told, set(worst) == {LAMBDAS[0], LAMBDAS[-1]}


def _best_lambda(found: Found) -> tuple[str, bool]:
    best = {
        dataset: max(LAMBDAS, key=lambda value: found.variant(f"InSeNT, lambda {value}", dataset))
        for dataset in found.sets
    }
    return ", ".join(f"{dataset}: {value}" for dataset, value in best.items()), len(set(best.values())) > 1


def _harm(found: Found) -> tuple[str, bool]:
    before, after = found.point(ANCHORED, SHORT), found.variant("InSeNT, lambda 0.1", SHORT)
    told = f"{before:.1f} -> {after:.1f} ({SHORT}, lambda 0.1; each chunk alone {found.point(ALONE, SHORT):.1f})"
    return told, after < before


def _mended(found: Found) -> tuple[str, bool]:
    before = found.variant(PLAIN, SHORT)
    after = {name: found.variant(name, SHORT) for name in MENDING}
    told = ", ".join(f"{name} {value:.1f}" for name, value in after.items())
    return f"{before:.1f} -> {told} ({SHORT}, lambda 0.3)", min(after.values()) > before


_SWEPT = frozenset(f"InSeNT, lambda {value}" for value in LAMBDAS)
CLAIMS = (
    Claim("Training makes late chunking work", "61.0 -> 75.6", _trained, frozenset({PLAIN})),
    Claim("Late chunking without training is ahead of chunks embedded alone", "52.0 -> 61.0", _untrained),
    Claim("... but loses where questions repeat the words of the answer", "61.7 -> 40.0 (Covid-QA)", _extractive),
    Claim(
        "Training on the same data with every chunk alone finds less than no training",
        "52.0 -> 50.1",
        _flattened,
        frozenset({PLAIN, FLATTENED}),
    ),
    Claim("lambda 0 and lambda 1 are the worst", "a figure without numbers", _lambdas, _SWEPT),
    Claim("Which lambda is best depends on the set", "a figure without numbers", _best_lambda, _SWEPT),
    Claim("Training costs where no context is needed", "63.2 -> 60.4 (NanoBEIR)", _harm, _SWEPT),
    Claim("Replay or merging would help against that", "a suggestion", _mended, frozenset({PLAIN, *MENDING})),
)


def section(rows: Mapping[tuple[str, str], Row], ablations: Mapping[str, Any] | None) -> list[str]:
    """The section, as parts of the page; none where nothing was measured."""
    variants = {one["name"]: one["ndcg@10"] for one in ablations["runs"]} if ablations else {}
    found = Found(rows, variants)
    lines = []
    for claim in CLAIMS if rows else ():
        if not claim.needs <= variants.keys():
            continue
        ours, agrees = claim.ours(found)
        lines.append(f"| {claim.text} | {claim.theirs} | {ours} | {'yes' if agrees else '**no**'} |")
    if not lines:
        return []
    head = "| what the paper finds | there | here | the same way |\n| --- | --- | --- | --- |\n"
    return ["## What the paper finds, and what is found here", head + "\n".join(lines), ABOUT]


ABOUT = (
    "Means over eight sets there, over seven here; where a training is compared (`benchmarks/ablations.py`), over the"
    " four sets that it is scored on. The paper's base is ModernBERT-large (395 M parameters, 8,192 tokens: most "
    "documents are one window), trained on 307,241 queries; MiniLM has 22 M parameters and windows of 512 tokens, and"
    " read 18,000 at most and 6,000 "
    "clozes (what ships), or 7,200 and none (a training of the table). A later window of so few tokens knows nothing "
    "of its document, unless anchor and title are"
    " put before it: without them training for context has little to learn from, and late chunking without training "
    "finds less than chunks alone. The training on chunks alone has 32 chunks and 24 queries a step at most, where the "
    "paper's has more than a hundred pairs; it gains on contracts and medquad-eval-masked, and loses in the mean (one "
    "seed). Not compared: NanoBEIR and ConTEB itself (no hub at hand), a context that a "
    "language model writes, and late interaction, of which no trained base was at hand either."
)
