"""A training as a whole, on tiny models: what is written, what is not done twice, what is refused before it begins."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ctxindex.encoding import EncoderOptions, load_encoder
from ctxindex.errors import ConfigError
from ctxindex.evaluation.results import Run
from ctxindex.training import workshop as module
from ctxindex.training.data import Data
from ctxindex.training.finetune import ALONE, CONTEXT, OWN, TUNED, given
from ctxindex.training.options import ObjectiveOptions, Shares
from ctxindex.training.results.measured import mean_of
from ctxindex.training.running.folder import TUNED as WEIGHTS
from ctxindex.training.running.folder import TrainingFolder
from ctxindex.training.running.trainer import ContextualTrainer
from tests.training.runs import QUICK, plan_of, trained, weights


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

    found = trained(plan_of(root, "pylate", encoder={"pool_factor": 2}), data, tmp_path)
    assert list(found.runs) == [ALONE, CONTEXT, TUNED]
    read = [found.runs[name][0].notes["encoder"] for name in (ALONE, CONTEXT)]
    assert [(one["windows"], one["pool_factor"]) for one in read] == [("chunk", 2), ("window", 2)]
    theirs: Any = MultiVectorEncoder(str(tmp_path), device="cpu")
    expected = theirs.encode_query(["Which law governs Delaware?"], convert_to_numpy=True)[0]
    (ours,) = load_encoder(str(tmp_path), EncoderOptions(device="cpu", dtype="float32")).encode_queries(
        ["Which law governs Delaware?"]
    )
    assert np.shape(ours) == np.shape(expected)
    np.testing.assert_allclose(np.asarray(ours, dtype=np.float32), expected, atol=1e-5)
    for name in ("model.safetensors", "1_Dense/model.safetensors"):
        base, tuned = load_file(root / "pylate" / name), load_file(tmp_path / name)
        assert any(not torch.equal(one, tuned[key]) for key, one in base.items()), name


def test_a_late_interaction_model_is_trained_through_the_blend(root: Path, data: Data, tmp_path: Path) -> None:
    mixed = plan_of(root, "pylate", encoder={"anchor": 8, "blend": 0.4}, shares=Shares(isolated=0.4))
    found = trained(replace(mixed, objective=ObjectiveOptions(hold=0.1, distil=0.1)), data, tmp_path)
    assert list(found.runs) == [ALONE, CONTEXT, TUNED]
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


def test_a_base_is_measured_as_it_says_of_itself_too(root: Path, data: Data, whole: Path, tmp_path: Path) -> None:
    """Read otherwise in training, a good base would look like a bad one."""
    plain = replace(plan_of(root), model=str(whole), encoder=EncoderOptions(method="late", anchor=0, blend=0.0))
    found = trained(plain, data, tmp_path / "otherwise")
    assert list(found.runs) == [ALONE, CONTEXT, OWN, TUNED]
    read = {name: found.runs[name][0].notes["encoder"]["blend"] for name in (CONTEXT, OWN, TUNED)}
    assert read == {CONTEXT: 0.0, OWN: 0.6, TUNED: 0.0}
    as_it_says = replace(plain, encoder=EncoderOptions(method="late"))
    assert OWN not in trained(as_it_says, data, tmp_path / "so").runs


def test_a_warning_is_told_once(root: Path, data: Data, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    long = "which town? " * 60
    queries = {name: [replace(one, text=long) for one in corpus.queries] for name, corpus in data.sources.items()}
    asked = {name: replace(corpus, queries=tuple(queries[name])) for name, corpus in data.sources.items()}
    trained(plan_of(root), replace(data, sources=asked, held={}), tmp_path / "tuned")
    assert len([one for one in caplog.records if "was cut to" in one.getMessage()]) == 1


def test_late_interaction_practises_chunks_alone(root: Path, data: Data, tmp_path: Path) -> None:
    both = replace(data, replay={"more": data.held["towns"]}, held={})
    plan = plan_of(root, "pylate", source_shares={"towns": 0.5, "more": 0.5})
    workshop = module.Workshop(plan, both, TrainingFolder(tmp_path), "cpu", None, False, None)
    spec = workshop._reader_alone().spec
    assert (spec.method, spec.windows, spec.multivector) == ("late-interaction", "chunk", True)
    assert trained(plan, both, tmp_path / "tuned").steps == 2


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
