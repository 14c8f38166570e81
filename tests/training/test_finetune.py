"""A training as a whole, on tiny models: what is written, what is not done twice, what is refused before it begins."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ctxindex.encoding import EncoderOptions, load_encoder, open_checkpoint
from ctxindex.errors import ConfigError, ModelError
from ctxindex.evaluation.results import Run
from ctxindex.training import workshop as module
from ctxindex.training.checkpoints import is_complete, last_complete
from ctxindex.training.context import in_context
from ctxindex.training.data import Data, DataOptions, read_data
from ctxindex.training.finetune import ALONE, CONTEXT, TUNED, Plan, finetune, given
from ctxindex.training.folder import DONE, PLAN, TrainingFolder
from ctxindex.training.folder import TUNED as WEIGHTS
from ctxindex.training.measured import mean_of
from ctxindex.training.options import ObjectiveOptions, Shares
from ctxindex.training.schedule import Schedule
from ctxindex.training.trainer import ContextualTrainer
from tests.encoding.test_colbert import PYLATE, pylate
from tests.encoding.tiny import bert as bert_config
from tests.encoding.tiny import save_backbone, save_sentence_transformer, tokenizer_for
from tests.training.sets import PLACES, SPEC, chunker, write_beir, write_set

QUICK = Schedule(
    steps=2, documents=2, windows=2, queries=2, clozes=0, learning_rate=5e-3, save_every=1, precision="float32"
)


@pytest.fixture(autouse=True)
def _one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    save_sentence_transformer(folder / "bert")
    save_sentence_transformer(folder / "cls", pooling="cls")
    pylate(folder / "pylate", PYLATE)
    tokenizer = tokenizer_for("bert")
    save_backbone(folder / "bare", bert_config(tokenizer), tokenizer)
    write_set(folder / "towns", PLACES[:6], sentences=(0,))
    write_beir(folder / "practice", PLACES[6:9])
    return folder


@pytest.fixture(scope="module")
def data(root: Path) -> Data:
    named = DataOptions((str(root / "towns"),), held_out=0.3)
    return read_data(named, chunker(load_encoder(str(root / "bert")).tokenizer), SPEC)


def plan_of(root: Path, kind: str = "bert", schedule: Schedule = QUICK, **more: Any) -> Plan:
    chosen = more.pop("encoder", {"anchor": 8} | ({"force_mean": True} if kind in ("cls", "bare") else {}))
    encoder = in_context(EncoderOptions(**chosen), open_checkpoint(str(root / kind)))
    return Plan(str(root / kind), encoder, SPEC, schedule=schedule, **more)


def trained(plan: Plan, data: Data, out: Path, **more: Any) -> Any:
    return finetune(plan, data, out, device="cpu", **more)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


@pytest.fixture(scope="module")
def whole(root: Path, data: Data, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished training."""
    out = tmp_path_factory.mktemp("whole") / "tuned"
    trained(plan_of(root, merge=(0.5, 1.0)), data, out, card=lambda found: f"# {found.folder.name}\n")
    return out


def test_measurements_decide_the_share(root: Path, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Mapping[float, Sequence[Run]]] = []

    def chosen(measured: Mapping[float, Sequence[Run]]) -> float:
        told.append(measured)
        return 0.25

    monkeypatch.setattr(module, "least_share", chosen)
    objective = ObjectiveOptions(cross_batch_memory=6)
    found = trained(plan_of(root, merge=(0.25, 1.0), objective=objective), data, tmp_path / "tuned")
    assert (found.merged, found.merges) == (0.25, {share: mean_of(runs) for share, runs in told[0].items()})
    trained(plan_of(root, merge=(0.25,), objective=objective), replace(data, held={}), tmp_path / "one")
    torch.testing.assert_close(weights(tmp_path / "tuned"), weights(tmp_path / "one"), atol=0, rtol=0)


def test_a_finished_training_says_what_was_found(root: Path, data: Data, whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "tuned")
    assert sorted(file.name for file in (whole / "training").iterdir()) == ["curve.json", "done.json", "plan.json"]
    before = {file: file.read_bytes() for file in (tmp_path / "tuned").rglob("*") if file.is_file()}
    again = trained(plan_of(root, merge=(0.5, 1.0)), data, tmp_path / "tuned", resume=True)
    assert {file: file.read_bytes() for file in (tmp_path / "tuned").rglob("*") if file.is_file()} == before
    assert again.earlier
    assert (again.steps, set(again.merges), set(again.runs)) == (2, {0.5, 1.0}, {ALONE, CONTEXT, TUNED})
    assert again.merged in (0.5, 1.0)
    measured = mean_of(again.runs[TUNED])
    assert measured == pytest.approx(again.merges[again.merged])
    assert [line["step"] for line in again.history if "train_loss" in line] == [2]
    with pytest.raises(ConfigError, match=r"is finished: .* for another --merge train anew"):
        trained(plan_of(root), data, tmp_path / "tuned", resume=True)
    with pytest.raises(ConfigError, match="is not empty"):
        trained(plan_of(root), data, tmp_path / "tuned")
    (tmp_path / "tuned" / "ctxindex.json").unlink()
    with pytest.raises(ConfigError, match="a finished training without its model"):
        trained(plan_of(root, merge=(0.5, 1.0)), data, tmp_path / "tuned", resume=True)


