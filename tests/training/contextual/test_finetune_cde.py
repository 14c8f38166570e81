"""A contextual training as a whole, on tiny models: what is trained, what is not, and that it goes on as it was."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from ctxindex.encoding import EncoderOptions, load_encoder, open_checkpoint
from ctxindex.encoding.cde.encoder import CdeEncoder
from ctxindex.encoding.cde.folder import make_native_cde
from ctxindex.encoding.cde.settings import NativeCde
from ctxindex.encoding.options import make_spec
from ctxindex.errors import ConfigError, ModelError
from ctxindex.evaluation.evaluator import Unwatched
from ctxindex.evaluation.results import Run
from ctxindex.training.context import in_context
from ctxindex.training.contextual.base import as_cde, cde_base, require_trainable
from ctxindex.training.contextual.context import ContextDropout
from ctxindex.training.contextual.options import ContextualOptions
from ctxindex.training.contextual.workshop import ContextualWorkshop
from ctxindex.training.data import Data, DataOptions, read_data
from ctxindex.training.finetune import ALONE, CONTEXT, NULL, TUNED, Plan, finetune
from ctxindex.training.options import InsentOptions, ObjectiveOptions
from ctxindex.training.plan import described
from ctxindex.training.schedule import Schedule
from tests.encoding.tiny import save_sentence_transformer
from tests.training.sets import PLACES, SPEC, chunker, write_set

QUICK = Schedule(steps=2, documents=4, windows=1, learning_rate=5e-3, save_every=1, precision="float32")
SMALL = ContextualOptions(cluster_size=4, context_size=(2, 4))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    save_sentence_transformer(folder / "bert")
    write_set(folder / "towns", PLACES[:8])
    return folder


@pytest.fixture(scope="module")
def data(root: Path) -> Data:
    named = DataOptions((str(root / "towns"),), held_out=0.25)
    return read_data(named, chunker(load_encoder(str(root / "bert")).tokenizer), SPEC)


def plan_of(root: Path, model: str = "bert", options: ContextualOptions = SMALL, **more: Any) -> Plan:
    chosen = EncoderOptions(method="cde", **more.pop("encoder", {"anchor": 8}))
    encoder = in_context(chosen, as_cde(open_checkpoint(str(root / model))))
    return Plan(str(root / model), encoder, SPEC, schedule=more.pop("schedule", QUICK), contextual=options, **more)


class Watched(Unwatched):
    """Keeps what was measured, in its order."""

    def __init__(self) -> None:
        self.runs: list[Run] = []

    def end(self, run: Run) -> None:
        self.runs.append(run)


def trained(plan: Plan, data: Data, out: Path, **more: Any) -> Any:
    return finetune(plan, data, out, device="cpu", **more)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors") | {
        f"cde {name}": one for name, one in load_file(folder / "cde.safetensors").items()
    }


@pytest.fixture(scope="module")
def whole(root: Path, data: Data, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    out = tmp_path_factory.mktemp("whole") / "tuned"
    return out, trained(plan_of(root), data, out)


def test_an_ordinary_base_becomes_a_cde_model(root: Path, whole: tuple[Path, Any]) -> None:
    out, found = whole
    assert list(found.runs) == [ALONE, CONTEXT, NULL, TUNED]
    assert sorted(file.name for file in (out / "training").iterdir()) == ["curve.json", "done.json", "plan.json"]
    encoder = load_encoder(str(out), EncoderOptions(device="cpu", dtype="float32"))
    assert isinstance(encoder, CdeEncoder)
    assert (encoder.spec.method, encoder.spec.anchor, encoder.spec.blend) == ("cde", 8, 0.6)
    assert encoder.settings.context_size == 4
    reading = encoder.with_context(encoder.encode_context(["Arles has a harbour.", "Dover has piers."]))
    assert np.abs(reading.encode_queries(["piers"]) - encoder.encode_queries(["piers"])).max() > 1e-5
    (run,) = found.runs[TUNED]
    assert run.notes["encoder"]["context"] != found.runs[NULL][0].notes["encoder"]["context"]


def test_a_frozen_first_stage_stays_and_the_rest_learns(root: Path, whole: tuple[Path, Any]) -> None:
    out, _ = whole
    base, first = load_file(root / "bert" / "model.safetensors"), load_file(out / "first_stage" / "model.safetensors")
    assert all(torch.equal(one, first[name]) for name, one in base.items())
    tuned = weights(out)
    assert sum(not torch.equal(one, tuned[name]) for name, one in base.items()) > 10
    (line,) = [line for line in whole[1].history if "train_loss" in line]
    assert line["step"] == 2


def test_new_weights_learn_faster(root: Path, data: Data, whole: tuple[Path, Any], tmp_path: Path) -> None:
    make_native_cde(str(root / "bert"), tmp_path / "untrained", NativeCde(context_size=4, context_bias_init=0.0))
    before, after = weights(tmp_path / "untrained"), weights(whole[0])
    moved = {name: float((after[name] - one).abs().max()) for name, one in before.items()}
    base = max(value for name, value in moved.items() if not name.startswith("cde"))
    assert moved["cde projection.weight"] > 3 * base


def test_the_bias_has_a_start_and_a_rate_of_its_own(root: Path, data: Data, tmp_path: Path) -> None:
    options = replace(SMALL, context_bias_init=1.5, bias_rate=0.25)
    schedule = replace(QUICK, steps=10, learning_rate=1e-6, warmup=0.0)
    found = trained(plan_of(root, options=options, schedule=schedule), replace(data, held={}), tmp_path / "tuned")
    bias = weights(tmp_path / "tuned")["cde bias"]
    assert 0.2 < float((bias - 1.5).abs().max()) < 2.6  # Adam moves by about the rate, and the rate falls to nothing
    (line,) = [line for line in found.history if "loss" in line]
    assert line["context_bias"] == pytest.approx(float(bias.mean()), abs=0.02)
    cde = open_checkpoint(str(tmp_path / "tuned")).cde
    assert cde is not None
    assert cde.context_bias_init == 1.5
    with pytest.raises(ConfigError, match="--context-bias is what a new CDE model begins with"):
        require_trainable(open_checkpoint(str(tmp_path / "tuned")), options)
    require_trainable(open_checkpoint(str(tmp_path / "tuned")), SMALL)


def test_an_untrained_model_says_nothing_of_its_contexts(root: Path, data: Data, tmp_path: Path) -> None:
    make_native_cde(str(root / "bert"), tmp_path / "made")
    without = replace(data, held={})
    assert sizes_of(tmp_path / "made") == 512
    trained(plan_of(tmp_path, "made"), without, tmp_path / "tuned")
    assert sizes_of(tmp_path / "tuned") == 4, "what it was trained with"
    trained(plan_of(tmp_path, "tuned", options=replace(SMALL, context_size=(2, 3))), without, tmp_path / "again")
    assert sizes_of(tmp_path / "again") == 4, "what it was trained with at most"


def sizes_of(folder: Path) -> int:
    cde = open_checkpoint(str(folder)).cde
    assert cde is not None
    return cde.context_size


class Stopped(BaseException):
    pass


@pytest.fixture(scope="module")
def other(root: Path) -> Path:
    """The base with other weights."""
    folder = Path(shutil.copytree(root / "bert", root / "other"))
    tensors = load_file(folder / "model.safetensors")
    save_file({name: one + 0.01 for name, one in tensors.items()}, folder / "model.safetensors", {"format": "pt"})
    return folder


def stop_and_go_on(stopped_plan: Plan, plan: Plan, data: Data, out: Path, patch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any) -> Any:
        raise Stopped

    with patch.context() as stopping:
        stopping.setattr(ContextualWorkshop, "_embedded", stop)
        with pytest.raises(Stopped):
            trained(stopped_plan, data, out)
    assert (out / "training" / "base" / "model" / "model.safetensors").is_file()
    trained(plan, data, out)


def test_what_another_start_left_behind_is_not_trained(
    root: Path, other: Path, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without = replace(data, held={})
    stop_and_go_on(plan_of(root), plan_of(root, "other"), without, tmp_path / "tuned", monkeypatch)
    base, first = load_file(other / "model.safetensors"), load_file(tmp_path / "tuned/first_stage/model.safetensors")
    assert all(torch.equal(one, first[name]) for name, one in base.items())
    shared = plan_of(root, options=replace(SMALL, first_stage="shared"))
    stop_and_go_on(plan_of(root), shared, without, tmp_path / "shared", monkeypatch)
    cde = open_checkpoint(str(tmp_path / "shared")).cde
    assert cde is not None
    assert cde.share_stages


def test_a_base_that_another_start_made_says_nothing_of_a_model_that_reads_a_context(
    root: Path, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_native_cde(str(root / "bert"), tmp_path / "work" / "made", NativeCde(context_size=4))
    measured: list[str] = []
    in_corpus = ContextualWorkshop._in_corpus

    def watched(self: ContextualWorkshop, model: str, *rest: Any, **more: Any) -> Any:
        measured.append(model)
        return in_corpus(self, model, *rest, **more)

    monkeypatch.setattr(ContextualWorkshop, "_in_corpus", watched)
    native = plan_of(tmp_path / "work", "made")
    stop_and_go_on(plan_of(root), native, data, tmp_path / "tuned", monkeypatch)
    assert str(made) in measured, "the base itself, in the context of the corpus"


def test_nothing_is_left_of_a_base_where_none_is_made(root: Path, tmp_path: Path) -> None:
    made = make_native_cde(str(root / "bert"), tmp_path / "made")
    for left in ("base", "base.partial"):
        (tmp_path / left / "model").mkdir(parents=True)
    with pytest.raises(ConfigError, match="two stages"):
        cde_base(open_checkpoint(str(made)), replace(SMALL, first_stage="shared"), tmp_path / "base")
    assert (tmp_path / "base").exists(), "nothing is done for a training that cannot be"
    assert cde_base(open_checkpoint(str(made)), SMALL, tmp_path / "base").folder == made
    assert [one.name for one in tmp_path.iterdir()] == ["made"]


def test_the_bias_that_is_taken_anyway_may_be_said(root: Path, data: Data) -> None:
    """To go on with a training where nobody said it."""
    spec = make_spec(as_cde(open_checkpoint(str(root / "bert"))), plan_of(root).encoder)
    default, said, other = (
        described(plan_of(root, options=replace(SMALL, context_bias_init=bias)), data, spec, "float32")
        for bias in (None, 0.0, -2.0)
    )
    assert default == said
    assert default != other


def test_a_base_is_made_once_and_again_where_it_is_another(root: Path, other: Path, tmp_path: Path) -> None:
    def made(model: str, **options: Any) -> tuple[str, int]:
        cde_base(open_checkpoint(str(root / model)), replace(SMALL, **options), tmp_path / "base")
        file = tmp_path / "base" / "model" / "cde.safetensors"
        return open_checkpoint(str(tmp_path / "base" / "model")).digest, file.stat().st_ino

    first = made("bert")
    assert made("bert") == first, "as it is"
    found = {first}
    for change in ({"context_bias_init": 1.0}, {"context_size": (2, 9)}, {"first_stage": "shared"}):
        found.add(made("bert", **change))
    found.add(made("other"))
    assert len({digest for digest, _ in found}) == 5
    assert made("bert")[0] == first[0]
    (tmp_path / "base" / "made_of.json").write_text("{", encoding="utf-8")
    assert made("bert")[0] == first[0]
    prompted = Path(shutil.copytree(root / "bert", root / "prompted"))
    said = '{"prompts": {"query": "ask: "}}'
    (prompted / "config_sentence_transformers.json").write_text(said, encoding="utf-8")
    made("prompted")
    assert open_checkpoint(str(tmp_path / "base" / "model")).query_prefix == "ask: ", "other files, the same weights"


def test_a_training_does_not_go_on_with_another_base(
    root: Path, other: Path, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any) -> Any:
        raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(ContextualWorkshop, "finish", stop)
        with pytest.raises(Stopped):
            trained(plan_of(root), data, tmp_path / "tuned")
    training = tmp_path / "tuned" / "training"
    noted = (training / "base" / "made_of.json").read_text(encoding="utf-8")
    with pytest.raises(ConfigError, match="holds another training: the base model"):
        trained(plan_of(root, "other"), data, tmp_path / "tuned", resume=True)
    assert (training / "base" / "made_of.json").read_text(encoding="utf-8") == noted, "nothing was made of the other"
    assert trained(plan_of(root), data, tmp_path / "tuned", resume=True).steps == 2


def test_a_base_that_gives_no_means_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    save_sentence_transformer(tmp_path / "cls", pooling="cls")
    save_sentence_transformer(tmp_path / "bare")
    (tmp_path / "bare" / "modules.json").unlink()
    for name in ("cls", "bare"):
        with pytest.raises(ModelError, match=r"means of token states.*with --method late --force-mean"):
            require_trainable(open_checkpoint(str(tmp_path / name)), SMALL)


@pytest.mark.parametrize("first_stage", ["shared", "trained"])
def test_other_first_stages_learn(root: Path, data: Data, tmp_path: Path, first_stage: Any) -> None:
    plan = plan_of(root, options=replace(SMALL, first_stage=first_stage, dropout=ContextDropout(0.0, 0.0)))
    trained(plan, replace(data, held={}), tmp_path / "tuned")
    checkpoint = open_checkpoint(str(tmp_path / "tuned"))
    assert checkpoint.cde is not None
    assert checkpoint.cde.share_stages is (first_stage == "shared")
    if first_stage == "trained":
        base = load_file(root / "bert" / "model.safetensors")
        first = load_file(tmp_path / "tuned" / "first_stage" / "model.safetensors")
        assert sum(not torch.equal(one, first[name]) for name, one in base.items()) > 10


def test_adapters_change_both_stages_and_are_gone_in_the_end(root: Path, data: Data, tmp_path: Path) -> None:
    options = replace(SMALL, first_stage="trained", dropout=ContextDropout(0.0, 0.0))
    plan = plan_of(root, options=options, schedule=replace(QUICK, lora=2))
    trained(plan, replace(data, held={}), tmp_path / "tuned")
    base = load_file(root / "bert" / "model.safetensors")
    for folder in (tmp_path / "tuned", tmp_path / "tuned" / "first_stage"):
        tuned = load_file(folder / "model.safetensors")
        changed = {name for name, one in base.items() if not torch.equal(one, tuned[name])}
        assert tuned.keys() == base.keys()
        assert changed
        assert all(name.endswith(".weight") and base[name].ndim == 2 for name in changed)
        assert not any("embeddings" in name for name in changed)


def test_a_training_that_was_stopped_ends_in_the_same_model(
    root: Path, data: Data, whole: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ContextualWorkshop, "finish", killed)
        with pytest.raises(KeyboardInterrupt):
            trained(plan_of(root), data, tmp_path / "tuned")
    training = tmp_path / "tuned" / "training"
    for name in ("done.json", "tuned.safetensors", "curve.json"):
        (training / name).unlink()
    shutil.rmtree(training / "checkpoints" / "checkpoint-2")
    shutil.rmtree(training / "base")
    trained(plan_of(root), data, tmp_path / "tuned", resume=True)
    expected, found = weights(whole[0]), weights(tmp_path / "tuned")
    assert all(torch.equal(one, found[name]) for name, one in expected.items())
    again = trained(plan_of(root), data, tmp_path / "tuned", resume=True)
    assert again.earlier
    assert not (training / "base").exists()
    with pytest.raises(ConfigError, match="another training: --batches"):
        trained(plan_of(root, options=replace(SMALL, batches="random")), data, tmp_path / "tuned", resume=True)


def test_parts_give_the_same_model(root: Path, data: Data, whole: tuple[Path, Any], tmp_path: Path) -> None:
    trained(plan_of(root, schedule=replace(QUICK, mini_batch_tokens=64)), replace(data, held={}), tmp_path / "tuned")
    found = weights(tmp_path / "tuned")
    for name, one in weights(whole[0]).items():
        torch.testing.assert_close(found[name], one, atol=2e-3, rtol=0, msg=f"{name} differs")


def test_a_control_learns_nothing_of_the_context(root: Path, data: Data, tmp_path: Path) -> None:
    options = replace(SMALL, dropout=ContextDropout(0.0, 1.0), batches="random")
    trained(plan_of(root, options=options), replace(data, held={}), tmp_path / "tuned")
    make_native_cde(str(root / "bert"), tmp_path / "untrained", NativeCde(context_size=4, context_bias_init=0.0))
    before, after = (load_file(tmp_path / one / "cde.safetensors") for one in ("untrained", "tuned"))
    assert torch.equal(before["projection.bias"], after["projection.bias"])
    assert not torch.equal(before["null"], after["null"])


def test_a_control_is_chosen_and_measured_without_a_context(root: Path, data: Data, tmp_path: Path) -> None:
    options = replace(SMALL, dropout=ContextDropout(0.0, 1.0))
    schedule = replace(QUICK, evaluate_every=1)
    watch = Watched()
    plan = plan_of(root, options=options, merge=(0.5, 1.0), schedule=schedule)
    found = trained(plan, data, tmp_path / "tuned", watch=watch)
    assert list(found.runs) == [ALONE, CONTEXT, TUNED]
    corpora = [run.notes["encoder"]["context"] for run in watch.runs if run.configuration.method == "cde"]
    assert corpora == ["null"] * 5  # after each of two steps, for each of two shares, and in the end


def test_a_control_is_beside_a_base_without_a_context_too(root: Path, data: Data, tmp_path: Path) -> None:
    make_native_cde(str(root / "bert"), tmp_path / "base", NativeCde(context_size=4))
    options = replace(SMALL, dropout=ContextDropout(0.0, 1.0))
    found = trained(plan_of(tmp_path, "base", options=options), data, tmp_path / "tuned")
    assert {run.notes["encoder"]["context"] for name in (CONTEXT, TUNED) for run in found.runs[name]} == {"null"}


def test_positives_are_not_punished(root: Path, data: Data, tmp_path: Path) -> None:
    punishing = ObjectiveOptions(InsentOptions(mask_positives=False))
    with pytest.raises(ConfigError, match="leaves known positives and what its filter takes out alone"):
        trained(plan_of(root, objective=punishing), data, tmp_path / "tuned")


def test_a_cde_model_is_trained_on_with_insent(root: Path, data: Data, tmp_path: Path) -> None:
    make_native_cde(str(root / "bert"), tmp_path / "base", NativeCde(context_size=9, output_head=True))
    plan = plan_of(
        tmp_path, "base", options=replace(SMALL, insent=0.5), merge=(0.5, 1.0), schedule=replace(QUICK, steps=10)
    )
    found = trained(plan, data, tmp_path / "tuned")
    assert set(found.runs) == {ALONE, CONTEXT, NULL, TUNED}
    assert set(found.merges) == {0.5, 1.0}
    assert open_checkpoint(str(tmp_path / "tuned")).cde == NativeCde(context_size=4, output_head=True)
    trainings = [line for line in found.history if "loss" in line]
    assert trainings
    assert all({"contrastive", "removed", "context", "l_seq", "l_batch"} <= line.keys() for line in trainings)
    with pytest.raises(ConfigError, match="has two stages: choose frozen or trained"):
        trained(plan_of(tmp_path, "base", options=replace(SMALL, first_stage="shared")), data, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_several_devices_are_refused(root: Path, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="trains on one device"):
        trained(plan_of(root), data, tmp_path / "tuned")
