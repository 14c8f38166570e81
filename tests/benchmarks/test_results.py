"""The arithmetic of `benchmarks/train.py`, and the page that `benchmarks/results.py` makes of what was measured."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import results
from benchmarks.rows import CUT, WITHOUT, read_rows, renewed, rows_of, write_rows
from benchmarks.tables import ndcg_table
from benchmarks.train import CHUNKS, DOCUMENTS, QUERIES, WINDOWS, Work, lines, medians, rate, work_of
from ctxindex.encoding import EncoderOptions, load_encoder
from ctxindex.training.batches import Draw
from ctxindex.training.sampling import Limits, Question, Sampler, TrainingDocument
from tests.encoding.stand_in import chunked
from tests.encoding.tiny import save_sentence_transformer

NAMES = (*results.CONFIGURATIONS, *results.TRAINED)


def test_the_first_quarter_of_the_steps_is_not_counted() -> None:
    works = [Work(1000.0, 9, 90.0)] * 2 + [Work(10.0 * number, 2, 6.0) for number in range(1, 7)]
    found = rate([5.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0], works)
    assert found == {
        "tokens_per_second": pytest.approx(210 / 6),
        "seconds_per_step": pytest.approx(1.0),
        "tokens": pytest.approx(35.0),
        "queries": 2.0,
        "query_tokens": 6.0,
    }
    assert rate([1.0, 3.0], [Work(5.0, 1, 1.0), Work(8.0, 1, 1.0)])["tokens_per_second"] == 4.0


def test_a_step_asks_as_much_in_every_contender() -> None:
    assert QUERIES * DOCUMENTS == DOCUMENTS * WINDOWS * CHUNKS == 64


@pytest.mark.parametrize(
    "options", [{"method": "independent"}, {"method": "late"}, {"method": "late", "blend": 0.4, "isolated": "title"}]
)
def test_content_is_counted_once_whatever_is_read_of_it(tmp_path: Path, options: dict[str, Any]) -> None:
    encoder = load_encoder(str(save_sentence_transformer(tmp_path / "bert")), EncoderOptions(device="cpu", **options))
    texts = ["the law of the land.", "terminated early by either party"]
    document = TrainingDocument(chunked("Napoleon", texts), (Question("which law", (0,)), Question("who ends", (1,))))
    batch = Sampler({"a": [document]}, encoder, Limits(9, 9)).batch(Draw(0, "a", (0,), 1))
    asked = sum(encoder.tokenizer.count(["which law", "who ends"]))
    assert work_of(batch) == Work(sum(encoder.tokenizer.count(texts)), 2, asked)


def test_medians_are_of_each_number_and_ratios_of_the_peer() -> None:
    keys = ("tokens_per_second", "seconds_per_step", "tokens", "queries", "query_tokens")
    found = {
        "late": [dict.fromkeys(keys, value) for value in (3.0, 300.0, 30.0)],
        "flattened": [dict.fromkeys(keys, value) for value in (20.0, 10.0, 60.0)],
    }
    each = medians(found)
    assert (each["late"]["tokens"], each["flattened"]["tokens"]) == (30.0, 20.0)
    late, flattened = lines(each)
    assert "late" in late
    assert " 1.50 x flattened" in late
    assert "30 tokens and 30 queries of 30" in late
    assert " 1.00 x flattened" in flattened


def run_of(dataset: str, name: str, value: float) -> dict[str, Any]:
    return {
        "dataset": dataset,
        "name": name,
        "documents": 1200,
        "chunks": 34567,
        "queries": 89,
        "metrics": {"ndcg@10": value, "recall@10": value + 0.1, "document_hit@1": value + 0.2},
        "intervals": {"ndcg@10": [value - 0.05, value + 0.05]},
        "seconds": {"index": 1234.56},
        "notes": {"dtype": "bfloat16"},
    }


def value_of(dataset: str, name: str) -> float:
    return 0.1 + 0.05 * results.SETS.index(dataset) + 0.01 * NAMES.index(name)


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The page of made-up numbers, each of which tells where it comes from."""
    monkeypatch.setattr(results, "MEASURED", tmp_path)
    rate = {"seconds_per_step": 1.0, "tokens": 1.0}
    speeds = {"late": {"tokens_per_second": 1500.0, **rate}, "flattened": {"tokens_per_second": 1000.0, **rate}}
    (tmp_path / "train.json").write_text(
        json.dumps({"dtype": "float32", "processors": 3, "median": speeds, "runs": {"flattened": [rate] * 4}}),
        encoding="utf-8",
    )
    ablations = {
        "sets": ["contracts"],
        "runs": [{"name": "no clozes", "ndcg@10": {"contracts": 0.456}}],
        "about": "So.",
    }
    (tmp_path / "ablations.json").write_text(json.dumps(ablations), encoding="utf-8")
    seeds = {
        "sets": ["contracts", "squad-eval"],
        "tables": {"with titles": [{"name": "mean", "ndcg@10": {"contracts": 0.7}}]},
    }
    (tmp_path / "seeds.json").write_text(json.dumps(seeds), encoding="utf-8")
    blends = {
        "sets": {"contracts": {}, "squad-eval": {}},
        "ndcg@10": {"union": {"contracts": 0.3123, "squad-eval": 0.9}},
        "differences": {"union - isolated": {"mean": 0.0123, "low": -0.004, "high": 0.03}},
    }
    (tmp_path / "late_interaction_blend.json").write_text(json.dumps({"minilm": blends}), encoding="utf-8")
    cde = {"sets": ["contracts"], "runs": [{"name": "null", "ndcg@10": {"contracts": 0.123}}], "about": "So."}
    (tmp_path / "cde.json").write_text(json.dumps(cde), encoding="utf-8")
    cut = {
        "runs": [
            run_of(one, name, value_of(one, name)) | ({"seconds": {"index": None}} if name == "late" else {})
            for one in results.SETS
            for name in NAMES
        ],
        "comparisons": [
            {"dataset": "contracts", "name": "late", "metric": "ndcg@10", "p_holm": 0.049},
            {"dataset": "contracts", "name": "bm25", "metric": "ndcg@10", "p_holm": 0.05},
            {"dataset": "contracts", "name": "bm25", "metric": "recall@10", "p_holm": 0.001},
        ],
    }
    given = {"runs": [run_of("squad-eval", name, 0.9) for name in NAMES]}
    untitled = [run_of(f"{one}{WITHOUT}", name, 0.03) for one in results.SETS for name in results.WITHOUT_TITLES]
    found = (cut, given, {"runs": untitled})
    return results.render({group: rows_of(one) for group, one in zip(results.GROUPS, found, strict=True)})


