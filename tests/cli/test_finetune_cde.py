"""`ctxindex finetune --method cde`: what its flags come to, what is refused, and one training from end to end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ctxindex.encoding.cde.folder import make_native_cde
from ctxindex.encoding.cde.settings import NativeCde
from ctxindex.errors import ConfigError
from ctxindex.training import finetune as finetuning
from ctxindex.training.contextual.context import ContextDropout
from ctxindex.training.contextual.filtering import FalseNegativeFilter
from ctxindex.training.contextual.options import PAIRS, ContextualOptions
from ctxindex.training.finetune import ALONE, CONTEXT, NULL, TUNED
from tests.cli.test_finetune import CHUNKS, Asked, refused, run, train
from tests.encoding.tiny import save_sentence_transformer
from tests.training.sets import write_set

CDE = ("--model", "bert", "--method", "cde")
SOME = ("--documents", "4")


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with the set `towns` and the model `bert`."""
    write_set(tmp_path / "towns")
    save_sentence_transformer(tmp_path / "bert")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    return tmp_path


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    stand_in = Asked()
    monkeypatch.setattr(finetuning, "finetune", stand_in)
    return stand_in


def test_what_is_not_said_is_the_default(work: Path, asked: Asked) -> None:
    train(*CDE, *SOME)
    plan = asked.plan
    assert plan.contextual == ContextualOptions()
    assert (plan.encoder.method, plan.encoder.anchor, plan.encoder.blend) == ("cde", 32, 0.6)
    assert (plan.schedule.documents, plan.schedule.windows) == (4, 1)
    assert "method `cde`" in asked.call["text"]
    error = refused("towns", *CDE)
    assert str(error).startswith(f"towns has 22 questions to train on, fewer than a batch of {PAIRS} pairs")


def test_flags_are_what_they_say(work: Path, asked: Asked) -> None:
    flags = "--batches random --filter absolute --filter-margin 0.7 --context-size 3-5 --context-dropout 1"
    train(*CDE, *SOME, *flags.split(), "--first-stage", "shared", "--insent", "0.5", "--lambda", "0.3")
    assert asked.plan.contextual == ContextualOptions(
        batches="random",
        filter=FalseNegativeFilter("absolute", 0.7),
        context_size=(3, 5),
        dropout=ContextDropout(0.005, 1.0),
        first_stage="shared",
        insent=0.5,
    )
    assert asked.plan.objective.insent.lambda_seq == 0.3


def test_a_cde_model_is_trained_as_one(work: Path, asked: Asked) -> None:
    make_native_cde("bert", work / "base", NativeCde(share_stages=True))
    train("--model", "base", *SOME, "--context-size", "6")
    plan = asked.plan
    assert (plan.encoder.method, plan.contextual.first_stage, plan.contextual.context_size) == ("cde", "shared", (6, 6))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--method late --batches random", "--batches goes with --method cde"),
        ("--method late --context-dropout 0", "--context-dropout goes with --method cde"),
        ("--method cde --hold 0.1", "--hold does not go with --method cde"),
        (
            "--method cde --gather-negatives",
            "--gather-negatives does not go with --method cde: it trains on one device",
        ),
        ("--method cde --lambda 0.1", "--lambda is of the InSeNT loss: say how much that counts with --insent"),
        ("--method cde --insent 1 --punish-positives", "--punish-positives does not go with --method cde"),
        ("--method cde --document-windows 4", "--document-windows is for siblings"),
        ("--method cde --batches random --cluster-size 4", "--cluster-size is of --batches clusters"),
        ("--method cde --filter none --filter-margin 1", "--filter-margin is of a filter"),
        ("--method cde --filter absolute", "--filter absolute needs the score"),
        ("--method cde --context-size many", "--context-size many: a number of texts"),
        ("--method cde --context-size 9-3", "--context-size 9-3: texts of a context at least and at most"),
    ],
)
def test_what_does_not_go_together_is_refused(work: Path, asked: Asked, flags: str, message: str) -> None:
    error = refused("towns", "--model", "bert", *SOME, *flags.split())
    assert isinstance(error, ConfigError)
    assert str(error).startswith(message)
    assert not asked.calls


def test_a_training_from_end_to_end(work: Path) -> None:
    flags = "--steps 1 --context-size 2-3 --precision float32 --device cpu --threads 1 --anchor 8 --json --quiet"
    result = run("towns", "--out", "tuned", *CHUNKS, *CDE, *SOME, *flags.split())
    assert result.exit_code == 0, (result.output, result.exception)
    said = json.loads(result.stdout)
    assert (said["method"], said["steps"]) == ("cde", 1)
    assert [one["measured"] for one in said["results"]] == [ALONE, CONTEXT, NULL, TUNED]
    card = (work / "tuned" / "README.md").read_text(encoding="utf-8")
    for words in ("| batches and contexts |", "| difference to no corpus context |", "filter rule relative"):
        assert words in card
    assert str(work) not in card
