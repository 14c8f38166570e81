"""The arithmetic of `benchmarks/encode.py`, and that the script measures and says what it should."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.contenders import CountedRows, Job
from benchmarks.encode import add_goals, choose, make_entries, two_lengths
from benchmarks.jobs import cut_text
from benchmarks.matrix import ModelShape, attention_flops, forward_flops, linear_flops, weighted_rate
from benchmarks.processes import Interpreters, run_job
from benchmarks.report import Goal, circumstances, compare, contender_rows, linearity, summarise, table
from ctxindex.encoding.local import LocalEncoder
from tests.conftest import REPOSITORY

MINILM = ModelShape(layers=6, hidden=384, intermediate=1536)


def test_the_operations_of_minilm_are_those_of_its_products() -> None:
    weights = 6 * (4 * 384 * 384 + 2 * 384 * 1536)
    assert linear_flops(MINILM, 10) == 2 * 10 * weights
    assert attention_flops(MINILM, [3, 4]) == 6 * (2 * 2 * 384) * (9 + 16)
    assert forward_flops(MINILM, [3, 4]) == linear_flops(MINILM, 7) + attention_flops(MINILM, [3, 4])


def test_the_shape_is_read_from_the_model(minilm_late: LocalEncoder) -> None:
    assert ModelShape.read(minilm_late._checkpoint.backbone) == MINILM


def test_rates_are_weighted_by_the_time_that_the_work_takes() -> None:
    assert weighted_rate([(10.0, 5.0), (10.0, 10.0)]) == pytest.approx(20 / 3)  # 2 s and 1 s for 20 operations
    assert weighted_rate([(1.0, 7.0), (100.0, 7.0)]) == pytest.approx(7.0)


def test_every_row_is_counted_on_its_way_to_the_model() -> None:
    class Row:
        length = 5

    class Backbone:
        name = "inner"

        def place_sums(self, rows: list[Any]) -> int:
            return len(rows)

    counted = CountedRows(Backbone())
    assert counted.place_sums([Row(), Row()]) == 2  # type: ignore[list-item]
    assert (counted.lengths, counted.name) == ([5, 5], "inner")


def test_ratios_are_those_of_what_was_measured() -> None:
    goals = {goal.name: goal for goal in compare({"late": 2.0, "llama-index": 5.0, "late-blend": 3.9}, "bfloat16")}
    assert set(goals) == {"late vs llama-index", "time of late-blend over late"}
    assert goals["late vs llama-index"] == Goal("late vs llama-index", 2.5, 2.8)
    assert not goals["late vs llama-index"].met
    assert goals["time of late-blend over late"] == Goal("time of late-blend over late", 1.95, 1.9, at_most=True)
    assert not goals["time of late-blend over late"].met


def test_the_targets_of_bfloat16_do_not_hold_in_float32() -> None:
    (goal,) = compare({"late": 2.0, "chonkie": 3.0}, "float32")
    assert goal == Goal("late vs chonkie", 1.5)
    assert goal.met
    assert goal.line(20) == "late vs chonkie          1.50"
    assert Goal("a", 1.0, 2.0).line(3) == "a       1.00   target >= 2: MISSED"


def test_float32_is_compared_where_it_is_our_dtype() -> None:
    contenders = {"late": {"seconds": 2.0}, "sentence-transformers": {"seconds": 3.0}, "chonkie": {"unavailable": "no"}}
    bare = {"dtype": "float32", "contenders": contenders, "matrix_fraction": {"late": 0.5}, "linearity": {}}
    result, goals = add_goals({**bare, "memory": {"folder": {"peak_mib": 1000}}})
    assert result["ratios"] == {"late vs sentence-transformers": 1.5, "late-float32 vs sentence-transformers": 1.5}
    assert {name: target["met"] for name, target in result["targets"].items()} == {
        "late-float32 vs sentence-transformers": True,
        "fraction of the matrix-product rate": False,
        "peak memory of an ingest (folder), GB": True,
    }
    assert len(goals) == 4


def test_the_median_run_counts_and_the_largest_memory() -> None:
    runs = [{"seconds": second, "peak_mib": mib, "chunks": 4} for second, mib in ((9.0, 1.0), (2.0, 3.4), (1.0, 2.0))]
    figures = summarise(runs, documents=4, tokens=100)
    assert (figures["seconds"], figures["peak_mib"], figures["chunks"]) == (2.0, 3, 4)
    assert (figures["documents_per_second"], figures["tokens_per_second"]) == (2.0, 50.0)
    assert figures["runs"] == [9.0, 2.0, 1.0]


def test_linearity_is_long_over_short() -> None:
    short, long = [{"tokens": 100, "seconds": 1.0}], [{"tokens": 90, "seconds": 1.0}]
    assert linearity(short, long)["ratio"] == 0.9


def test_the_table_is_aligned() -> None:
    assert table([["name", "dtype", "x"], ["a", "float32", "1.25"]]) == ["name  dtype       x", "a     float32  1.25"]
    figures = {"dtype": "float32", "chunks": 7, "peak_mib": 512, "documents_per_second": 1.0, "tokens_per_second": 9.0}
    rows = contender_rows(
        {"late": {"seconds": 2.0, **figures}, "b": {"seconds": 3.0, **figures}, "gone": {"unavailable": ""}}
    )
    assert [(row[0], row[-1]) for row in rows[1:]] == [("late", "1.00"), ("b", "1.50")]


def test_equal_circumstances_share_a_line() -> None:
    versions = {"versions": {"torch": "2"}}
    assert circumstances({"a": versions, "b": versions, "c": {"unavailable": "not installed"}}) == [
        "a, b: torch 2",
        "c: not installed",
    ]


def test_contenders_are_chosen_by_name() -> None:
    entries = make_entries("bfloat16", "model", ("a.txt",))
    assert [entry.name for entry in choose(entries, ["chonkie", "late", "lengths"])] == ["late", "chonkie"]
    assert choose(entries, []) == entries
    assert not any("same-dtype" in entry.name for entry in make_entries("float32", "model", ()))
    with pytest.raises(SystemExit, match="chonky: there are late"):
        choose(entries, ["chonky"])


def test_a_job_survives_its_journey() -> None:
    job = Job("late", "model", "bfloat16", ("a.txt", "b.txt"), anchor=64, blend=0.5, lengths=(1, 2))
    assert Job.from_json(job.to_json()) == job


def test_lengths_are_two_numbers_in_order() -> None:
    assert two_lengths("2000,100000") == (2000, 100_000)
    with pytest.raises(ValueError, match="5,2"):
        two_lengths("5,2")


def test_texts_are_cut_by_tokens_and_repeated_where_they_are_short(minilm_late: LocalEncoder) -> None:
    tokenizer = minilm_late.tokenizer
    parts = cut_text(["one two three", "four five"], tokenizer, 3, 7)
    assert parts == ["one two three", "four five\n\none", "two"]
    assert tokenizer.count(parts) == [3, 3, 1]


def test_what_fails_in_a_process_is_told() -> None:
    assert run_job(sys.executable, Job("late", "no-such-model"))["failed"].startswith("ModelError: there is no model")
    assert "cannot run" in run_job("no-such-python", Job("probe"))["failed"]


def test_ours_runs_where_the_script_runs() -> None:
    pythons = Interpreters([])
    assert pythons.find("late") == sys.executable
    assert "torch" in pythons.versions("late")


@pytest.mark.slow
def test_the_script_measures_us_and_a_peer(samples: Path) -> None:
    names = ["late", "sentence-transformers"]
    script = REPOSITORY / "benchmarks" / "encode.py"
    options = ["--documents", "1", "--repeat", "1", "--dtype", "float32", "--only", ",".join(names), "--json"]
    done = subprocess.run([sys.executable, script, samples, *options], capture_output=True, text=True, check=True)
    result = json.loads(done.stdout)
    assert list(result["contenders"]) == names
    for figures in result["contenders"].values():
        assert figures["chunks"] == result["chunks"]  # the same chunks
        assert figures["tokens_per_second"] == pytest.approx(result["tokens"] / figures["seconds"], rel=0.01)
        assert figures["peak_mib"] > 100
    times = [result["contenders"][name]["seconds"] for name in names]
    assert result["ratios"]["late vs sentence-transformers"] == pytest.approx(times[1] / times[0], rel=0.01)
    assert 0 < result["matrix_fraction"]["late"] < 5  # of a reference that a busy machine may slow down
    assert (result["linearity"], result["memory"]) == ({}, {})
