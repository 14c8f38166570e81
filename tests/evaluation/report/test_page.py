"""The report as people read it: one file, which shows everything and trusts nothing."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from importlib import resources
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from selectolax.lexbor import LexborHTMLParser as Parser
from selectolax.lexbor import LexborNode

from ctxindex.errors import MissingDependencyError
from ctxindex.evaluation import Comparison, Run
from ctxindex.evaluation.report import words, write_report
from ctxindex.evaluation.report.csvs import FILES
from ctxindex.evaluation.results import METRICS, SweepPoint
from tests.evaluation.report.samples import HOSTILE, compared, corpus, run, swept

NAMES = ["bm25", "independent", "late,anchor=64", "late,windows=token-window", "model=./tuned"]
HARMLESS = {
    *(
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "h1",
        "h2",
        "h3",
        "pre",
        "details",
        "summary",
        "table",
        "thead",
    ),
    *("tbody", "tr", "th", "td", "p", "a", "nav", "ul", "ol", "li", "section", "div", "small", "figure", "figcaption"),
    *("span", "q", "code", "cite", "blockquote", "mark", "strong"),
    *("svg", "defs", "g", "path", "use", "text", "clipPath", "rect"),
}


def page(folder: Path, runs: list[Run], comparisons: list[Comparison] | None = None, command: str = "eval") -> Parser:
    written = write_report(folder, runs, comparisons or [], command=command, settings={"date": "2031-01-02", "seed": 7})
    assert [path.name for path in written] == ["index.html", *FILES]
    assert all(path.is_file() for path in written)
    text = written[0].read_text(encoding="utf-8")
    parsed = Parser(text)
    assert {node.tag for node in parsed.css("*")} <= HARMLESS
    assert_nothing_is_fetched(text, parsed)
    for svg in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        ElementTree.fromstring(svg)
    ids = [node.attributes["id"] for node in parsed.css("[id]")]
    assert len(ids) == len(set(ids))
    return parsed


def assert_nothing_is_fetched(text: str, parsed: Parser) -> None:
    for node in parsed.css("*"):
        for name, value in node.attributes.items():
            assert not name.startswith("on"), name
            assert name not in ("src", "srcset", "action", "data"), name
            if name == "href":
                assert value in FILES or (value or "").startswith("#")
            assert "http" not in (value or ""), (name, value)
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)


def text_of(parsed: Parser | LexborNode, selector: str) -> str:
    (node, *_) = parsed.css(selector)
    return node.text()


def rows_of(parsed: Parser, selector: str) -> list[list[str]]:
    return [[cell.text(strip=True) for cell in row.css("th, td")] for row in parsed.css(f"{selector} tr")]


def test_a_report_tells_what_was_run(tmp_path: Path) -> None:
    parsed = page(tmp_path / "new" / "folder", [run()], command="ctxindex eval 'a & b'")
    assert text_of(parsed, "pre.command") == "ctxindex eval 'a & b'"
    settings = dict(rows_of(parsed, "table.settings"))
    assert settings["date"] == "2031-01-02"
    assert settings["seed"] == "7"
    assert {"ctxindex", "python", "numpy", "torch"} <= set(settings)
    assert [link.attributes["href"] for link in parsed.css("a")] == list(FILES)
    assert not parsed.css("nav")


def test_the_table_has_points_intervals_and_the_best(tmp_path: Path) -> None:
    of = corpus()
    runs = [run(of, name, seed=number, quality=0.3 * number) for number, name in enumerate(NAMES)]
    runs[1] = replace(runs[1], cached=1234, failed={"x": "y"})
    parsed = page(tmp_path, runs)
    head, *rows = rows_of(parsed, "section div.wide")
    assert head[1:9] == [words.title(metric) for metric in METRICS]
    for row, one in zip(rows, runs, strict=True):
        assert row[0].startswith(one.name)
        for cell, metric in zip(row[1:9], METRICS, strict=True):
            estimate = one.metrics[metric]
            assert cell == words.points(estimate.mean) + words.interval(estimate.low, estimate.high)
    assert rows[1][-2:] == ["1,234", "1"]
    for column, metric in enumerate(METRICS, 1):
        best = max(one.metrics[metric].mean for one in runs)
        marked = [
            number
            for number, row in enumerate(parsed.css("section tbody tr"))
            if "best" in (row.css("th, td")[column].attributes["class"] or "")
        ]
        assert marked == [number for number, one in enumerate(runs) if one.metrics[metric].mean == best]
    assert len(parsed.css("figure > svg")) == 3


def test_one_run_alone_is_not_the_best(tmp_path: Path) -> None:
    parsed = page(tmp_path, [run()])
    assert not parsed.css("td.best")
    assert "Paired differences" not in text_of(parsed, "body")


def test_documents_are_hostile(tmp_path: Path) -> None:
    of = corpus(f"set {HOSTILE}")
    bad = replace(of.queries[1], text=f"half \ud800 {HOSTILE}", query_id=HOSTILE)
    of = replace(of, queries=(of.queries[0], bad, *of.queries[2:]), unreadable={HOSTILE: HOSTILE})
    runs = [run(of, "bm25", quality=-1, failed={HOSTILE: HOSTILE}), run(of, "model=</style><script>x", seed=1)]
    parsed = page(tmp_path, runs, [compared(runs[1], runs[0])], command=HOSTILE)
    shown = words.clean(HOSTILE)
    assert text_of(parsed, "h2") == f"set {shown}"
    assert text_of(parsed, "pre.command") == shown
    assert any(shown in (mark.text() or "") for mark in parsed.css("mark"))
    assert any(shown in question.text() for question in parsed.css("q"))
    assert "\x00" not in (tmp_path / "index.html").read_text(encoding="utf-8")
    assert any(cite.text() == "Napoleon <b>Bonaparte</b>" for cite in parsed.css("cite"))


def test_failing_queries_are_shown_worst_first(tmp_path: Path) -> None:
    of = corpus()
    poor, perfect = run(of, "bm25", quality=-1), run(of, "late", quality=9)
    assert perfect.metrics["ndcg@10"].mean == 1
    parsed = page(tmp_path, [poor, perfect])
    queries = parsed.css("details.query")
    assert len(queries) == int(np.sum(poor.values["ndcg@10"] < 1))
    values = [float(text_of(query, ".value")) for query in queries]
    assert values == sorted(values)
    assert "late: all queries are answered perfectly" in text_of(parsed, "body")
    worst = queries[0]
    assert "rank " in text_of(worst, ".rank")
    assert worst.css("blockquote mark")
    assert 1 <= len(worst.css("ol > li")) <= 5


def test_sweeps_are_drawn_and_written(tmp_path: Path) -> None:
    of = corpus()
    runs = [*swept(of, ["bm25", "late"], [100, 1000], [1, 2, 3]), run(of, point=SweepPoint("blend", 0.5))]
    parsed = page(tmp_path, runs)
    assert [node.text() for node in parsed.css("h3")][:2] == ["nDCG@10 by corpus-size (documents)", "nDCG@10 by blend"]
    assert len(parsed.css("figure > svg")) == 1  # one value is no curve
    assert rows_of(parsed, "section div.wide")[0] == ["CONFIGURATION", "100", "1,000"]
    assert len(parsed.css("section > details")) == len(runs)


def test_comparisons_stand_with_their_data_set(tmp_path: Path) -> None:
    runs = [run(corpus(name), method, seed=3) for name in ("one", "two") for method in ("bm25", "late")]
    parsed = page(tmp_path, runs, [compared(runs[1], runs[0], p=0.0001), compared(runs[3], runs[2])])
    assert [link.text() for link in parsed.css("nav a")] == ["one", "two"]
    first, second = parsed.css("section")
    assert "<0.001" in first.text()
    assert "0.012" in second.text()
    assert "<0.001" not in second.text()


def test_what_was_left_out_is_told(tmp_path: Path) -> None:
    of = replace(corpus(), unreadable={f"d{number}": "has no text" for number in range(60)})
    swept_run = run(of, "bm25", failed={"towns.txt": "too long"}, point=SweepPoint("corpus-size", 1000, 1))
    text = text_of(page(tmp_path, [run(of), swept_run]), "body")
    assert "60 documents unreadable, in all configurations" in text
    assert "and 10 more" in text
    assert "1 document gave no vectors with bm25 at corpus-size 1,000" in text
    assert "too long" in text


def test_documents_can_be_what_is_ranked(tmp_path: Path) -> None:
    parsed = page(tmp_path, [run(corpus(level="document"), quality=-1), run(corpus("other"), seed=1)])
    first, second = parsed.css("section")
    assert len(first.css("figure > svg")) == 2
    assert len(second.css("figure > svg")) == 3
    assert "10 queries, 4 documents" in first.text()
    assert "How far down the first gold document is" in first.text()


def test_nothing_found_and_nothing_run_can_be_shown(tmp_path: Path) -> None:
    made = run()
    nothing = replace(made.ranking, chunks=np.full((10, 12), -1), gold_rank=np.zeros(10, np.int64))
    parsed = page(tmp_path, [run(ranking=nothing)])
    assert {node.text() for node in parsed.css(".rank")} == {"not among 21 chunks"}
    assert not parsed.css("ol")
    assert "Nothing was run." in text_of(page(tmp_path, []), "body")


def test_many_runs_show_fewer_queries_each(tmp_path: Path) -> None:
    of = corpus()
    many = replace(of, queries=of.queries * 3, gold=of.gold * 3)
    runs = [run(many, f"late,anchor={number}", seed=number, quality=-2) for number in range(1, 33)]
    parsed = page(tmp_path, runs)
    assert (tmp_path / "index.html").stat().st_size < 2_000_000
    shown = len(parsed.css("details.query")) / len(runs)
    assert 5 < shown < 25
    assert shown == int(shown)
    assert f"the {shown:.0f} worst of 30 queries" in text_of(parsed, "body")


def test_a_long_document_is_shown_in_part(tmp_path: Path) -> None:
    of = corpus()
    document = replace(of.documents[2].document, text=of.documents[2].document.text + "z" * 1_000_000)
    chunks = (*of.documents[2].chunks[:-1], replace(of.documents[2].chunks[-1], end=len(document.text)))
    of = replace(
        of, documents=(*of.documents[:2], replace(of.documents[2], document=document, chunks=chunks), of.documents[3])
    )
    page(tmp_path, [run(of, quality=-1)])
    assert (tmp_path / "index.html").stat().st_size < 200_000


@pytest.mark.parametrize("package", ["jinja2", "matplotlib"])
def test_a_missing_package_is_named(tmp_path: Path, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingDependencyError, match=rf"an evaluation report needs the package {package}.*\[eval\]"):
        write_report(tmp_path / "report", [run()], [], command="", settings={})
    assert not (tmp_path / "report").exists()


def test_importing_the_report_is_cheap() -> None:
    script = "import ctxindex.evaluation.report, sys; print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not {"matplotlib", "jinja2", "scipy", "torch"} & set(result.stdout.split())


def test_the_templates_are_in_the_package() -> None:
    folder = resources.files("ctxindex.evaluation.report") / "templates"
    assert {file.name for file in folder.iterdir()} >= {"page.html", "page.css", "failure.html", "grid.html"}
