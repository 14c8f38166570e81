"""The drawings of a report: SVG that stands in a page."""

from __future__ import annotations

import subprocess
import sys
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest

from ctxindex.evaluation.report import plots
from ctxindex.evaluation.report.grouping import curves, labels
from ctxindex.evaluation.results import Estimate, Ranking, SweepPoint
from tests.evaluation.report.samples import corpus, run, swept

HARD = ["$x_1$ <b>&amp;\"'", "東京のモデル,blend=0.3", "a\x00b\x1bc", "l" * 300, ",".join(["anchor=64"] * 12)]


def texts(svg: str) -> list[str]:
    root = ElementTree.fromstring(svg)
    assert root.tag == "svg"
    assert "http" not in svg
    assert not root.findall(".//script") + root.findall(".//style") + root.findall(".//metadata")
    return [part.text or "" for part in root.iter("text")]


def test_a_dot_has_its_value_and_its_name() -> None:
    found = texts(plots.estimates("p", ["late", "bm25"], [Estimate(0.5, 0.4, 0.6), Estimate(0.25, 0.2, 0.3)]))
    assert {"late", "bm25", "50.0", "25.0", "nDCG@10 (points of 100), bars: 95 % interval"} <= set(found)


@pytest.mark.parametrize("count", [1, 5, 40])
def test_any_names_in_any_number_can_be_drawn(count: int) -> None:
    of = corpus()
    names = [HARD[number % len(HARD)] for number in range(count)]
    runs = [run(of, seed=number) for number in range(count)]
    drawn = [
        plots.estimates("a", names, [one.metrics["ndcg@10"] for one in runs]),
        plots.positions("b", names, runs),
        plots.ranks("c", names, runs),
    ]
    for svg in drawn:
        assert svg is not None
        found = texts(svg)
        assert "$x_1$ <b>&amp;\"'" in found
        if count > 1:
            assert any("東京のモデル" in text for text in found)
            assert not any("\x00" in text for text in found)


def test_a_sweep_has_ticks_where_it_was_measured() -> None:
    drawn = curves(swept(corpus(), ["late", "bm25"], [100, 1000, 10_000], [1, 2]))
    found = texts(plots.sweep("p", drawn, [0, 1], "corpus-size (documents)", logarithmic=True))
    assert {"100", "1,000", "10,000", "corpus-size (documents)", "late", "bm25"} <= set(found)
    zero = curves([run(point=SweepPoint("blend", value)) for value in (0.0, 0.5)])
    assert {"0", "0.5"} <= set(texts(plots.sweep("p", zero, [0], "blend", logarithmic=True)))


def test_ids_differ_from_figure_to_figure_and_are_all_there() -> None:
    figures = [plots.estimates(name, ["late"], [Estimate(0.5, 0.4, 0.6)]) for name in ("one", "two")]
    known = [{part.get("id") for part in ElementTree.fromstring(svg).iter()} - {None} for svg in figures]
    assert not known[0] & known[1]
    for svg, ids in zip(figures, known, strict=True):
        root = ElementTree.fromstring(svg)
        used = {part.get("href") for part in root.iter("use")}
        clips = {part.get("clip-path") for part in root.iter()} - {None}
        assert used <= {f"#{name}" for name in ids}
        assert clips <= {f"url(#{name})" for name in ids}
        assert clips
    assert figures[0] == plots.estimates("one", ["late"], [Estimate(0.5, 0.4, 0.6)])


def test_what_cannot_be_drawn_is_left_out() -> None:
    runs = [run(corpus(level="document"))]
    assert plots.positions("p", labels(runs), runs) is None
    nothing = Ranking(np.full((10, 3), -1), np.zeros((10, 3), np.float32), np.zeros(10, np.int64))
    assert plots.ranks("p", ["late"], [run(ranking=nothing)]) is None
    nan = float("nan")
    assert "late" in texts(plots.estimates("p", ["late"], [Estimate(nan, nan, nan)]))


def test_settings_of_matplotlib_are_left_as_they_were() -> None:
    with mpl.rc_context({"text.usetex": True, "font.size": 31}):
        assert "late" in texts(plots.estimates("p", ["late"], [Estimate(0.5, 0.4, 0.6)]))
        assert mpl.rcParams["text.usetex"]
        assert mpl.rcParams["font.size"] == 31
        assert mpl.rcParams["svg.fonttype"] == "path"


def test_nothing_is_drawn_through_pyplot() -> None:
    script = (
        "import sys; from ctxindex.evaluation.report import plots; from ctxindex.evaluation.results import Estimate\n"
        "plots.estimates('p', ['late'], [Estimate(0.5, 0.4, 0.6)]); print('matplotlib.pyplot' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout == "False\n"
