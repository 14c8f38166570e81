"""The table of what a corpus context gains: means over seeds, and which models are read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import cde_rows
from benchmarks.cde_rows import READINGS, first, models, read, table, write
from recipes.train_minilm_cde import RESULTS
from tests.evaluation.builders import people


def test_several_seeds_are_a_mean_and_how_far_they_are_apart() -> None:
    found = table(
        {
            "null: no corpus": {"0": {"a": 0.5, "b": 0.7}},
            "clusters: its corpus": {"0": {"a": 0.5, "b": 0.6}, "1": {"a": 0.7, "b": 0.65}, "2": {"a": 0.6, "b": 0.61}},
        }
    )
    assert [one["name"] for one in found] == [
        "null: no corpus",
        "clusters: its corpus (3 seeds, apart by 20.0 at most)",
    ]
    assert found[0]["ndcg@10"] == {"a": 0.5, "b": 0.7}
    assert found[1]["ndcg@10"] == pytest.approx({"a": 0.6, "b": 0.62})


def test_what_was_measured_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cde_rows, "MEASURED", tmp_path / "measured" / "cde.json")
    assert read() == {}
    write({"null: no corpus": {"0": {"factbook-eval": 0.5}}}, 80, 150)
    assert read() == {"null: no corpus": {"0": {"factbook-eval": 0.5}}}
    values = json.loads((tmp_path / "measured" / "cde.json").read_text("utf-8"))
    assert "for 150 steps" in values["about"]
    assert "the first 80 documents" in values["about"]
    assert values["runs"] == [{"name": "null: no corpus", "ndcg@10": {"factbook-eval": 0.5}}]


def test_models_are_those_that_are_finished(tmp_path: Path) -> None:
    for name in ("no-filter-2", "null-0", "null-1"):
        (tmp_path / name).mkdir()
        (tmp_path / name / RESULTS).write_text("[]", encoding="utf-8")
    (tmp_path / "clusters-0").mkdir()
    assert models(tmp_path, ["no-filter", "null", "clusters"]) == [
        ("no-filter", "2", tmp_path / "no-filter-2"),
        ("null", "0", tmp_path / "null-0"),
        ("null", "1", tmp_path / "null-1"),
    ]
    assert models(tmp_path, ["clusters"]) == []


def test_a_set_may_be_shortened() -> None:
    corpus = people()
    assert first(corpus, None) is corpus
    shorter = first(corpus, 1)
    assert len(shorter.documents) == 1
    assert 0 < len(shorter.queries) < len(corpus.queries)


def test_a_reading_changes_the_context_alone() -> None:
    assert READINGS["its corpus"] == {}
    assert {name for settings in READINGS.values() for name in settings} == {"context", "windows"}
