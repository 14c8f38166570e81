"""The CSV files beside a report."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ctxindex.evaluation.report.csvs import FILES, write_csvs
from ctxindex.evaluation.results import METRICS, Estimate, SweepPoint
from tests.evaluation.report.samples import HOSTILE, compared, corpus, run


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_files_hold_the_numbers_of_the_runs(tmp_path: Path) -> None:
    of = corpus()
    late = run(of, "default", notes={"method": "late"})
    small = run(of, "bm25", seed=2, point=SweepPoint("corpus-size", 1000, 3))
    comparison = compared(late, small)
    written = write_csvs(tmp_path, [late, small], [comparison])
    assert [path.name for path in written] == list(FILES)
    metrics, queries, positions, comparisons = map(read, written)

    assert [row["metric"] for row in metrics] == [*METRICS, *METRICS]
    for row, metric in zip(metrics, METRICS, strict=False):
        estimate = Estimate(float(row["mean"]), float(row["low"]), float(row["high"]))
        assert estimate == late.metrics[metric]
        assert (row["dataset"], row["name"], row["method"], row["model"]) == ("people", "default", "late", "minilm")
        assert (row["sweep"], row["sweep_value"], row["seed"]) == ("", "", "")
        assert (row["chunks"], row["queries"]) == ("21", "10")
    assert (metrics[-1]["sweep"], float(metrics[-1]["sweep_value"]), metrics[-1]["seed"]) == ("corpus-size", 1000, "3")

    assert len(queries) == 20
    for number, row in enumerate(queries[:10]):
        assert (row["query_id"], row["query"]) == (of.queries[number].query_id, of.queries[number].text)
        assert [float(row[metric]) for metric in METRICS] == [late.values[metric][number] for metric in METRICS]
        assert int(row["gold_rank"]) == late.ranking.gold_rank[number]
    assert HOSTILE in queries[0]["query"]

    read_back = [
        (float(row["from"]), float(row["to"]), int(row["queries"]), float(row["ndcg@10"]))
        for row in positions
        if not row["sweep"]
    ]
    assert read_back == late.positions()

    (row,) = comparisons
    assert (row["dataset"], row["name"], row["baseline"], row["metric"]) == ("people", "default", "bm25", "ndcg@10")
    numbers = tuple(float(row[name]) for name in ("difference", "low", "high", "p", "p_holm"))
    one = comparison.difference
    assert numbers == (one.mean, one.low, one.high, comparison.p, comparison.p_holm)


def test_what_is_no_number_is_nothing(tmp_path: Path) -> None:
    nothing = Estimate(float("nan"), float("-inf"), float("inf"))
    made = replace(run(), metrics={"ndcg@10": nothing}, values={metric: np.full(10, np.nan) for metric in METRICS})
    metrics, queries, *_ = map(read, write_csvs(tmp_path, [made], []))
    assert (metrics[0]["mean"], metrics[0]["low"], metrics[0]["high"]) == ("", "", "")
    assert {row["ndcg@10"] for row in queries} == {""}


@pytest.mark.parametrize("text", ['a,b\r\nc\n"d"', "=1+1", "\x00", "\ud800", "  spaces  "])
def test_any_query_can_be_written(tmp_path: Path, text: str) -> None:
    of = corpus()
    of = replace(of, queries=(replace(of.queries[0], text=text), *of.queries[1:]))
    _, queries, *_ = map(read, write_csvs(tmp_path, [run(of)], []))
    assert len(queries) == 10
    assert queries[0]["query"] == text.replace("\ud800", r"\ud800")


def test_no_runs_give_heads_alone(tmp_path: Path) -> None:
    for path in write_csvs(tmp_path, [], []):
        assert len(path.read_text(encoding="utf-8").splitlines()) == 1