def table(page: str, heading: str) -> dict[str, list[str]]:
    """The rows below a heading, by their first cell."""
    part = page.split(f"## {heading}\n\n", 1)[1].split("\n\n", 1)[0]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in part.splitlines()]
    return {row[0]: row[1:] for row in cells if set(row[0]) != {"-"}}


def test_every_number_stands_in_the_row_and_column_of_its_run(page: str) -> None:
    found = table(page, "nDCG@10")
    words = {**results.CONFIGURATIONS, **results.TRAINED}
    assert found[""] == list(results.SETS)
    assert set(found) == {"", *words.values()}
    recalls, hits = table(page, "Recall@10"), table(page, "The right document first (document hit@1)")
    for name in NAMES:
        for column, one in enumerate(results.SETS):
            points = 100 * value_of(one, name)
            expected = rf"{points:.1f}\*? \[{points - 5:.1f}, {points + 5:.1f}\]"
            assert re.fullmatch(expected, found[words[name]][column]), (name, one)
            assert recalls[words[name]][column] == f"{points + 10:.1f}"
            assert hits[words[name]][column] == f"{points + 20:.1f}"


def test_an_asterisk_is_for_what_is_significant(page: str) -> None:
    marked = {name: cells for name, cells in table(page, "nDCG@10").items() if any("*" in cell for cell in cells)}
    assert list(marked) == [results.CONFIGURATIONS["late"]]
    assert ["*" in cell for cell in marked[results.CONFIGURATIONS["late"]]] == [True] + [False] * 6


def test_a_seed_that_lacks_a_set_leaves_its_cell_empty(page: str) -> None:
    assert "| mean | 70.0 |  |" in page


