"""The card: what it tells, that nothing a user named breaks it, and that it tells no places on a disk."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from ctxindex.encoding import EncoderOptions
from ctxindex.evaluation import METRICS, Configuration, Corpus, Run
from ctxindex.evaluation.results import Ranking
from ctxindex.evaluation.significance import interval
from ctxindex.spec import ChunkerSpec
from ctxindex.training.contextual.context import ContextDropout
from ctxindex.training.contextual.options import ContextualOptions
from ctxindex.training.data import Data
from ctxindex.training.finetune import Finetuned, Plan
from ctxindex.training.results.card import (
    command_line,
    differences,
    duration,
    gains,
    measurements,
    results_rows,
    verdict,
    write_card,
)
from tests.evaluation.builders import people

PLAN = Plan(
    "minilm", EncoderOptions(method="late", anchor=64, anchor_title=True, blend=0.4), ChunkerSpec("x", 9, "chars", 0)
)
HISTORY: list[dict[str, float]] = [
    *({"loss": 2.0 / step, "l_seq": 1.0, "learning_rate": 1e-5, "step": step} for step in range(10, 251, 10)),
    *({"eval_ndcg@10": 0.4 + step / 1000, "step": step} for step in (100, 200)),
]


def run_of(corpus: Corpus, values: Sequence[float]) -> Run:
    each = {metric: np.array(values, dtype=np.float64) for metric in METRICS}
    nothing = np.zeros((len(values), 1), dtype=np.int64)
    ranking = Ranking(nothing, nothing.astype(np.float32), nothing[:, 0])
    metrics = {metric: interval(own) for metric, own in each.items()}
    return Run(corpus, Configuration("late"), "minilm", each, metrics, ranking, {"index": 1.0, "search": 1.0})


def runs_of(*corpora: Corpus) -> dict[str, list[Run]]:
    scores = {
        "base, each chunk alone": [0.2, 0.4, 0.0, 0.6, 0.3],
        "base, in context": [0.1, 0.2, 0.3, 0.0, 0.1],
        "tuned": [0.4, 0.5, 0.2, 0.8, 0.4],
    }
    return {name: [run_of(corpus, values) for corpus in corpora] for name, values in scores.items()}


def card(
    runs: Mapping[str, list[Run]] | None = None,
    name: str = "people",
    command: str = "ctxindex finetune",
    published: Collection[str] = (),
    **plan: Any,
) -> str:
    corpus = people(name=name)
    held = {} if runs is None else {name: corpus}
    found = Finetuned(
        Path("/secret/place/tuned"), HISTORY, runs or {}, 0.75, {0.5: 0.4, 0.75: 0.5} if runs else {}, 12.3, 250
    )
    return write_card(found, replace(PLAN, **plan), Data({name: corpus}, held, {}, frozenset(published)), command)


def front(text: str) -> dict[str, Any]:
    _, head, _ = text.split("---\n", 2)
    values = yaml.safe_load(head)
    assert isinstance(values, dict)
    return values


def test_the_head_is_what_a_hub_reads() -> None:
    head = front(card())
    assert head["base_model"] == "sentence-transformers/all-MiniLM-L6-v2"
    assert (head["library_name"], head["pipeline_tag"]) == ("sentence-transformers", "sentence-similarity")
    assert "datasets" not in head, "what is only here is none of the hub"
    assert front(card(name="owner/set", published={"owner/set"}))["datasets"] == ["owner/set"]
    assert front(card(model="minilm-insent"))["base_model"] == "sentence-transformers/all-MiniLM-L6-v2"
    assert front(card(model="/home/someone/models/mine"))["base_model"] == "mine"
    assert front(card(model="owner/name"))["base_model"] == "owner/name"


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


def test_a_control_says_that_it_reads_no_corpus() -> None:
    cde = EncoderOptions(method="cde")
    never = ContextualOptions(dropout=ContextDropout(0.0, 1.0))
    control, other = card(encoder=cde, contextual=never), card(encoder=cde)
    assert "in no corpus context (method `cde`): the control of a training that has one" in control
    assert "--context null" in control
    assert "sample of the corpus that a first stage reads" in other
    assert "null" not in other.split("## How it was trained")[0]


def test_what_is_recommended_is_what_there_is() -> None:
    runs = runs_of(people(name="people"))
    same = {**runs, "tuned": runs["base, each chunk alone"]}
    assert "more documents, --hold, --replay or --merge may help" in verdict(same)
    assert "more documents or --merge may help" in verdict(same, "cde")


def test_it_says_why_so_much_was_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "0.75 was kept, the share that finds most in what is held out, which is too little to tell" in card(
        runs_of(people(name="people"))
    )
    monkeypatch.setattr("ctxindex.training.results.measured.FEW", 1)
    assert "0.75 was kept, the smallest share within a standard error" in card(runs_of(people(name="people")))


def test_a_single_query_has_no_interval() -> None:
    corpus = replace(people(name="one"), queries=people().queries[:1], gold=people().gold[:1])
    rows = results_rows({"base, in context": [run_of(corpus, [0.2])], "tuned": [run_of(corpus, [0.4])]})
    assert rows == [
        ("", "one (1 query)"),
        ("base, in context", "20.0"),
        ("tuned", "40.0"),
        ("difference to the better base", "+20.0"),
    ]


def test_the_time_is_that_of_what_was_done_in_it() -> None:
    found = Finetuned(Path("tuned"), HISTORY, {}, 1.0, {}, 12.3, 250)
    assert duration(found) == "250 steps in 12 s"
    assert duration(replace(found, before=200)) == "250 steps, the last 50 of them in 12 s"


def test_it_says_what_was_found_and_by_how_much() -> None:
    text = card(runs_of(people(name="people")))
    assert "| base, each chunk alone | 30.0 " in text
    assert "| tuned | 46.0 " in text
    assert "| difference to the better base | +16.0 " in text
    assert "people (5 queries)" in text
    assert "0.5: 40.0, 0.75: 50.0" in text
    assert "nothing was measured" in card()


def test_it_says_that_others_read_chunks_alone() -> None:
    text = card()
    assert "ctxindex ingest DOCS --model tuned" in text
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert 'SentenceTransformer("tuned")' in code
    assert "reads every text **alone**, without the context of a document, which" in text
    assert "and without that of a corpus" in card(encoder=EncoderOptions(method="cde"))
    assert "mixed with that of the chunk alone, which counts 0.4" in text
    compile(code, "card", "exec")
    late = card(encoder=EncoderOptions(method="late-interaction"))
    assert "SentenceTransformer(" not in late
    assert "a vector for every token" in late


def test_curves_have_about_ten_rows_and_the_last() -> None:
    text = card()
    blocks = [one.content for one in MarkdownIt().parse(text) if one.type == "fence"]
    (loss, measured) = [block for block in blocks if block.lstrip().startswith("step")]
    steps = [int(line.split()[0]) for line in loss.splitlines()[1:]]
    assert 10 <= len(steps) <= 14
    assert (steps[0], steps[-1]) == (10, 250)
    assert [line.split() for line in measured.splitlines()[1:]] == [["100", "50.0"], ["200", "60.0"]]
    assert all(part.splitlines()[0].rstrip() == part.splitlines()[0] for part in (loss, measured))


def test_no_place_on_a_disk_is_told() -> None:
    line = command_line(
        [
            "ctxindex",
            "finetune",
            "/home/me/data/set",
            "own/set",
            "--out=/srv/x/tuned",
            "--validation",
            "~/held",
            "--lambda",
            "0.1",
        ]
    )
    assert line == "ctxindex finetune set own/set --out=tuned --validation held --lambda 0.1"
    assert "me:pass" not in command_line(["ctxindex", "--url", "http://me:pass@host/x"])
    assert "/secret" not in card(runs_of(people(name="people")), command=line)


@given(name=st.text(min_size=1, max_size=30))
def test_nothing_that_was_named_breaks_the_card(name: str) -> None:
    text = card(name=name, command=f"ctxindex finetune {name}", model=name, published={name})
    head = front(text)
    assert len(head["datasets"]) == 1
    tokens = MarkdownIt().enable("table").parse(text.split("---\n", 2)[2])
    assert not [one for one in tokens if one.type == "html_block"]
    headings = [tokens[number + 1].content for number, one in enumerate(tokens) if one.type == "heading_open"]
    assert headings == [
        "tuned", "How to use it", "What it was trained on", "What it finds", "How it was trained"
    ]  # fmt: skip
    rows = [one for one in tokens if one.type == "tr_open"]
    assert len(rows) == len(
        [one for one in MarkdownIt().enable("table").parse(card().split("---\n", 2)[2]) if one.type == "tr_open"]
    )


def test_it_says_what_each_set_was_for() -> None:
    roles = {"a": "training", "b": "measuring, a set of its own", "c": "training, each chunk alone"}
    corpora = {name: people(name=name) for name in roles}
    data = Data({"a": corpora["a"]}, {"b": corpora["b"]}, {"c": corpora["c"]})
    found = Finetuned(Path("tuned"), HISTORY, runs_of(corpora["b"]), 1.0, {}, 1.0, 9)
    text = write_card(found, PLAN, data, "ctxindex finetune")
    for name, role in roles.items():
        assert f"| {name} | {role} | 4 | 5 |" in text
    assert "held out" not in text
    assert "| people | measuring, held out by document | 4 | 5 |" in card(runs_of(people(name="people")))


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
