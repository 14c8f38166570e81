"""benchmarks/corpus_context.py: the section about the corpus context, and its lines."""

from __future__ import annotations

from typing import Any

from benchmarks.corpus_context import ANOTHER, NONE, effect_lines, section

ROWS = {
    "about": "Trained from minilm-insent.",
    "sets": ["factbook-eval"],
    "runs": [{"name": "clusters: its corpus", "ndcg@10": {"factbook-eval": 0.7}}],
}


def effect() -> dict[str, Any]:
    none = {"mean": 0.001, "low": -0.002, "high": 0.004}
    another = {"mean": 0.02, "low": 0.01, "high": 0.03}
    centred = {"mean": -0.01, "low": -0.015, "high": -0.005}
    against = {"cosine of chunks": 0.98, "other first chunk": 0.05}
    one = {
        "against": {NONE: {**against, "difference": none}, ANOTHER: {**against, "difference": another}},
        "centred": centred,
    }
    return {
        "models": {
            "clusters-0": {"documents": 40, "bias": {"before": 0, "after": -0.26}, "sets": {"factbook-eval": one}}
        }
    }


def test_a_line_says_what_was_measured_of_each_set() -> None:
    *_, line = effect_lines(effect()["models"])
    assert line == (
        "| clusters-0 | factbook-eval | +0.00 to -0.26 | 0.980 | 5.0 % | +0.10 [-0.20, +0.40] | "
        "+2.00 [+1.00, +3.00] | -1.00 [-1.50, -0.50] |"
    )


def test_the_section_holds_what_was_measured() -> None:
    assert section(None, effect()) == []
    heading, rows, about, *_ = section(ROWS, None)
    assert heading == "## In the context of a corpus (nDCG@10)"
    assert rows.splitlines()[-1] == "| clusters: its corpus | 70.0 |"
    assert about == ROWS["about"]
    assert section(ROWS, effect())[-1].endswith("Of each set the first 40 documents.")
    assert section(ROWS, effect())[-2].splitlines()[-1].startswith("| clusters-0 |")
