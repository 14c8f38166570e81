"""The card: what it tells, that nothing a user named breaks it, and that it tells no places on a disk."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from ctxindex.encoding import EncoderOptions
from ctxindex.evaluation import Run
from ctxindex.spec import ChunkerSpec
from ctxindex.training.contextual.context import ContextDropout
from ctxindex.training.contextual.options import ContextualOptions
from ctxindex.training.data import Data
from ctxindex.training.finetune import Finetuned, Plan
from ctxindex.training.results.card import command_line, duration, write_card
from ctxindex.training.results.comparison import verdict
from tests.evaluation.builders import people
from tests.training.results.builders import runs_of

PLAN = Plan(
    "minilm", EncoderOptions(method="late", anchor=64, anchor_title=True, blend=0.4), ChunkerSpec("x", 9, "chars", 0)
)
HISTORY: list[dict[str, float]] = [
    *({"loss": 2.0 / step, "l_seq": 1.0, "learning_rate": 1e-5, "step": step} for step in range(10, 251, 10)),
    *({"eval_ndcg@10": 0.4 + step / 1000, "step": step} for step in (100, 200)),
]


def card(
    runs: Mapping[str, list[Run]] | None = None,
    name: str = "people",
    command: str = "ctxindex finetune",
    published: Collection[str] = (),
    folder: Path = Path("/secret/place/tuned"),
    **plan: Any,
) -> str:
    corpus = people(name=name)
    held = {} if runs is None else {name: corpus}
    found = Finetuned(folder, HISTORY, runs or {}, 0.75, {0.5: 0.4, 0.75: 0.5} if runs else {}, 12.3, 250)
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
    assert "more documents, more --steps, --hold, --replay or --merge may help" in verdict(same)
    assert "more documents, more --steps or --merge may help" in verdict(same, "cde")


def test_it_says_why_so_much_was_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "0.75 was kept, the share that finds most in what is held out, which is too little to tell" in card(
        runs_of(people(name="people"))
    )
    monkeypatch.setattr("ctxindex.training.results.measured.FEW", 1)
    assert "0.75 was kept, the smallest share within a standard error" in card(runs_of(people(name="people")))


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


def test_what_the_base_owes_to_others_goes_along(tmp_path: Path) -> None:
    said = card(model="minilm-insent")
    assert "## Attributions and licences\n\nOf minilm-insent, which this model was made of:" in said
    assert "The Atticus Project" in said
    assert said.index("The Atticus Project") < said.index("## What it finds")
    (tmp_path / "README.md").write_text(said, encoding="utf-8")  # and on to what is made of that
    assert "The Atticus Project" in card(model=str(tmp_path))
    assert "Attribution" not in card()
    assert "Attribution" not in card(model="owner/elsewhere")


def test_the_precision_is_the_one_that_was_used(tmp_path: Path) -> None:
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "plan.json").write_text('{"precision": "bfloat16"}', encoding="utf-8")
    assert "precision bfloat16" in card(folder=tmp_path)


def test_others_are_told_to_shorten_vectors(tmp_path: Path) -> None:
    assert 'SentenceTransformer("tuned")' in card()
    assert 'SentenceTransformer("tuned", truncate_dim=16)' in card(encoder=EncoderOptions(method="late", dims=16))
