"""The table of seeds: what is kept of earlier measurements, and what the last rows say."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks import seeds
from benchmarks.results import ROWS, SHIPPED
from benchmarks.rows import CUT, Row, write_rows
from benchmarks.rows import UNTITLED as BARE


@pytest.fixture(autouse=True)
def measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "measured" / "seeds.json"
    monkeypatch.setattr(seeds, "MEASURED", file)
    return file


def rows(measured: Path, kind: str = seeds.TITLED) -> dict[str, dict[str, float]]:
    return {one["name"]: one["ndcg@10"] for one in json.loads(measured.read_text("utf-8"))["tables"][kind]}


def test_the_last_rows_are_of_the_sets_that_all_seeds_have(measured: Path) -> None:
    for seed, value in (("0", 0.5), ("1", 0.6), ("2", 0.7)):
        seeds.write(seeds.TITLED, seed, f"weights {seed}", "contracts", value)
    seeds.write(seeds.TITLED, "0", "weights 0", "squad-eval", 0.9)
    found = rows(measured)
    assert found["seed 0"] == {"contracts": 0.5, "squad-eval": 0.9}
    assert found["mean"] == pytest.approx({"contracts": 0.6})
    assert found["standard deviation"] == pytest.approx({"contracts": 0.1})


def test_one_seed_has_no_mean(measured: Path) -> None:
    seeds.write(seeds.UNTITLED, "4", "weights", "contracts", 0.5)
    assert list(rows(measured, seeds.UNTITLED)) == ["seed 4"]


def test_what_was_measured_of_other_weights_is_forgotten(measured: Path) -> None:
    for kind in (seeds.TITLED, seeds.UNTITLED):
        seeds.write(kind, "0", "old", "contracts", 0.5)
    seeds.write(seeds.TITLED, "1", "other", "contracts", 0.4)
    assert seeds.of_weights(seeds.read(), seeds.TITLED, "0", "old") == {"contracts": 0.5}
    assert seeds.of_weights(seeds.read(), seeds.TITLED, "0", "new") == {}
    seeds.write(seeds.TITLED, "0", "new", "squad-eval", 0.8)
    assert rows(measured)["seed 0"] == {"squad-eval": 0.8}
    assert rows(measured)["seed 1"] == {"contracts": 0.4}
    assert rows(measured, seeds.UNTITLED) == {}


def test_the_seed_is_that_of_the_plan(tmp_path: Path) -> None:
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "plan.json").write_text(json.dumps({"schedule": {"seed": 7}}), encoding="utf-8")
    assert seeds.seed_of(tmp_path) == 7


def test_a_seed_that_ships_has_the_figures_of_the_package(measured: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = Row("contracts", SHIPPED, 1, 2, 3, 0.7, 0.6, 0.8, 0.9, 0.9, 1.0, True, "shipped", 2, "float32", "0")
    groups = {
        CUT: [row, replace(row, name="bm25", ndcg=0.1), replace(row, dataset="squad-eval", digest="of others")],
        BARE: [replace(row, ndcg=0.65)],
    }
    write_rows(measured.parent / ROWS, groups)
    monkeypatch.setattr(seeds, "load_encoder", lambda _: SimpleNamespace(spec=SimpleNamespace(digest="shipped")))
    seeds.take_shipped("2")
    assert rows(measured) == {"seed 2": {"contracts": 0.7}}
    assert rows(measured, seeds.UNTITLED) == {"seed 2": {"contracts": 0.65}}
    assert seeds.of_weights(seeds.read(), seeds.TITLED, "2", "shipped") == {"contracts": 0.7}
