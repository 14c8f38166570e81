"""Whether what is found points the same way as the paper, by figures that are made up."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from benchmarks import paper
from benchmarks.rows import Row

SETS = ("contracts", "covidqa-eval", "squad-eval")
ROW = Row("", "", 1, 1, 1, 0.0, 0.0, 0.0, 0.0, 0.0, None, False, "", 1, "float32", "")


def rows(values: dict[str, tuple[float, float, float]]) -> dict[tuple[str, str], Row]:
    return {
        (dataset, name): replace(ROW, dataset=dataset, name=name, ndcg=value / 100)
        for name, column in values.items()
        for dataset, value in zip(SETS, column, strict=True)
    }


def variants(values: dict[str, tuple[float, float, float]]) -> dict[str, Any]:
    return {
        "runs": [
            {"name": name, "ndcg@10": {dataset: value / 100 for dataset, value in zip(SETS, column, strict=True)}}
            for name, column in values.items()
        ]
    }


ROWS = rows({
    paper.ALONE: (20, 50, 80),
    paper.UNTRAINED: (30, 40, 50),
    paper.ANCHORED: (40, 40, 55),
})  # fmt: skip
VARIANTS = variants({
    "InSeNT, lambda 0": (60, 30, 50),
    "InSeNT, lambda 0.1": (80, 40, 60),
    "InSeNT, lambda 0.3": (79, 44, 61),
    "InSeNT, lambda 0.5": (78, 45, 62),
    "InSeNT, lambda 1": (50, 46, 63),
    "+Training: every chunk alone": (30, 45, 70),
    "with replay": (70, 50, 66),
    "merged, three quarters": (70, 50, 60),
})  # fmt: skip


def cells(parts: list[str]) -> dict[str, list[str]]:
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in parts[1].splitlines()[2:]]
    return {text: rest for text, *rest in lines}


def test_each_claim_has_its_figures_and_says_whether_they_agree() -> None:
    parts = paper.section(ROWS, VARIANTS)
    assert parts[0].startswith("## ")
    found = [(here, same) for _, here, same in cells(parts).values()]
    assert found == [
        ("45.0 -> 61.3 (with anchor and title, lambda 0.3, no blend)", "yes"),
        ("50.0 -> 40.0 (with anchor and title 45.0)", "**no**"),
        ("50.0 -> 40.0 (covidqa-eval)", "yes"),
        ("50.0 -> 48.3", "yes"),
        ("0: 46.7, 0.1: 60.0, 0.3: 61.3, 0.5: 61.7, 1: 53.0", "yes"),
        ("contracts: 0.1, covidqa-eval: 1, squad-eval: 1", "yes"),
        ("55.0 -> 60.0 (squad-eval, lambda 0.1; each chunk alone 80.0)", "**no**"),
        ("61.0 -> with replay 66.0, merged, three quarters 60.0 (squad-eval, lambda 0.3)", "**no**"),
    ]


@pytest.mark.parametrize("lacking", ["InSeNT, lambda 1", "+Training: every chunk alone"])
def test_a_claim_that_was_not_measured_is_left_out(lacking: str) -> None:
    part = {"runs": [one for one in VARIANTS["runs"] if one["name"] != lacking]}
    assert 0 < len(cells(paper.section(ROWS, part))) < len(paper.CLAIMS)


def test_without_any_figures_there_is_no_section() -> None:
    assert paper.section({}, None) == []


def test_a_mean_is_over_the_sets_that_were_scored_alike() -> None:
    more = ROWS | {("factbook-eval", name): replace(ROW, ndcg=1.0) for name in (paper.ALONE, paper.ANCHORED)}
    found = paper.Found(more, {one["name"]: one["ndcg@10"] for one in VARIANTS["runs"]})
    assert found.mean(paper.ALONE) == pytest.approx((20 + 50 + 80 + 100) / 4)
    assert found.mean(paper.ALONE, found.sets) == pytest.approx(50)
