"""`ctxindex finetune`: what its flags come to, what it says, and one training of a tiny model from end to end."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
import pytest
import yaml  # type: ignore[import-untyped]
from click.testing import CliRunner, Result

from ctxindex.cli import cli
from ctxindex.cli.finetune import command
from ctxindex.cli.training_options import SWEEP
from ctxindex.encoding import load_encoder
from ctxindex.errors import ConfigError, CtxIndexError, MissingDependencyError, UsageError
from ctxindex.training import finetune as finetuning
from ctxindex.training.finetune import Finetuned, Plan
from ctxindex.training.options import ANCHOR, BLEND, ISOLATED, InsentOptions, ObjectiveOptions, Shares
from ctxindex.training.schedule import Schedule
from tests.encoding.tiny import save_sentence_transformer
from tests.training.results.builders import runs_of
from tests.training.results.test_card import HISTORY
from tests.training.sets import PLACES, pair, write_beir, write_documents, write_jsonl, write_set

_ALL = (
    "--steps 7 --documents 2 --document-windows 5 --queries 6 --clozes 3 --learning-rate 1e-4 --warmup "
    "0.2 --weight-decay 0 --lambda 0.3 --tau 0.1 --average micro --hold 0.5 --distil 0.25 --withhold-titles 0.1 "
    "--skip-contextual 0.2 --skip-isolated 0.3 --lora 4 --freeze-embeddings --precision float32 "
    "--mini-batch-tokens 512 --gradient-checkpointing --gather-negatives --seed 9 --evaluate-every 3 --patience 2 "
    "--save-every 5 --cross-batch-memory 40 --tensorboard --merge 1,0.5 --punish-positives "
    "--anchor 0 --no-anchor-title --blend 0.1 --isolated title --device cpu "
    "--threads 1 --resume"
)
CHUNKS = ("--chunk-size", "48", "--chunk-unit", "chars", "--chunker", "recursive")


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with the set `towns`."""
    write_set(tmp_path / "towns")
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Asked:
    """Stands in for `finetune`: keeps what it was called with, and does what it is told."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        self.meanwhile: Callable[[dict[str, Any]], None] = lambda call: None

    def __call__(self, plan: Plan, data: Any, out: Path, **more: Any) -> Finetuned:
        call = {"plan": plan, "data": data, "out": out, **more}
        self.calls.append(call)
        self.meanwhile(call)
        held = list(data.held.values())
        found = Finetuned(out, HISTORY, self.runs(held), plan.merge[-1], {}, 3.0, 250)
        call["text"] = more["card"](found)
        return found

    @staticmethod
    def runs(held: list[Any]) -> dict[str, Any]:
        from tests.evaluation.builders import people

        return runs_of(*(people(name=corpus.name) for corpus in held)) if held else {}

    @property
    def call(self) -> dict[str, Any]:
        (one,) = self.calls
        return one

    @property
    def plan(self) -> Plan:
        plan: Plan = self.call["plan"]
        return plan


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """What the command asks of the training, which is not done."""
    stand_in = Asked()
    monkeypatch.setattr(finetuning, "finetune", stand_in)
    return stand_in


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, ["finetune", *map(str, arguments)], catch_exceptions=True)


def train(*arguments: str | Path) -> Result:
    result = run("towns", "--out", "tuned", *CHUNKS, *arguments)
    assert result.exit_code == 0, (result.output, result.exception)
    return result


def refused(*arguments: str | Path) -> CtxIndexError:
    result = run(*arguments, "--out", "tuned", *CHUNKS)
    assert isinstance(result.exception, CtxIndexError), (result.output, result.exception)
    return result.exception


def test_what_is_not_said_is_the_default(work: Path, asked: Asked) -> None:
    train()
    plan = asked.plan
    assert (plan.schedule, plan.objective, plan.shares) == (Schedule(), ObjectiveOptions(), Shares())
    assert (plan.source_shares, plan.merge, plan.model) == (None, (1.0,), "minilm-insent")
    encoder = plan.encoder  # the shipped model says itself how it is read
    assert (encoder.method, encoder.anchor, encoder.anchor_title, encoder.blend) == ("late", None, None, None)
    assert (asked.call["device"], asked.call["resume"], asked.call["tensorboard"]) == ("auto", False, False)
    assert asked.call["out"] == Path("tuned")


def test_a_model_that_says_nothing_is_read_in_context(work: Path, asked: Asked) -> None:
    train("--model", "minilm")
    encoder = asked.plan.encoder
    assert (encoder.method, encoder.anchor, encoder.anchor_title) == ("late", ANCHOR, True)
    assert (encoder.blend, encoder.isolated, encoder.dtype) == (BLEND, ISOLATED, None)


def test_every_flag_arrives(work: Path, asked: Asked) -> None:
    train(*_ALL.split())
    plan = asked.plan
    assert plan.schedule == Schedule(
        steps=7,
        documents=2,
        windows=5,
        queries=6,
        clozes=3,
        learning_rate=1e-4,
        warmup=0.2,
        weight_decay=0,
        lora=4,
        freeze_embeddings=True,
        precision="float32",
        mini_batch_tokens=512,
        gradient_checkpointing=True,
        gather_negatives=True,
        seed=9,
        evaluate_every=3,
        patience=2,
        save_every=5,
    )
    assert plan.objective == ObjectiveOptions(
        InsentOptions(lambda_seq=0.3, tau=0.1, average="micro", mask_positives=False),
        hold=0.5,
        distil=0.25,
        cross_batch_memory=40,
    )
    assert (plan.shares, plan.merge) == (Shares(0.1, 0.2, 0.3), (0.5, 1.0))
    encoder = plan.encoder
    assert (encoder.anchor, encoder.anchor_title, encoder.blend, encoder.isolated) == (0, False, 0.1, "title")
    assert (asked.call["device"], asked.call["threads"]) == ("cpu", 1)
    assert (asked.call["resume"], asked.call["tensorboard"]) == (True, True)


def test_epochs_arrive(work: Path, asked: Asked) -> None:
    train("--epochs", "3")
    assert asked.plan.schedule == Schedule(epochs=3)


def test_defaults_in_the_help_are_those_of_the_code() -> None:
    context = click.Context(command)
    texts = {one.name: one.get_help_record(context) for one in command.params}
    for holder, flags in (
        (Schedule(), {one.name: one.name for one in fields(Schedule)} | {"windows": "document_windows"}),
        (InsentOptions(), {"lambda_seq": "lambda", "tau": "tau", "average": "average"}),
        (ObjectiveOptions(), {"hold": "hold", "distil": "distil", "cross_batch_memory": "cross_batch_memory"}),
    ):
        for name, flag in flags.items():
            value = getattr(holder, name)
            record = texts.get(flag)
            if record is not None and not isinstance(value, bool):
                shown = "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
                assert f"[default: {shown}]" in record[1], flag
    blend = f"{BLEND}; late interaction 0"
    context_defaults = {"anchor": str(ANCHOR), "anchor_title": "yes", "blend": blend, "isolated": ISOLATED}
    for name, shown in context_defaults.items():
        assert str(texts[name]).count("[default: ") == 1
        assert f"[default: {shown}]" in str(texts[name])


def test_every_field_of_a_schedule_has_a_flag_but_one() -> None:
    flags = {one.name for one in command.params} | {"windows"}
    assert {one.name for one in fields(Schedule)} - flags == {"max_norm"}


@pytest.mark.parametrize(
    ("text", "shares"),
    [("sweep", SWEEP), ("0.5", (0.5,)), ("1,0.25,1", (0.25, 1.0)), ("0", (0.0,))],
)
def test_shares_to_merge(work: Path, asked: Asked, text: str, shares: tuple[float, ...]) -> None:
    train("--merge", text)
    assert asked.plan.merge == shares


def test_what_is_replayed_has_a_share_of_the_steps(work: Path, asked: Asked) -> None:
    write_beir(work / "practice", PLACES[:5])
    write_set(work / "more", PLACES[:8], sentences=(1,))
    train("more", "--replay", "practice", "--held-out", "0")
    shares = asked.plan.source_shares
    assert shares is not None
    assert shares == pytest.approx({"towns": 0.48, "more": 0.32, "practice": 0.2})


def test_the_answer_for_people_is_a_table_and_what_comes_next(work: Path, asked: Asked) -> None:
    write_set(work / "measured", PLACES[:3])
    result = train("--validation", "measured")
    out = result.stdout
    assert "measured (5 queries)" in out
    assert "base, in context" in out
    assert "difference to the better base" in out
    flags = "--chunker recursive --chunk-size 48 --chunk-unit chars"
    assert f"ctxindex ingest DOCS --model tuned --index tuned {flags}" in out
    compared = "--method late --compare independent --compare model=tuned"
    assert f"ctxindex eval measured --model minilm-insent {compared} {flags}" in out
    assert "towns: 9 documents with 18 questions to train on" in result.stderr
    assert "measured: 3 documents with 6 questions to measure on" in result.stderr
    assert "| measured |" in asked.call["text"]


def test_the_answer_for_scripts(work: Path, asked: Asked) -> None:
    result = train("--json", "--quiet", "--merge", "0.5")
    assert result.stderr == ""
    found = json.loads(result.stdout)
    assert (found["schema"], found["folder"], found["steps"]) == ("ctxindex.finetune/1", "tuned", 250)
    assert (found["base"], found["method"], found["merged"]) == ("minilm-insent", "late", 0.5)
    assert found["data"]["trained"] == {"towns": {"documents": 11, "queries": 22}}
    assert found["data"]["held_out"] == {"towns": {"documents": 1, "queries": 2}}
    assert {one["measured"] for one in found["results"]} == {"base, each chunk alone", "base, in context", "tuned"}
    (one,) = found["differences"]
    assert str(found["verdict"]).startswith("The tuned model finds more than its base. These are")
    assert one["difference"] == pytest.approx(0.16)
    assert found["history"][0]["loss"] > 0


def test_progress_is_told_line_by_line(work: Path, asked: Asked) -> None:
    from transformers import TrainerControl, TrainerState

    def meanwhile(call: dict[str, Any]) -> None:
        (callback,) = call["callbacks"]
        state, control = TrainerState(max_steps=20, global_step=5), TrainerControl()
        callback.on_train_begin(None, state, control)
        state.global_step = 6
        callback.on_step_end(None, state, control)
        for state.global_step in (10, 20):
            callback.on_step_end(None, state, control)
            callback.on_log(None, state, control, logs={"loss": 1.5, "l_seq": 1.0})
        callback.on_log(None, state, control, logs={"eval_ndcg@10": 0.5, "eval_ndcg@10 a": 0.4, "eval_ndcg@10 b": 0.6})
        callback.on_log(None, state, control, logs={"train_runtime": 3.0})
        callback.on_train_end(None, state, control)
        state.is_world_process_zero = False
        callback.on_step_end(None, state, control)
        callback.on_log(None, state, control, logs={"loss": 99.0})

    asked.meanwhile = meanwhile
    lines = train().stderr.splitlines()[1:]
    assert lines[0] == "training: 20 steps, 5 of them done before"
    assert re.fullmatch(r"step 6 of 20: 0\.0 s a step, about 0 s to go", lines.pop(1))
    assert lines[1].startswith("step 10 of 20: loss 1.5000, ")
    assert lines[2].startswith("step 20 of 20: loss 1.5000, ")
    assert lines[3] == "step 20 of 20: nDCG@10 50.0 on held-out documents (a 40.0, b 60.0)"
    assert lines[4].startswith("trained 20 steps in")
    assert len(lines) == 5
    asked.calls.clear()
    asked.meanwhile = lambda call: None
    train("--quiet")
    assert asked.call["callbacks"] == []


def test_one_process_speaks_for_all(work: Path, asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    result = train("--json")
    assert result.output == ""
    # Nor does it end the job of all with an exit code of its own.
    monkeypatch.setattr("ctxindex.cli.finetune.unreadable", lambda training: [("towns", "bad", "why")])
    assert train("--json").exit_code == 0
    monkeypatch.setenv("RANK", "0")
    assert run("towns", "--out", "tuned", *CHUNKS, "--json").exit_code == 3


def test_documents_with_pairs_and_what_lies_among_them(work: Path, asked: Asked) -> None:
    folder = write_documents(work / "docs", PLACES[:6])
    (work / "docs" / "bad.txt").write_bytes(b"\x00\x01\x02\xff" * 500)
    (folder / "old" / "training").mkdir(parents=True)
    (folder / "old" / "training" / "plan.json").write_text("{}", encoding="utf-8")
    (folder / "old" / "README.md").write_text("# a card of an earlier training", encoding="utf-8")
    rows = [{**pair(place, 1), "doc_id": f"docs/{place}.txt"} for place in PLACES[:6]]
    rows.append({"query": "bad?", "doc_id": "docs/bad.txt", "start": 0, "end": 1})
    write_jsonl(folder / "pairs [1].jsonl", rows)
    result = run("docs", "--pairs", folder / "pairs [1].jsonl", "--out", folder / "old", *CHUNKS, "--json", "--resume")
    assert result.exit_code == 3, (result.output, result.exception)
    found = json.loads(result.stdout)
    assert found["data"]["trained"] == {"pairs [1]": {"documents": 5, "queries": 5}}
    assert [one["doc_id"] for one in found["failed"]] == ["docs/bad.txt"]
    assert "docs/bad.txt" in result.stderr
    data = asked.call["data"]
    assert not [name for corpus in data.held.values() for name in corpus.document_names if "old" in name]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("towns", "--documents", "40"), "fewer than a batch"),
        (("towns", "--held-out", "1"), "--held-out"),
        (("towns", "--held-out", "0.1", "--validation", "towns"), "leave one out"),
        (("towns", "--replay-share", "0.1"), "--replay names"),
        (("towns", "--merge", "2"), "--merge 2"),
        (("towns", "--merge", "x"), "--merge x"),
        (("nowhere", "--merge", "sweep", "--held-out", "0"), "--merge chooses on held-out documents"),
        (("towns", "--held-out", "0", "--evaluate-every", "5"), "--evaluate-every"),
        (("towns", "--patience", "5"), "--evaluate-every STEPS"),
        (("towns", "--root", "."), "--pairs FILE"),
        (("towns", "--chunks", "given"), "leave one out"),
        (("towns", "--anchor", "500"), "--anchor 500"),
        (("towns", "--blend", "0", "--distil", "0.1"), "--distil is about the two vectors"),
        (("towns", "--blend", "0", "--skip-contextual", "0.1"), "--skip-contextual is about the two vectors"),
        (("towns", "--blend", "0", "--skip-isolated", "0.1"), "or say how much with --blend"),
        (
            ("towns", "--no-anchor-title", "--isolated", "chunk", "--withhold-titles", "0.1"),
            "--withhold-titles leaves out what nothing shows",
        ),
        (("towns", "--skip-contextual", "0.6", "--skip-isolated", "0.6"), "more than all steps"),
        (("nowhere",), "no such dataset"),
        (("towns", "--pairs", "nowhere.jsonl"), "--pairs nowhere.jsonl: there is no such file"),
        (("towns", "--pairs", "towns/queries.jsonl"), "towns is a set with its own questions: leave --pairs out"),
        ((".", "--pairs", "towns/queries.jsonl"), "--out tuned lies in ., where documents are read from"),
        (("towns", "--steps", "5", "--epochs", "1"), "--steps and --epochs both say"),
    ],
)
def test_what_cannot_be_done_is_told_with_a_remedy(
    work: Path, asked: Asked, arguments: tuple[str, ...], message: str
) -> None:
    error = refused(*arguments)
    assert isinstance(error, UsageError)
    assert message in str(error)
    assert not asked.calls


def test_a_method_that_a_variable_names_may_not_read_alone(
    work: Path, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CTXINDEX_METHOD", "independent")
    error = refused("towns")
    assert isinstance(error, ConfigError)
    assert "--method independent reads no context to train for" in str(error)


@pytest.mark.parametrize(
    ("package", "flags", "extra"),
    [("accelerate", (), "train"), ("tensorboard", ("--tensorboard",), "train"), ("peft", ("--lora", "4"), "lora")],
)
def test_what_is_not_installed_is_named(
    work: Path, asked: Asked, monkeypatch: pytest.MonkeyPatch, package: str, flags: tuple[str, ...], extra: str
) -> None:
    from importlib.util import find_spec

    monkeypatch.setattr("ctxindex.cli.finetuning.find_spec", lambda name: None if name == package else find_spec(name))
    error = refused("towns", *flags)
    assert isinstance(error, MissingDependencyError)
    assert f"pip install 'ctxindex[{extra}]'" in str(error)


def test_a_tiny_model_is_trained_from_end_to_end(work: Path) -> None:
    base = save_sentence_transformer(work / "base")
    write_beir(work / "practice", PLACES[:4])
    flags = ("--model", "base", "--documents", "2", "--steps", "4", "--save-every", "2", "--held-out", "0.25")
    result = train(*flags, "--replay", "practice", "--merge", "0.5,1", "--evaluate-every", "2", "--device", "cpu")
    assert "difference to the better base" in result.stdout
    assert "step 2 of 4: nDCG@10" in result.stderr
    card = (work / "tuned" / "README.md").read_text(encoding="utf-8")
    assert yaml.safe_load(card.split("---\n")[1])["base_model"] == "base"
    assert str(work) not in card
    tuned = load_encoder("tuned")
    spec = tuned.spec
    read = (spec.method, spec.anchor, spec.anchor_title, spec.blend, spec.isolated)
    assert read == ("late", 32, True, 0.6, "opening")
    assert spec.digest != load_encoder(str(base)).spec.digest
    error = refused("towns")
    assert isinstance(error, ConfigError)
    assert "tuned is not empty: choose a new folder, or go on in it with --resume" in str(error)
    again = train(*flags, "--replay", "practice", "--merge", "0.5,1", "--evaluate-every", "2", "--resume")
    assert "Finished before, with 4 steps in" in again.stdout
    table = [one for one in result.stdout.splitlines() if "tuned" in one and "[" in one]
    assert table
    assert table == [one for one in again.stdout.splitlines() if "tuned" in one and "[" in one]
