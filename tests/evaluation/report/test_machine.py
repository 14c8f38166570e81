"""Results as JSON."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ctxindex.evaluation.report import as_json
from ctxindex.evaluation.results import METRICS, Comparison, Estimate, Ranking, SweepPoint
from tests.evaluation.report.samples import compared, corpus, run

NAN = float("nan")


def test_a_run_is_one_object_that_survives_a_round_trip() -> None:
    of = corpus()
    late = run(of, "late,anchor=64", cached=7, failed={"x.txt": "too <long>"}, notes={"vectors": np.int64(3)})
    bm25 = run(of, "bm25+title", seed=2)
    values = as_json([late, bm25], [compared(late, bm25)])
    assert json.loads(json.dumps(values, allow_nan=False)) == values
    assert values["schema"] == "ctxindex.eval/1"
    first = values["runs"][0]
    assert list(first) == [
        "dataset", "method", "name", "model", "settings", "chunker", "level", "documents", "chunks", "queries",
        "metrics", "intervals", "seconds", "queries_per_second", "cached_chunks", "failed", "unreadable",
        "unanswerable", "positions", "notes",
    ]  # fmt: skip
    assert (first["dataset"], first["method"], first["name"], first["model"]) == (
        "people", "late", "late,anchor=64", "minilm",
    )  # fmt: skip
    assert (first["level"], first["documents"], first["chunks"], first["queries"]) == ("chunk", 4, 21, 10)
    assert first["settings"] == {"anchor": 64}
    assert set(first["metrics"]) == set(first["intervals"]) == set(METRICS)
    assert first["metrics"]["ndcg@10"] == round(late.metrics["ndcg@10"].mean, 6)
    assert first["seconds"] == {"index": 12.345, "search": 0.5}
    assert (first["queries_per_second"], first["cached_chunks"]) == (20.0, 7)
    assert first["failed"] == {"x.txt": "too <long>"}
    assert first["notes"] == {"vectors": 3}
    assert sum(part["queries"] for part in first["positions"]) == 9  # one document is a single chunk
    assert set(first["positions"][0]) == {"from", "to", "queries", "ndcg@10"}
    assert values["runs"][1]["method"] == "bm25+title"
    (comparison,) = values["comparisons"]
    assert list(comparison) == [
        "dataset", "name", "baseline", "metric", "difference", "interval", "p", "p_holm",
    ]  # fmt: skip
    assert (comparison["name"], comparison["baseline"], comparison["p"]) == ("late,anchor=64", "bm25+title", 0.0123)


def test_the_model_s_own_method_is_named() -> None:
    assert as_json([run(name="default")], [])["runs"][0]["method"] == "default"
    (told,) = as_json([run(name="default", notes={"method": "late"})], [])["runs"]
    assert (told["method"], told["name"]) == ("late", "default")
    assert as_json([run(name="bm25", notes={"method": "late"})], [])["runs"][0]["method"] == "bm25"


def test_a_sweep_says_where_on_the_curve_it_stands() -> None:
    point = SweepPoint("corpus-size", 1000, 3)
    assert as_json([run(point=point)], [])["runs"][0]["sweep"] == {"name": "corpus-size", "value": 1000, "seed": 3}


def test_documents_that_are_ranked_have_no_positions() -> None:
    (told,) = as_json([run(corpus(level="document"))], [])["runs"]
    assert (told["level"], told["positions"]) == ("document", [])


@pytest.mark.parametrize("value", [NAN, math.inf, -math.inf])
def test_what_is_no_number_is_null(value: float) -> None:
    nothing = Estimate(value, value, value)
    made = run(point=SweepPoint("blend", value))
    made = replace(
        made,
        metrics=dict.fromkeys(METRICS, nothing),
        values={metric: np.full(10, value) for metric in METRICS},
        seconds={"index": value, "search": 1},
        notes={"deep": [{"number": value, "path": Path("a"), "set": {2, 1}, "row": np.array([value])}]},
        ranking=Ranking(np.full((10, 3), -1), np.full((10, 3), np.nan, np.float32), np.zeros(10, np.int64)),
    )
    comparison = Comparison("people", "late", "bm25", "ndcg@10", nothing, value, value)
    values = as_json([made], [comparison])
    json.dumps(values, allow_nan=False)
    (told,) = values["runs"]
    assert told["metrics"]["mrr@10"] is None
    assert told["intervals"]["mrr@10"] == [None, None]
    assert told["notes"] == {"deep": [{"number": None, "path": "a", "set": [1, 2], "row": [None]}]}
    assert values["comparisons"][0]["p"] is None
