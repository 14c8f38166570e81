"""`ctxindex finetune`: folders that are in use, and trainings that were interrupted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ctxindex.cli import INTERRUPTED
from ctxindex.encoding import load_encoder
from ctxindex.training import finetune as finetuning
from tests.cli.test_finetune import CHUNKS, Asked, refused, run
from tests.encoding.test_colbert import PYLATE, pylate
from tests.encoding.tiny import save_sentence_transformer
from tests.training.sets import write_set


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with the set `towns`."""
    write_set(tmp_path / "towns")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """What the command asks of the training, which is not done."""
    stand_in = Asked()
    monkeypatch.setattr(finetuning, "finetune", stand_in)
    return stand_in


@pytest.mark.parametrize("saved", [True, False])
def test_an_interruption_says_how_to_go_on(
    work: Path, asked: Asked, monkeypatch: pytest.MonkeyPatch, saved: bool
) -> None:
    def meanwhile(call: dict[str, Any]) -> None:
        (call["out"] / "training" / "checkpoints" / "checkpoint-100").mkdir(parents=True)
        (call["out"] / "training" / "plan.json").write_text("{}", encoding="utf-8")
        if saved:
            monkeypatch.setattr("ctxindex.training.running.checkpoints.is_complete", lambda *_: True)
        raise KeyboardInterrupt

    asked.meanwhile = meanwhile
    result = run("towns", "--out", "tuned", *CHUNKS)
    assert result.exit_code == INTERRUPTED
    assert "--resume" in result.stderr
    assert ("goes on from the last checkpoint" in result.stderr) == saved


def test_an_interruption_before_training_leaves_nothing_to_go_on_with(
    work: Path, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ctxindex.cli.finetuning.read_data", interrupted)
    result = run("towns", "--out", "tuned", *CHUNKS)
    assert result.exit_code == INTERRUPTED
    assert result.stderr.strip() == "Interrupted before training began: the same command begins anew."
    assert not (work / "tuned").exists()


def test_a_folder_in_use_is_told_before_anything_is_read(work: Path, asked: Asked) -> None:
    (work / "tuned").mkdir()
    (work / "tuned" / "notes.txt").write_text("", encoding="utf-8")
    assert "is not empty" in str(refused("nowhere"))
    assert "holds no training" in str(refused("nowhere", "--resume"))


def test_a_folder_that_cannot_be_made_is_told(work: Path, asked: Asked) -> None:
    for out in ("/proc/tuned", "x" * 300):
        assert "cannot be made (" in str(run("nowhere", "--out", out).exception)


def test_there_may_be_nothing_to_go_on_with(work: Path, asked: Asked) -> None:
    result = run("towns", "--out", "elsewhere", "--resume", *CHUNKS)
    assert "There is no training in elsewhere to go on with: it begins here.\n" in result.stderr
    assert "no training" not in run("towns", "--out", "other", *CHUNKS).stderr


def test_chunks_alone_are_no_context_to_train_for(work: Path, asked: Asked) -> None:
    pylate(work / "late", PYLATE)
    assert "reads no context" in str(refused("nowhere", "--windows", "chunk", "--model", "late"))


def test_a_training_that_was_interrupted_ends_in_the_same_model(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ctxindex.cli.progress import TrainingLines

    save_sentence_transformer(work / "base")
    flags = ("--model", "base", "--documents", "2", "--steps", "4", "--save-every", "2", "--held-out", "0")
    command_of = ("towns", *CHUNKS, *flags, "--device", "cpu", "--out")
    assert run(*command_of, "whole").exit_code == 0

    def stop(watch: Any, done: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(TrainingLines, "step", stop)
        result = run(*command_of, "part")
    assert result.exit_code == INTERRUPTED
    assert "goes on from the last checkpoint in part" in result.stderr
    again = run(*command_of, "part", "--resume")
    assert "training: 4 steps, 2 of them done before" in again.stderr
    assert load_encoder("part").spec.digest == load_encoder("whole").spec.digest
    assert "nothing is known of what it finds" in again.stdout