def test_a_training_that_ended_is_only_written_and_measured(
    root: Path, data: Data, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any) -> Any:
        raise KeyboardInterrupt

    out = tmp_path / "tuned"
    with monkeypatch.context() as patch:
        patch.setattr(module.Workshop, "_measure", killed)
        with pytest.raises(KeyboardInterrupt):
            trained(plan_of(root), data, out)
    assert (out / "training" / WEIGHTS).is_file()
    monkeypatch.setattr(ContextualTrainer, "train", killed)
    found = trained(plan_of(root, merge=(0.5, 1.0)), data, out, resume=True)
    assert not found.earlier
    assert set(found.merges) == {0.5, 1.0}
    assert all(torch.equal(one, weights(whole)[name]) for name, one in weights(out).items())
    assert not (out / "training" / WEIGHTS).exists()


def test_merged_weights_lie_between(root: Path, data: Data, tmp_path: Path) -> None:
    for share in (1.0, 0.25):
        trained(plan_of(root, merge=(share,)), replace(data, held={}), tmp_path / str(share))
    base, tuned, merged = (weights(folder) for folder in (root / "bert", tmp_path / "1.0", tmp_path / "0.25"))
    changed = 0
    for name, one in base.items():
        torch.testing.assert_close(merged[name], torch.lerp(one, tuned[name], 0.25), atol=1e-7, rtol=0)
        changed += not torch.equal(one, tuned[name])
    assert changed > 10


def test_adapters_end_in_the_weights(root: Path, data: Data, tmp_path: Path) -> None:
    schedule = replace(QUICK, lora=2)
    trained(plan_of(root, schedule=schedule, objective=ObjectiveOptions(hold=0.1)), replace(data, held={}), tmp_path)
    base, tuned = weights(root / "bert"), weights(tmp_path)
    assert base.keys() == tuned.keys()
    different = {name for name, one in base.items() if not torch.equal(one, tuned[name])}
    assert different
    assert all(name.endswith(("dense.weight", "query.weight", "key.weight", "value.weight")) for name in different)


def test_a_late_interaction_model_opens_in_sentence_transformers(root: Path, data: Data, tmp_path: Path) -> None:
    from sentence_transformers import MultiVectorEncoder

    found = trained(plan_of(root, "pylate"), data, tmp_path)
    assert set(found.runs) == {CONTEXT, TUNED}
    theirs: Any = MultiVectorEncoder(str(tmp_path), device="cpu")
    expected = theirs.encode_query(["Which law governs Delaware?"], convert_to_numpy=True)[0]
    (ours,) = load_encoder(str(tmp_path), EncoderOptions(device="cpu", dtype="float32")).encode_queries(
        ["Which law governs Delaware?"]
    )
    np.testing.assert_allclose(np.asarray(ours, dtype=np.float32), expected[: len(ours)], atol=2e-3)
    for name in ("model.safetensors", "1_Dense/model.safetensors"):
        base, tuned = load_file(root / "pylate" / name), load_file(tmp_path / name)
        assert any(not torch.equal(one, tuned[key]) for key, one in base.items()), name


def test_a_late_interaction_model_is_trained_through_the_blend(root: Path, data: Data, tmp_path: Path) -> None:
    mixed = plan_of(root, "pylate", encoder={"anchor": 8, "blend": 0.4}, shares=Shares(isolated=0.4))
    found = trained(replace(mixed, objective=ObjectiveOptions(hold=0.1, distil=0.1)), data, tmp_path)
    assert set(found.runs) == {CONTEXT, TUNED}
    spec = load_encoder(str(tmp_path)).spec
    assert (spec.method, spec.anchor, spec.blend, spec.isolated) == ("late-interaction", 8, 0.4, "opening")
    base, tuned = (load_file(one / "1_Dense/model.safetensors") for one in (root / "pylate", tmp_path))
    assert not torch.equal(base["linear.weight"], tuned["linear.weight"])


