"""Tables for a terminal."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ctxindex.evaluation.report import comparison_rows, summary_rows, sweep_rows, tables, words
from ctxindex.evaluation.results import Estimate, SweepPoint
from tests.evaluation.report.samples import compared, corpus, run, swept


@pytest.mark.parametrize(
    ("value", "signed", "written"),
    [
        (0.22, False, "22.0"),
        (1.0, False, "100.0"),
        (-0.0001, False, "0.0"),
        (-0.0001, True, "0.0"),
        (0.0123, True, "+1.2"),
        (-0.0123, True, "-1.2"),
        (float("nan"), False, "-"),
    ],
)
def test_values_are_shown_in_points_of_100(value: float, signed: bool, written: str) -> None:
    assert words.points(value, signed=signed) == written


def test_estimates_have_their_interval() -> None:
    assert words.estimate(Estimate(0.2201, 0.198, 0.243)) == "22.0 [19.8, 24.3]"
    assert words.estimate(Estimate(0.01, -0.01, 0.03), signed=True) == "+1.0 [-1.0, +3.0]"
    assert words.estimate(Estimate(float("nan"), float("nan"), float("nan"))) == "-"


def test_other_numbers_keep_what_matters() -> None:
    assert [words.probability(p) for p in (0.0004, 0.0123, 1.0, float("nan"))] == ["<0.001", "0.012", "1.000", "-"]
    assert [words.amount(n) for n in (64.0, 100_000.0, 0.3, float("inf"))] == ["64", "100,000", "0.3", "-"]
    assert [words.rate(n) for n in (1234.5, 12.34, 0.1234, float("nan"))] == ["1,234", "12.3", "0.12", "-"]


def test_a_data_set_is_a_table() -> None:
    of = corpus()
    head, first, second = summary_rows([run(of, "late"), run(of, "bm25", seed=3)])
    assert [cell.strip() for cell in head] == [
        "CONFIGURATION", "nDCG@10", "R@1", "R@5", "R@10", "MRR@10", "DOC@1", "Q/S", "INDEX s",
    ]  # fmt: skip
    assert (first[0], second[0]) == ("late", "bm25")
    assert first[1] == words.estimate(run(of, "late").metrics["ndcg@10"]).rjust(len(second[1]))
    assert (first[-2].strip(), first[-1].strip()) == ("20.0", "12.3")
    assert all(len({len(row[column]) for row in (head, first, second)}) == 1 for column in range(1, 9))


def test_models_are_named_where_they_tell_runs_apart() -> None:
    of = corpus()
    rows = summary_rows([run(of), run(of, model="./tuned"), run(of, "bm25", model="")])
    assert [row[0] for row in rows[1:]] == ["late (minilm)", "late (./tuned)", "bm25"]


def test_nothing_gives_no_rows() -> None:
    assert summary_rows([]) == comparison_rows([]) == sweep_rows([]) == list(tables([], [])) == []


def test_comparisons_are_signed() -> None:
    of = corpus()
    late, alone = run(of, "late", quality=2), run(of, "independent", seed=1, quality=-0.5)
    rows = comparison_rows([compared(late, alone), compared(alone, late, p=0.0001)])
    assert rows[1][:3] == ("late", "independent", "nDCG@10")
    assert rows[1][3].strip().startswith("+")
    assert rows[2][3].strip().startswith("-")
    assert [row[4].strip() for row in rows[1:]] == ["0.012", "<0.001"]


def test_a_sweep_over_seeds_has_a_band() -> None:
    of = corpus()
    runs = swept(of, ["late", "bm25"], [1000, 10], [1, 2, 3])
    head, late, bm25 = sweep_rows(runs)
    assert [cell.strip() for cell in head] == ["CONFIGURATION", "10", "1,000"]
    means = [one.metrics["ndcg@10"].mean for one in runs if one.name == "late" and one.point.value == 10]  # type: ignore[union-attr]
    assert late[1].strip() == (
        f"{words.points(sum(means) / 3)} [{words.points(min(means))}, {words.points(max(means))}]"
    )
    assert bm25[0] == "bm25"


def test_a_sweep_with_one_seed_has_intervals_and_gaps() -> None:
    of = corpus()
    one, other = run(of, point=SweepPoint("blend", 0.3)), run(of, "bm25", point=SweepPoint("blend", 0.5))
    head, late, bm25 = sweep_rows([one, other])
    assert [cell.strip() for cell in head[1:]] == ["0.3", "0.5"]
    assert late[1].strip() == words.estimate(one.metrics["ndcg@10"])
    assert late[2].strip() == bm25[1].strip() == "-"


def test_all_tables_come_in_the_order_of_the_sets() -> None:
    first, second = corpus("people"), corpus("papers", level="document")
    runs = [run(first), run(second), run(first, "bm25", seed=1), *swept(first, ["late"], [2, 4], [1, 2])]
    found = list(tables(runs, [compared(runs[0], runs[2])]))
    assert [heading for heading, _ in found] == [
        "people: 10 queries, 21 chunks of 4 documents (points of 100, [95 % interval])",
        "people: nDCG@10 by corpus-size (documents), points of 100, mean of 2 seeds [least, greatest]",
        "people: paired differences in points [95 % interval]",
        "papers: 10 queries, 4 documents (points of 100, [95 % interval])",
    ]
    assert [len(rows) for _, rows in found] == [3, 2, 2, 2]


def test_a_sweep_has_the_unit_of_its_runs() -> None:
    swept_run = run(point=SweepPoint("chunk-size", 64))
    assert "chunk-size (tokens)" in next(tables([swept_run], []))[0]
    assert "chunk-size (chars)" in next(tables([replace(swept_run, notes={"unit": "chars"})], []))[0]
