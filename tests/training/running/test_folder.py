"""The folder of a training: what may begin in it, what goes on from where, and what is refused."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from ctxindex.errors import ConfigError, ModelError
from ctxindex.training import workshop as module
from ctxindex.training.data import Data
from ctxindex.training.finetune import Plan
from ctxindex.training.running.checkpoints import is_complete, last_complete
from ctxindex.training.running.folder import DONE, PLAN, TrainingFolder
from ctxindex.training.running.folder import TUNED as WEIGHTS
from ctxindex.training.running.trainer import ContextualTrainer
from tests.training.runs import QUICK, plan_of, trained, weights


def test_another_training_is_named_leaf_by_leaf(root: Path, data: Data, whole: Path) -> None:
    def refused(plan: Plan, data: Data = data) -> str:
        with pytest.raises(ConfigError, match="holds another training") as raised:
            trained(plan, data, whole, resume=True)
        return str(raised.value)

    slower = replace(QUICK, learning_rate=1e-4)
    merge = (0.5, 1.0)
    assert "--learning-rate (0.005 there, 0.0001 here)." in refused(plan_of(root, schedule=slower, merge=merge))
    message = refused(plan_of(root, "cls", merge=merge))
    assert "the base model" in message
    assert "--force-mean (False there, True here)" in message
    assert "precision (float32 there, bfloat16 here)" in refused(
        plan_of(root, schedule=replace(QUICK, precision="bfloat16"))
    )
    other = replace(data, held={})
    assert "what is measured on of towns (documents, questions, --held-out" in refused(plan_of(root), other)
    harmless = replace(QUICK, save_every=7, mini_batch_tokens=64, gradient_checkpointing=True)
    assert trained(plan_of(root, schedule=harmless, merge=merge), data, whole, resume=True).earlier


def test_what_came_to_no_checkpoint_may_go_on_otherwise(
    root: Path, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a batch did not fit in memory: the same folder, with a smaller one."""
    out = tmp_path / "tuned"
    with monkeypatch.context() as patched:
        patched.setattr(ContextualTrainer, "training_step", fail)
        with pytest.raises(ModelError, match="does not fit in memory"):
            trained(plan_of(root, schedule=replace(QUICK, documents=3)), data, out)
    assert (out / "training" / "plan.json").is_file()
    with pytest.raises(ConfigError, match="go on in it with --resume"):
        trained(plan_of(root), data, out)
    assert trained(plan_of(root), data, out, resume=True).steps == 2


def fail(*_: Any, **__: Any) -> None:
    raise MemoryError("by a test")


def test_a_place_that_cannot_be_written_is_told_before_anything_is_read(tmp_path: Path) -> None:
    (tmp_path / "file.txt").write_text("", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"file\.txt is no folder that may be written in"):
        TrainingFolder(tmp_path / "file.txt" / "tuned").require_usable(resume=False)


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "No space left on device"),
        (SafetensorError("Error while serializing: I/O error: x (os error 28)"), "No space left on device"),
        (RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed"), "a file is not complete"),
    ],
)
def test_a_full_disk_is_told(tmp_path: Path, error: Exception, why: str) -> None:
    told = f"{why}; make room, and go on with --resume"
    with pytest.raises(ModelError, match=told), TrainingFolder(tmp_path).writing():
        raise error


def test_weights_on_a_disk_that_takes_no_more(tmp_path: Path) -> None:
    """What the libraries say themselves, of a file that may not grow."""
    script = (
        "import resource, signal, sys, torch\nfrom pathlib import Path\nfrom safetensors.torch import save_file\n"
        "from ctxindex.errors import ModelError\nfrom ctxindex.training.running.folder import TrainingFolder\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\nresource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "out = Path(sys.argv[1])\ntensors = {'a': torch.zeros(100_000)}\n"
        "for write in (save_file, torch.save):\n"
        "    try:\n        with TrainingFolder(out).writing():\n            write(tensors, out / 'x')\n"
        "    except ModelError as error:\n        print(error)\n"
    )
    printed = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True)
    assert printed.stdout.count("make room, and go on with --resume") == 2, printed


def test_other_errors_are_not_taken_for_a_full_disk(tmp_path: Path) -> None:
    for error in (FileNotFoundError(errno.ENOENT, "no such file", str(tmp_path / "x")), RuntimeError("other")):
        with pytest.raises(type(error), match=r"no such file|other"), TrainingFolder(tmp_path).writing():
            raise error