@pytest.mark.parametrize("kind", ["bare", "cls"])
def test_forced_means_are_what_the_folder_says(root: Path, data: Data, tmp_path: Path, kind: str) -> None:
    found = trained(plan_of(root, kind), data, tmp_path)
    assert set(found.runs) == {ALONE, CONTEXT, TUNED}
    spec = load_encoder(str(tmp_path)).spec
    assert (spec.method, spec.anchor, spec.force_mean) == ("late", 8, False)


def test_settings_in_training_are_those_of_the_model(root: Path, data: Data, tmp_path: Path) -> None:
    chosen = {"owner": "first", "max_tokens": 64, "dims": 16, "blend": 0.0, "anchor": 0, "anchor_title": False}
    found = trained(plan_of(root, encoder=chosen), data, tmp_path)
    spec = load_encoder(str(tmp_path)).spec
    assert (spec.owner, spec.max_tokens, spec.dim, spec.blend, spec.anchor) == ("first", 64, 16, 0.0, 0)
    assert not spec.anchor_title
    told = {name: dict(runs[0].configuration.settings) for name, runs in found.runs.items()}
    assert told[CONTEXT] == {**chosen, "force_mean": False}
    assert told[ALONE] == {"max_tokens": 64, "dims": 16}
    (run,) = found.runs[CONTEXT]
    encoder = run.notes["encoder"]
    assert (encoder["anchor"], encoder["blend"], encoder["dim"]) == (0, 0.0, 16)


def test_zeros_and_noes_are_choices() -> None:
    options = EncoderOptions(method="late", anchor=0, blend=0.0, anchor_title=False, device="cpu", dtype="float32")
    assert given(options) == {"anchor": 0, "blend": 0.0, "anchor_title": False, "force_mean": False}


def test_another_training_is_named_leaf_by_leaf(root: Path, data: Data, whole: Path) -> None:
    def refused(plan: Plan, data: Data = data) -> str:
        with pytest.raises(ConfigError, match="holds another training") as raised:
            trained(plan, data, whole, resume=True)
        return str(raised.value)

    slower = replace(QUICK, learning_rate=1e-4)
    merge = (0.5, 1.0)
    assert "schedule.learning_rate (0.005 there, 0.0001 here)." in refused(plan_of(root, schedule=slower, merge=merge))
    message = refused(plan_of(root, "cls", merge=merge))
    assert "the base model" in message
    assert "encoder.force_mean (False there, True here)" in message
    assert "precision (float32 there, bfloat16 here)" in refused(
        plan_of(root, schedule=replace(QUICK, precision="bfloat16"))
    )
    other = replace(data, held={})
    assert "the data towns (held)" in refused(plan_of(root), other)
    harmless = replace(QUICK, save_every=7, mini_batch_tokens=64, gradient_checkpointing=True)
    assert trained(plan_of(root, schedule=harmless, merge=merge), data, whole, resume=True).earlier


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
        monkeypatch.setattr("ctxindex.training.tuned.write_settings", lambda *_: None)
    with pytest.raises(error, match=message):
        trained(plan_of(root, **change), replace(data, held={}), tmp_path / "tuned")
    assert list(tmp_path.iterdir()) == []


def test_late_interaction_practises_nothing_alone(root: Path, data: Data, tmp_path: Path) -> None:
    both = replace(data, replay=data.held, held={})
    with pytest.raises(ConfigError, match=r"--replay reads each chunk alone, and .*pylate is a late-interaction model"):
        trained(plan_of(root, "pylate"), both, tmp_path / "tuned")
    assert not (tmp_path / "tuned").exists()


def test_what_is_practised_has_vectors_of_the_same_kind(root: Path, data: Data, tmp_path: Path) -> None:
    chosen = {"max_tokens": 64, "dims": 16, "force_mean": True, "anchor": 8}
    both = replace(data, replay={"more": data.held["towns"]}, held={})
    shares = {"towns": 0.5, "more": 0.5}
    workshop = module.Workshop(
        plan_of(root, "cls", encoder=chosen), both, TrainingFolder(tmp_path), "cpu", None, False, None
    )
    spec = workshop._reader_alone().spec
    assert (spec.method, spec.max_tokens, spec.dim, spec.force_mean) == ("independent", 64, 16, True)
    plan = plan_of(root, "cls", encoder=chosen, source_shares=shares)
    assert trained(plan, both, tmp_path / "tuned").steps == 2


def test_threads_are_those_asked_for(root: Path, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(module, "use_threads", asked.append)
    monkeypatch.setattr(module, "keep_freed_memory", lambda: asked.append("memory"))

    def train(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(ContextualTrainer, "train", train)
    with pytest.raises(KeyboardInterrupt):
        trained(plan_of(root), data, tmp_path, threads=1)
    assert asked == [1, "memory"]


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
