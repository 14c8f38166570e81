"""The table of what a corpus context gains: means over seeds, and which models are read."""

from __future__ import annotations

import json
import multiprocessing
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks import cde_rows
from benchmarks.cde_rows import OTHER, READINGS, Figure, first, keep, models, read, reading, table
from recipes.train_minilm_cde import RESULTS
from tests.evaluation.builders import people


def figure(ndcg: float, documents: int | None = 80, steps: int | None = 150) -> Figure:
    return Figure(ndcg=ndcg, documents=documents, steps=steps)


@pytest.fixture(autouse=True)
def measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "measured" / "cde.json"
    monkeypatch.setattr(cde_rows, "MEASURED", file)
    return file


def test_several_seeds_are_a_mean_and_how_far_they_are_apart() -> None:
    seeds = {"0": (0.5, 0.6), "1": (0.7, 0.65), "2": (0.6, 0.61)}
    found = table(
        {
            "null: no corpus": {"0": {"a": figure(0.5), "b": figure(0.7)}},
            "clusters: its corpus": {seed: {"a": figure(a), "b": figure(b)} for seed, (a, b) in seeds.items()},
        }
    )
    assert [one["name"] for one in found] == [
        "null: no corpus",
        "clusters: its corpus (3 seeds, apart by 20.0 at most)",
    ]
    assert found[0]["ndcg@10"] == {"a": 0.5, "b": 0.7}
    assert found[1]["ndcg@10"] == pytest.approx({"a": 0.6, "b": 0.62})


def test_what_was_measured_is_kept(measured: Path) -> None:
    base = "late chunking, no corpus"
    assert read() == {}
    keep(base, "0", "factbook-eval", figure(0.4, steps=None))
    assert "were trained from minilm-insent (`recipes" in json.loads(measured.read_text("utf-8"))["about"]
    keep("null: no corpus", "0", "factbook-eval", figure(0.5))
    assert read() == {
        base: {"0": {"factbook-eval": figure(0.4, steps=None)}},
        "null: no corpus": {"0": {"factbook-eval": figure(0.5)}},
    }
    values = json.loads(measured.read_text("utf-8"))
    assert "for 150 steps" in values["about"]
    assert "the first 80 documents" in values["about"]
    assert values["runs"][1] == {"name": "null: no corpus", "ndcg@10": {"factbook-eval": 0.5}}
    assert sorted(one.name for one in measured.parent.iterdir()) == ["cde.json", "cde.lock"]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (figure(0.6, documents=None), r"of the first 80 documents after 150 .* would be of all documents after 150"),
        (figure(0.6, documents=40), "would be of the first 40 documents"),
        (figure(0.6, steps=300), r"after 150 steps.*after 300 steps: measure alike, or put .*cde\.json away"),
        (figure(0.6, documents=40, steps=None), "would be of the first 40 documents: measure alike"),
    ],
)
def test_figures_that_cannot_be_compared_do_not_come_together(measured: Path, other: Figure, message: str) -> None:
    keep("null: no corpus", "0", "factbook-eval", figure(0.5))
    before = measured.read_text("utf-8")
    with pytest.raises(SystemExit, match=message):
        keep("clusters: its corpus", "1", "factbook-eval", other)
    assert measured.read_text("utf-8") == before


def test_what_another_process_measures_meanwhile_is_kept_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each reads, changes and writes; without a lock most of it is lost."""

    def slowly() -> Any:
        found = read()
        time.sleep(0.005)  # so that the others come in between
        return found

    monkeypatch.setattr(cde_rows, "read", slowly)
    processes = [multiprocessing.get_context("fork").Process(target=_keep_ten, args=(row,)) for row in ("a", "b", "c")]
    for one in processes:
        one.start()
    for one in processes:
        one.join()
    assert {row: len(seeds) for row, seeds in read().items()} == {"a": 10, "b": 10, "c": 10}


def _keep_ten(row: str) -> None:
    for seed in range(10):
        keep(row, str(seed), "factbook-eval", figure(0.5))


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


def test_another_corpus_is_that_of_the_other_set(tmp_path: Path) -> None:
    other = tmp_path / OTHER["factbook-eval"]
    assert reading(tmp_path / "clusters-0", "another corpus", other).settings == {
        "model": str(tmp_path / "clusters-0"),
        "context": str(tmp_path / "medquad-eval-masked"),
    }


def test_a_reading_changes_the_context_alone() -> None:
    assert READINGS["its corpus"] == {}
    assert {name for settings in READINGS.values() for name in settings} == {"context", "windows"}
