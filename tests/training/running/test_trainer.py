"""The loop, on a toy set: it learns, it goes on exactly where it stopped, and it stops when nothing gets better."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerCallback, TrainingArguments

from ctxindex.encoding.local import LocalEncoder
from ctxindex.errors import ConfigError, MissingDependencyError, ModelError
from ctxindex.training.insent import InsentOptions
from ctxindex.training.model import ContextualModel
from ctxindex.training.objective import Objective, ObjectiveOptions
from ctxindex.training.running import trainer as module
from ctxindex.training.running.trainer import CHECKPOINTS, LOGS, ContextualTrainer, arguments_of, make_trainer
from ctxindex.training.sampling import Limits, Sampler, Shares
from ctxindex.training.schedule import Schedule
from tests.encoding.tiny import HIDDEN, save_sentence_transformer
from tests.training.toys import batch_of, documents, tiny_model

OPTIONS: dict[str, Any] = {"blend": 0.3, "anchor": 8}
QUICK: dict[str, Any] = {"steps": 6, "documents": 3, "learning_rate": 5e-3, "save_every": 3, "precision": "float32"}
SHARES = Shares(contextual=0.2, isolated=0.2)
OBJECTIVE = ObjectiveOptions(InsentOptions(lambda_seq=0.3), hold=0.2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from sentence_transformers.base.modules import Dense
    from sentence_transformers.sentence_transformer.modules import LayerNorm

    behind = [Dense(HIDDEN, 24), LayerNorm(24)]
    return save_sentence_transformer(tmp_path_factory.mktemp("models") / "bert", behind=behind)


@pytest.fixture(autouse=True)
def _one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "TENSORBOARD_LOGGING_DIR"):
        monkeypatch.delenv(name, raising=False)


def made(
    folder: Path, into: Path, schedule: Mapping[str, Any] | None = None, shares: Shares = SHARES, **more: Any
) -> tuple[ContextualTrainer, LocalEncoder, ContextualModel]:
    encoder, model = tiny_model(folder, **OPTIONS)
    _, base = tiny_model(folder, **OPTIONS)
    sampler = Sampler({"toys": documents()}, encoder, Limits(2, 4), shares)
    chosen = Schedule(**{**QUICK, **(schedule or {})})
    objective = more.pop("objective", OBJECTIVE)
    trainer = make_trainer(
        model, base, sampler, {"toys": 6}, chosen, objective, folder=into, **{"device": "cpu", **more}
    )
    return trainer, encoder, model


def state_of(model: ContextualModel) -> dict[str, torch.Tensor]:
    return {name: weight.clone() for name, weight in model.state_dict().items()}


def history(trainer: ContextualTrainer, name: str) -> list[float]:
    return [entry[name] for entry in trainer.state.log_history if name in entry]


@pytest.mark.parametrize("cached", [None, 60])
def test_the_loss_falls(folder: Path, tmp_path: Path, cached: int | None) -> None:
    trainer, encoder, model = made(folder, tmp_path, {"mini_batch_tokens": cached})
    batch = batch_of(encoder, documents())
    measure = Objective(model, ObjectiveOptions(OBJECTIVE.insent))

    def loss() -> float:
        return float(measure.step(model, batch, lambda loss: None).total)

    before = loss()
    trainer.train()
    assert loss() < 0.85 * before
    (entry,) = [entry for entry in trainer.state.log_history if "train_loss" in entry]
    assert entry["step"] == 6


def test_a_cache_of_gradients_trains_the_same_weights(folder: Path, tmp_path: Path) -> None:
    finished = []
    for number, cached in enumerate((None, 60)):
        trainer, _, model = made(folder, tmp_path / str(number), {"mini_batch_tokens": cached, "steps": 2})
        trainer.train()
        finished.append(state_of(model))
    for name, weight in finished[0].items():
        torch.testing.assert_close(weight, finished[1][name], atol=2e-4, rtol=1e-3, msg=name)


class _Killed(TrainerCallback):
    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == 4:
            raise KeyboardInterrupt


@pytest.mark.parametrize("memory", [0, 20])
def test_a_training_that_was_killed_ends_in_the_same_bits(folder: Path, tmp_path: Path, memory: int) -> None:
    objective = replace(OBJECTIVE, cross_batch_memory=memory)
    undisturbed, _, model = made(folder, tmp_path / "one", objective=objective)
    begun = state_of(model)
    undisturbed.train()
    expected = state_of(model)
    killed, _, model = made(folder, tmp_path / "two", objective=objective, callbacks=[_Killed()])
    with pytest.raises(KeyboardInterrupt):
        killed.train()
    resumed, _, model = made(folder, tmp_path / "two", objective=objective)
    resumed.train(resume_from_checkpoint=str(tmp_path / "two" / CHECKPOINTS / "checkpoint-3"))
    found = state_of(model)
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        assert torch.equal(found[name], weight), name
    changed = {name for name, weight in expected.items() if not torch.equal(begun[name], weight)}
    assert {"layers.0.weights.linear_weight", "transformer.embeddings.word_embeddings.weight"} <= changed


def scripted(values: list[float]) -> Callable[[], Mapping[str, float]]:
    given = iter(values)
    return lambda: {"ndcg@10": next(given), "recall@10": 0.5}


def test_it_stops_when_nothing_gets_better_and_keeps_the_best(folder: Path, tmp_path: Path) -> None:
    schedule = {"steps": 20, "evaluate_every": 1, "patience": 2}
    kept: list[dict[str, torch.Tensor]] = []
    values = scripted([0.3, 0.6, 0.5, 0.4, 0.9])

    def validate() -> Mapping[str, float]:
        kept.append(state_of(model))
        return values()

    trainer, _, model = made(folder, tmp_path, schedule, validate=validate)
    trainer.train()
    assert trainer.state.global_step == 4
    assert history(trainer, "eval_ndcg@10") == [0.3, 0.6, 0.5, 0.4]
    assert history(trainer, "eval_recall@10") == [0.5] * 4
    assert trainer.state.best_metric == 0.6
    best = state_of(model)
    assert all(torch.equal(best[name], kept[1][name]) for name in best)
    assert not all(torch.equal(best[name], kept[3][name]) for name in best)


def test_patience_goes_on_after_an_interruption(folder: Path, tmp_path: Path) -> None:
    schedule = {"steps": 20, "evaluate_every": 1, "patience": 4}
    killed, *_ = made(folder, tmp_path, schedule, validate=scripted([0.6, 0.5, 0.4, 0.3]), callbacks=[_Killed()])
    with pytest.raises(KeyboardInterrupt):
        killed.train()
    resumed, *_ = made(folder, tmp_path, schedule, validate=scripted([0.2, 0.1]))
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == 5
    assert resumed.state.best_metric == 0.6


class _StoppedLate(TrainerCallback):
    """Kills the process when training is over, before anybody hears of it."""

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        raise KeyboardInterrupt


def test_checkpoints_are_as_many_as_this_run_asks_for(folder: Path, tmp_path: Path) -> None:
    made(folder, tmp_path / "one")[0].train()
    shutil.rmtree(tmp_path / "one" / CHECKPOINTS / "checkpoint-6")
    resumed, *_ = made(folder, tmp_path / "one", {"save_every": 2})
    resumed.train(resume_from_checkpoint=True)
    assert {one.name for one in (tmp_path / "one" / CHECKPOINTS).iterdir()} == {"checkpoint-4", "checkpoint-6"}


@pytest.mark.parametrize(("seconds", "expected"), [(0.0, {10, 12}), (3600.0, {12})])
def test_a_checkpoint_is_never_long_ago(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, expected: set[int]
) -> None:
    monkeypatch.setattr("ctxindex.training.running.trainer._LOST", seconds)
    made(folder, tmp_path, {"steps": 12, "save_every": 100})[0].train()
    found = {int(one.name.rpartition("-")[2]) for one in (tmp_path / CHECKPOINTS).iterdir()}
    assert found == expected  # with a line of the log, and at the end


def test_what_had_been_stopped_does_not_go_on(folder: Path, tmp_path: Path) -> None:
    schedule = {"steps": 20, "evaluate_every": 1, "patience": 2}
    values = [0.3, 0.6, 0.5, 0.4, 0.9]
    killed, _, model = made(folder, tmp_path / "there", schedule, validate=scripted(values), callbacks=[_StoppedLate()])
    with pytest.raises(KeyboardInterrupt):
        killed.train()
    best = state_of(model)
    (tmp_path / "there").rename(tmp_path / "here")  # where the best model lies is told by the folder, not by its name
    newest = str(tmp_path / "here" / CHECKPOINTS / "checkpoint-4")
    resumed, _, model = made(folder, tmp_path / "here", schedule, validate=scripted([0.9]))
    resumed.train(resume_from_checkpoint=newest)
    assert (resumed.state.global_step, resumed.state.best_metric) == (4, 0.6)
    assert history(resumed, "eval_ndcg@10") == values[:4]
    assert all(torch.equal(one, best[name]) for name, one in model.state_dict().items())
    patient, *_ = made(folder, tmp_path / "here", schedule | {"patience": 4}, validate=scripted([0.2, 0.1]))
    patient.train(resume_from_checkpoint=newest)
    assert patient.state.global_step == 6


def test_the_last_step_is_measured_too(folder: Path, tmp_path: Path) -> None:
    trainer, *_ = made(folder, tmp_path, {"steps": 5, "evaluate_every": 3}, validate=scripted([0.1, 0.2]))
    trainer.train()
    assert history(trainer, "eval_ndcg@10") == [0.1, 0.2]
    assert trainer.state.best_global_step == 5


def test_logs_tell_the_parts_of_the_loss_and_tensorboard_draws_them(folder: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    # With both views in all steps, and so all terms, the means of the terms add up to the mean of the loss.
    trainer, *_ = made(folder, tmp_path, {"steps": 10}, shares=Shares(), tensorboard=True)
    trainer.train()
    (entry,) = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert {"l_seq", "l_batch", "accuracy", "accuracy_seq", "away", "loss", "learning_rate"} <= entry.keys()
    together = 0.3 * entry["l_seq"] + 0.7 * entry["l_batch"] + 2 * 0.2 * entry["away"]
    assert entry["loss"] == pytest.approx(together, abs=1e-3)
    assert [file.name.startswith("events.") for file in (tmp_path / LOGS).iterdir()] == [True]
    drawn = EventAccumulator(str(tmp_path / LOGS))
    drawn.Reload()
    assert {"train/loss", "train/l_seq", "train/l_batch", "train/away"} <= set(drawn.Tags()["scalars"])
    assert not list(tmp_path.glob("**/runs"))
    state = json.loads((tmp_path / CHECKPOINTS / "checkpoint-10" / "trainer_state.json").read_text(encoding="utf-8"))
    assert any("l_seq" in line for line in state["log_history"])


def test_nothing_is_printed_and_nothing_drawn_unless_asked_for(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer, *_ = made(folder, tmp_path, {"steps": 1})
    capsys.readouterr()
    trainer.train()
    assert capsys.readouterr() == ("", "")
    assert sorted(path.name for path in tmp_path.iterdir()) == [CHECKPOINTS]


def test_bfloat16_on_a_cpu_is_near_float32(folder: Path, tmp_path: Path) -> None:
    losses = {}
    for precision in ("float32", "bfloat16"):
        seen: set[torch.dtype] = set()
        trainer, _, model = made(folder, tmp_path / precision, {"precision": precision, "steps": 3})
        linear = model.transformer.encoder.layer[0].intermediate.dense
        linear.register_forward_hook(lambda module, given, result, seen=seen: seen.add(result.dtype))
        trainer.train()
        assert seen == {torch.float32 if precision == "float32" else torch.bfloat16}
        assert {weight.dtype for weight in model.parameters()} == {torch.float32}
        losses[precision] = history(trainer, "train_loss")[0]
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.05)
    assert losses["bfloat16"] != losses["float32"]


def test_the_base_is_read_in_the_same_precision(folder: Path, tmp_path: Path) -> None:
    """Else it would hold the model where rounding alone has brought it."""
    trainer, *_ = made(folder, tmp_path, {"precision": "bfloat16", "steps": 1})
    objective: Any = trainer._objective
    base = objective._base
    seen: set[torch.dtype] = set()
    linear = base.transformer.encoder.layer[0].intermediate.dense
    linear.register_forward_hook(lambda module, given, result: seen.add(result.dtype))
    trainer.train()
    assert seen == {torch.bfloat16}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_numbers_that_leave_their_range_are_told(folder: Path, tmp_path: Path, precision: str) -> None:
    trainer, _, model = made(folder, tmp_path, {"learning_rate": 0.25, "precision": precision})
    with torch.no_grad():
        model.transformer.embeddings.word_embeddings.weight.fill_(torch.nan)
    with pytest.raises(ModelError, match=r"^step 1 gives .* \(--learning-rate less than 0\.25\)") as raised:
        trainer.train()
    assert ("--precision float32" in str(raised.value)) is (precision == "bfloat16")


@pytest.mark.parametrize(("budget", "advice"), [(None, "4096"), (60, "below 60")])
def test_short_memory_is_told(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, budget: int | None, advice: str
) -> None:
    def short(*_: Any, **__: Any) -> Any:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes")

    trainer, *_ = made(folder, tmp_path, {"mini_batch_tokens": budget})
    monkeypatch.setattr(Objective, "step", short)
    with pytest.raises(ModelError, match=rf"does not fit in memory .* \(--mini-batch-tokens {advice}\)"):
        trainer.train()


def test_epochs_are_those_of_what_is_trained_on() -> None:
    sources = {"a": 60, "b": 40, "practice": 500}
    shares = {"a": 0.48, "b": 0.32, "practice": 0.2}
    assert module._documents(sources, sources, ()) == 600
    assert module._documents(sources, shares, {"practice"}) == 125
    assert module._documents({"a": 60, "b": 40}, {"a": 1, "b": 9}, ()) == 100


def test_auto_takes_what_the_device_is_fast_in(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "choose_dtype", lambda device: "bfloat16")
    trainer, *_ = made(folder, tmp_path, {"precision": "auto"})
    assert (trainer.args.bf16, trainer.args.fp16) == (True, False)


def test_weights_decay_where_they_are_matrices(folder: Path, tmp_path: Path) -> None:
    trainer, _, model = made(folder, tmp_path)
    decaying = set(trainer.get_decay_parameter_names(model))
    assert decaying == {name for name, weight in model.named_parameters() if weight.ndim == 2}
    assert {"layers.0.weights.linear_weight", "transformer.embeddings.word_embeddings.weight"} <= decaying
    assert not any("bias" in name or "norm" in name.lower() for name in decaying)


def test_a_device_that_is_not_the_first_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"CUDA_VISIBLE_DEVICES=1, and say --device cpu"):
        arguments_of(Schedule(**QUICK), 4, Path("x"), "cpu:1", watched=False)


def test_a_process_has_one_device(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine with two, the Trainer would split batches with DataParallel, which cannot split ours."""

    def two(**values: Any) -> TrainingArguments:
        arguments = TrainingArguments(**values)
        assert arguments.n_gpu == 0
        arguments._n_gpu = 2
        return arguments

    monkeypatch.setattr(module, "TrainingArguments", two)
    trainer, _, model = made(folder, tmp_path)
    assert trainer.args.n_gpu == 1
    assert trainer._wrap_model(model) is model


def test_batches_are_those_of_the_seed(folder: Path, tmp_path: Path) -> None:
    one, *_ = made(folder, tmp_path / "1", {"seed": 3})
    other, *_ = made(folder, tmp_path / "2", {"seed": 4})
    draws = [list(_draws(trainer)) for trainer in (one, other)]
    assert [draw.step for draw in draws[0]] == list(range(6))
    assert [draw.documents for draw in draws[0]] != [draw.documents for draw in draws[1]]


def _draws(trainer: ContextualTrainer) -> Iterator[Any]:
    return (trainer._draws[number] for number in range(len(trainer._draws)))


def test_missing_packages_are_named(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    for package, asked in (("accelerate", False), ("tensorboard", True)):
        gone = partial(lambda gone, name, *more: None if name == gone else find(name, *more), package)
        monkeypatch.setattr(importlib.util, "find_spec", gone)
        with pytest.raises(MissingDependencyError, match=rf"{package}: pip install 'ctxindex\[train\]'"):
            made(folder, tmp_path, tensorboard=asked)