def test_other_devices_are_another_training(
    root: Path, data: Data, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(ConfigError, match=r"devices \(1 there, 4 here\)"):
        trained(plan_of(root), data, whole, resume=True)
    monkeypatch.setenv("RANK", "1")
    found = trained(plan_of(root), data, whole, resume=True)
    assert (found.steps, found.runs) == (2, {}), "the first process speaks for all"


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"schedule": replace(QUICK, documents=40)}, ConfigError, "fewer than a batch of 40"),
        ({"merge": (0.5, 1.0)}, ConfigError, "documents must be held out"),
        ({"kind": "unwritable"}, ModelError, "cannot be written so that it opens"),
    ],
)
def test_what_cannot_begin_leaves_nothing(
    root: Path,
    data: Data,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    def train(*_: Any, **__: Any) -> Any:
        raise AssertionError("it began")

    monkeypatch.setattr(ContextualTrainer, "train", train)
    change = dict(change)
    if change.pop("kind", None):
        monkeypatch.setattr("ctxindex.training.results.tuned.write_settings", lambda *_: None)
    with pytest.raises(error, match=message):
        trained(plan_of(root, **change), replace(data, held={}), tmp_path / "tuned")
    assert list(tmp_path.iterdir()) == []


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-20])


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "trainer_state.json").unlink(),
        lambda folder: cut(folder / "trainer_state.json"),
        lambda folder: cut(folder / "model.safetensors"),
        lambda folder: (folder / "optimizer.pt").unlink(),
        lambda folder: cut(folder / "scheduler.pt"),
        lambda folder: cut(folder / "rng_state.pth"),
    ],
)
def test_a_checkpoint_is_whole_or_none(
    root: Path, data: Data, checkpoint: Path, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    for step in (9, 10, 11):
        shutil.copytree(checkpoint, tmp_path / f"checkpoint-{step}")
    (tmp_path / "checkpoint-12").mkdir()
    assert last_complete(tmp_path) == tmp_path / "checkpoint-11"
    assert not is_complete(tmp_path / "checkpoint-11", devices=2)
    damage(tmp_path / "checkpoint-11")
    assert last_complete(tmp_path) == tmp_path / "checkpoint-10"


@pytest.fixture(scope="module")
def checkpoint(root: Path, data: Data, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that a training has written."""
    out = tmp_path_factory.mktemp("kept") / "tuned"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.Workshop, "finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            trained(plan_of(root), replace(data, held={}), out)
    return out / "training" / "checkpoints" / "checkpoint-2"


def test_a_training_goes_on_from_the_newest_whole_checkpoint(
    root: Path, data: Data, checkpoint: Path, tmp_path: Path
) -> None:
    shutil.copytree(checkpoint.parents[2], tmp_path / "tuned")
    training = tmp_path / "tuned" / "training"
    expected = load_file(training / WEIGHTS)
    (training / DONE).unlink()
    (training / WEIGHTS).unlink()
    (training / "checkpoints" / "checkpoint-2" / "optimizer.pt").unlink()
    trained(plan_of(root), replace(data, held={}), tmp_path / "tuned", resume=True)
    found = weights(tmp_path / "tuned")
    assert all(torch.equal(found[name], expected[f"transformer.{name}"]) for name in found)


def test_a_start_that_was_killed_is_no_use_of_a_folder(tmp_path: Path) -> None:
    folder = TrainingFolder(tmp_path)
    folder.candidate.mkdir(parents=True)
    (folder.candidate / "model.safetensors").write_bytes(b"")
    folder.require_usable(resume=False)
    (tmp_path / "notes.txt").write_text("", encoding="utf-8")
    with pytest.raises(ConfigError, match="is not empty"):
        folder.require_usable(resume=False)
    with pytest.raises(ConfigError, match="holds no training"):
        folder.require_usable(resume=True)
    with pytest.raises(ConfigError, match="is a file"):
        TrainingFolder(tmp_path / "notes.txt").require_usable(resume=True)


def test_the_plan_is_there_when_training_begins(
    root: Path, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, Any]] = []

    def train(*_: Any, **__: Any) -> Any:
        seen.append(json.loads((tmp_path / "training" / PLAN).read_text(encoding="utf-8")))
        raise KeyboardInterrupt

    monkeypatch.setattr(ContextualTrainer, "train", train)
    with pytest.raises(KeyboardInterrupt):
        trained(plan_of(root), data, tmp_path)
    (told,) = seen
    assert (told["devices"], told["precision"]) == (1, "float32")
    assert told["schedule"].keys() == asdict(QUICK).keys() - {
        "save_every",
        "patience",
        "mini_batch_tokens",
        "gradient_checkpointing",
        "precision",
    }
