"""The tuned model beside its base."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ctxindex.training.results.comparison import differences, gains, measurements, results_rows, verdict
from tests.evaluation.builders import people
from tests.training.results.builders import run_of, runs_of


def test_it_says_where_nothing_is_gained(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = runs_of(people(name="people"))
    chance = " These are 4 documents only, so it may be chance: hold out more."
    assert verdict(runs) == f"The tuned model finds more than its base.{chance}"
    worse = {**runs, "base, in context": [run_of(people(name="people"), [0.9] * 5)]}
    said = verdict(worse)
    assert said.startswith("The tuned model finds less than its base: ")
    assert said.endswith(chance)
    monkeypatch.setattr("ctxindex.training.results.measured.FEW", 1)
    assert verdict(runs) == ""
    same = {**runs, "tuned": runs["base, each chunk alone"]}
    assert verdict(same).startswith("The tuned model is not told from its base")
    better = {**runs, "base, in context": [run_of(people(name="people"), [0.9] * 5)]}
    assert verdict(better).startswith("The tuned model finds less than its base: ")
    both = runs_of(people(name="people"), people(name="other"))
    both["base, in context"][1] = run_of(people(name="other"), [0.9] * 5)
    assert verdict(both).startswith("The tuned model finds less than its base in other: ")


def test_a_single_query_has_no_interval() -> None:
    corpus = replace(people(name="one"), queries=people().queries[:1], gold=people().gold[:1])
    rows = results_rows({"base, in context": [run_of(corpus, [0.2])], "tuned": [run_of(corpus, [0.4])]})
    assert rows == [
        ("", "one (1 query)"),
        ("base, in context", "20.0"),
        ("tuned", "40.0"),
        ("difference to the better base", "+20.0"),
    ]


def test_a_difference_is_to_the_better_base_of_each_set() -> None:
    runs = runs_of(people(name="people"), people(name="other"))
    other = runs["base, in context"][1]
    runs["base, in context"][1] = run_of(other.corpus, [0.9] * 5)
    found = gains(runs)
    assert found["people"].mean == pytest.approx(0.16)
    assert found["other"].mean == pytest.approx(-0.44)
    assert found["people"].low > 0
    head, *rows = results_rows(runs)
    assert head == ("", "people (5 queries)", "other (5 queries)")
    assert [row[0] for row in rows] == [*runs, "difference to the better base"]
    assert [one["dataset"] for one in differences(runs)] == ["people", "other"]
    assert differences({}) == measurements({}) == []
    assert measurements(runs)[0]["metrics"]["ndcg@10"] == pytest.approx(0.3)