def test_other_tables_have_what_was_measured(page: str) -> None:
    assert set(table(page, "Without titles (nDCG@10)")["**minilm-insent**"]) == {"3.0"}
    assert table(page, "squad-eval by its own paragraphs (nDCG@10)")["BM25"] == ["90.0"]
    assert set(table(page, "Seconds to index")["BM25"]) == {"1,234.6"}
    assert set(table(page, "Seconds to index")["late, window"]) == {"-"}
    assert table(page, "The sets")["contracts"] == ["1,200", "34,567", "89"]
    assert table(page, "Training speed")["late"] == ["1,500", "1.50"]
    worth = table(page, "What each part of the training is worth (nDCG@10)")
    assert worth["no clozes"] == ["45.6"]
    assert table(page, "In the context of a corpus (nDCG@10)")["null"] == ["12.3"]
    assert worth["untrained: independent"] == [f"{100 * value_of('contracts', 'independent'):.1f}"]
    assert table(page, "Ways to blend token vectors (nDCG@10)")["union"] == ["minilm", "31.2", "90.0"]
    assert "minilm, union - isolated: +1.2 [-0.4, +3.0]." in " ".join(page.split())
    assert "optimiser, in float32" in " ".join(page.split())
    assert "Measured in bfloat16 (ctxindex " in " ".join(page.split())
    assert all(len(line) <= results.WIDTH for line in page.splitlines() if not line.startswith(("|", "#", "<", "`")))


def test_seconds_of_a_pass_stand_beside_what_was_found() -> None:
    runs = [{"name": "gate", "ndcg@10": {"contracts": 0.5}, "seconds": 1.0625}]
    assert ndcg_table(["contracts"], runs).splitlines() == [
        "| | contracts | seconds of a pass |",
        "| --- | --- | --- |",
        "| gate | 50.0 | 1.06 times |",
    ]


def test_rows_that_are_measured_again_take_the_places_of_the_old_ones(tmp_path: Path) -> None:
    found = {"runs": [run_of("contracts", "bm25", 0.2), run_of("contracts", "late", 0.3)]}
    again = replace(rows_of({"runs": [run_of("contracts", "bm25", 0.4)]})[0], dtype="float32")
    rows = renewed(rows_of(found), [again])
    assert [(row.name, row.ndcg, row.dtype) for row in rows] == [("bm25", 0.4, "float32"), ("late", 0.3, "bfloat16")]
    write_rows(tmp_path / "rows.json", {"all": rows})
    assert read_rows(tmp_path / "rows.json") == {"all": rows}
    assert read_rows(tmp_path / "none.json") == {}
    versions = rows[0].versions
    said = results._circumstances([*rows, rows[1], replace(rows[1], name="independent")])
    assert said == f"Measured in float32 ({versions}): BM25; in bfloat16 ({versions}): late, window, independent."
    runs = {(row.dataset, row.name): row for row in (rows[0], replace(rows[1], processors=1))}
    assert results._processors({("contracts", "bm25"): replace(rows[0], processors=2)}) == "2 processors"
    assert results._processors(runs).endswith(", on 1 processor: late, window")


def test_what_is_asked_for_is_measured_beside_the_baseline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "MEASURED", tmp_path)
    runs: list[list[str]] = []

    def printed(data: Path, sets: Sequence[str], rest: Sequence[str], names: Sequence[str]) -> dict[str, Any]:
        runs.append(list(names))
        bare = WITHOUT if "--no-titles" in rest else ""
        return {"runs": [run_of(f"{one}{bare}", name, 0.4) for one in sets for name in names]}

    monkeypatch.setattr(results, "run", printed)
    trained = results.WITHOUT_TITLES[0]
    old = rows_of({"runs": [run_of("contracts", name, 0.2) for name in ("independent", trained)]})
    groups = results.measure(tmp_path, [trained], {CUT: old})
    assert runs == [["independent", trained], ["independent", trained], [trained]]
    assert [(row.name, row.ndcg) for row in groups[CUT][:2]] == [("independent", 0.2), (trained, 0.4)]
    assert {len(rows) for rows in groups.values()} == {1, 8, 7}
    assert read_rows(tmp_path / results.ROWS) == groups
    alone = replace(groups[CUT][1], name=next(name for name in results.TRAINED if name != trained))
    shipped = {("contracts", trained): groups[CUT][1]}
    assert results._called([alone], shipped) == results.TRAINED[alone.name]
    assert results._called([replace(alone, digest="old")], shipped).endswith(" (earlier weights)")
    runs.clear()
    results.measure(tmp_path, ["independent"], groups)
    assert runs == [["independent"], ["independent"]]


def test_what_was_not_measured_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "MEASURED", tmp_path / "nothing")
    assert results._training_sections({}) == results._blend_section() == []


def test_the_command_compares_each_configuration_with_the_baseline() -> None:
    line = results.command(["a", "b"], ["--no-titles"], ["independent", "bm25", "late"])
    assert line[:4] == ["ctxindex", "eval", "a", "b"]
    assert line[4:] == [
        *("--model", "minilm", "--method", "independent", "--compare", "bm25", "--compare", "late"),
        *("--no-titles", "--json"),
    ]
