"""Which weights learn, what adapters add to them, and that gradient checkpointing changes no gradient."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from ctxindex.errors import ConfigError, MissingDependencyError
from ctxindex.training.model import ContextualModel
from ctxindex.training.objective import Objective, ObjectiveOptions
from ctxindex.training.readings import Reading
from ctxindex.training.running.lora import add_adapters, merged_state
from ctxindex.training.running.parameters import choose_parameters
from ctxindex.training.running.trainer import CHECKPOINTS, make_trainer
from ctxindex.training.sampling import Limits, Sampler
from ctxindex.training.schedule import Schedule
from tests.encoding.test_colbert import PYLATE, pylate
from tests.encoding.tiny import HIDDEN, save_sentence_transformer
from tests.training.toys import assert_same_gradients, batch_of, documents, gradients, loaded, tiny_model

KINDS = ["bert", "modernbert", "mpnet", "qwen3", "pylate"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    from sentence_transformers.base.modules import Dense

    folder = tmp_path_factory.mktemp("models")
    found = {"bert": save_sentence_transformer(folder / "bert", behind=[Dense(HIDDEN, 24)])}
    found |= {kind: save_sentence_transformer(folder / kind, kind) for kind in KINDS[1:-1]}
    return found | {"pylate": pylate(folder / "pylate", PYLATE)}


def load(folders: dict[str, Path], kind: str) -> tuple[Any, ContextualModel]:
    return loaded(folders[kind], max_tokens=48) if kind == "pylate" else tiny_model(folders[kind])


def learning(model: torch.nn.Module) -> set[str]:
    return {name for name, weight in model.named_parameters() if weight.requires_grad}


def shaken(model: ContextualModel) -> ContextualModel:
    """With adapters that add something."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.add_(torch.randn(weight.shape, generator=generator) * 0.05)
    return model


@torch.no_grad()
def read(model: ContextualModel, units: Sequence[Reading]) -> torch.Tensor:
    return torch.cat(model(units))


@pytest.mark.parametrize("kind", KINDS)
def test_merged_weights_do_what_adapters_do(folders: dict[str, Path], kind: str) -> None:
    encoder, model = load(folders, kind)
    units = batch_of(encoder, documents(2)).contextual
    before, names = read(model, units), set(model.state_dict())
    add_adapters(model, 4)
    assert torch.equal(read(model, units), before), "new adapters add nothing"
    adapted = read(shaken(model), units)
    assert float((adapted - before).abs().max()) > 0.01
    state = {name: weight.clone() for name, weight in model.state_dict().items()}
    merged = merged_state(model)
    assert set(merged) == names
    assert all(torch.equal(weight, state[name]) for name, weight in model.state_dict().items()), "a copy"
    _, plain = load(folders, kind)
    plain.load_state_dict(merged)
    torch.testing.assert_close(read(plain, units), adapted, atol=1e-5, rtol=0)
    assert not any(weight.requires_grad for weight in merged.values())


@pytest.mark.parametrize("kind", KINDS)
def test_all_linear_layers_have_an_adapter_and_nothing_else_learns(folders: dict[str, Path], kind: str) -> None:
    encoder, model = load(folders, kind)
    linear = {name for name, module in model.transformer.named_modules() if type(module) is torch.nn.Linear} - {
        "pooler.dense"
    }
    behind = {name for name in learning(model) if not name.startswith("transformer.")}
    assert bool(behind) is (kind in ("bert", "pylate"))
    add_adapters(model, 4)
    sides = {f"transformer.{name}.lora_{side}.default.weight" for name in linear for side in "AB"}
    assert learning(model) == sides | behind
    weights = dict(model.named_parameters())
    for name in linear:
        module: Any = model.transformer.get_submodule(name)
        assert (module.r["default"], module.scaling["default"]) == (4, 2.0)
        assert weights[f"transformer.{name}.lora_A.default.weight"].shape[0] == 4
    batch = batch_of(encoder, documents(2))
    Objective(shaken(model), ObjectiveOptions()).step(model, batch, torch.autograd.backward)
    assert set(gradients(model)) == sides | behind


def test_without_adapters_the_merged_weights_are_the_weights(folders: dict[str, Path]) -> None:
    _, model = load(folders, "bert")
    merged = merged_state(model)
    assert list(merged) == list(model.state_dict())
    merged["layers.0.weights.linear_bias"] += 1
    assert not torch.equal(merged["layers.0.weights.linear_bias"], model.state_dict()["layers.0.weights.linear_bias"])


def test_a_missing_package_is_named(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    _, model = load(folders, "bert")
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "peft" else find(name, *more))
    with pytest.raises(MissingDependencyError, match=r"--lora needs the package peft: pip install 'ctxindex\[lora\]'"):
        add_adapters(model, 4)


def test_the_seed_decides_new_weights_and_nothing_else(folders: dict[str, Path]) -> None:
    def made(seed: int) -> dict[str, torch.Tensor]:
        _, model = load(folders, "bert")
        torch.manual_seed(99 + seed)
        before = torch.get_rng_state()
        choose_parameters(model, Schedule(lora=2, seed=seed))
        assert torch.equal(torch.get_rng_state(), before)
        return {name: weight for name, weight in model.state_dict().items() if "lora_A" in name}

    one, again, other = made(0), made(0), made(1)
    assert one
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not any(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("lora", [None, 2])
def test_frozen_embeddings_stay(folders: dict[str, Path], lora: int | None) -> None:
    encoder, model = load(folders, "bert")
    every = learning(model)
    choose_parameters(model, Schedule(freeze_embeddings=True, lora=lora))
    table = "transformer.embeddings.word_embeddings.weight"
    assert table not in learning(model)
    assert lora is not None or learning(model) == every - {table}
    Objective(model, ObjectiveOptions()).step(model, batch_of(encoder, documents(2)), torch.autograd.backward)
    assert table not in gradients(model)


def test_a_plain_schedule_changes_nothing(folders: dict[str, Path]) -> None:
    _, model = load(folders, "bert")
    every = learning(model)
    choose_parameters(model, Schedule())
    assert learning(model) == every == {name for name, _ in model.named_parameters()}
    assert not any(getattr(module, "gradient_checkpointing", False) for module in model.modules())


@pytest.mark.parametrize("kind", ["bert", "modernbert", "qwen3", "pylate"])
@pytest.mark.parametrize("chosen", [{}, {"lora": 2, "freeze_embeddings": True}])
@pytest.mark.parametrize("budget", [None, 60])
def test_gradient_checkpointing_gives_the_same_gradients(
    folders: dict[str, Path], kind: str, chosen: dict[str, Any], budget: int | None
) -> None:
    encoder, model = load(folders, kind)
    batch = batch_of(encoder, documents(3))
    choose_parameters(model, Schedule(**chosen))
    objective = Objective(shaken(model).train(), ObjectiveOptions())
    objective.step(model, batch, torch.autograd.backward, budget=budget)
    expected = gradients(model)
    kept = _kept(model, encoder)
    choose_parameters(model, Schedule(gradient_checkpointing=True))
    again = _kept(model, encoder)
    assert again < 0.5 * kept
    objective.step(model, batch, torch.autograd.backward, budget=budget)
    assert_same_gradients(gradients(model), expected, 1e-6)


def _kept(model: ContextualModel, encoder: Any) -> int:
    """Bytes that a pass keeps for its gradient, weights aside."""
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    held: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            held[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        made = model(batch_of(encoder, documents(6)).contextual)
    del made
    return sum(held.values())


def test_attention_lets_go_of_what_it_kept(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """With gradient checkpointing nothing of a layer may live on in the graph: not what attention keeps either."""
    import gc
    import weakref

    from ctxindex.encoding.attention import products as attention_products

    encoder, model = load(folders, "modernbert")
    choose_parameters(model, Schedule(gradient_checkpointing=True))
    made: list[weakref.ref[Any]] = []
    of = attention_products.ProductPass.of

    def watched(*given: Any) -> Any:
        one = of(*given)
        made.append(weakref.ref(one.query))
        return one

    monkeypatch.setattr(attention_products.ProductPass, "of", watched)
    vectors = torch.cat(model.train()(batch_of(encoder, documents(2)).contextual))
    gc.collect()
    assert len(made) == 2
    assert [ref() for ref in made] == [None, None]
    torch.autograd.backward(vectors[:, 0].sum())
    assert len(made) == 4


def test_a_model_that_cannot_is_refused(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    _, model = load(folders, "bert")
    monkeypatch.setattr(type(model.transformer), "supports_gradient_checkpointing", False)
    with pytest.raises(ConfigError, match="--gradient-checkpointing does not go with BERT"):
        choose_parameters(model, Schedule(gradient_checkpointing=True))


def test_a_training_with_adapters_resumes_in_the_same_bits(folders: dict[str, Path], tmp_path: Path) -> None:
    chosen = Schedule(
        steps=4, documents=3, learning_rate=5e-3, save_every=2, precision="float32", lora=2, gradient_checkpointing=True
    )

    def made(into: Path) -> tuple[Any, ContextualModel]:
        encoder, model = load(folders, "bert")
        choose_parameters(model, chosen)
        sampler = Sampler({"toys": documents()}, encoder, Limits(2, 4))
        options = ObjectiveOptions()
        return make_trainer(model, None, sampler, {"toys": 6}, chosen, options, folder=into, device="cpu"), model

    trainer, model = made(tmp_path / "one")
    begun = merged_state(model)
    trainer.train()
    expected, ended = model.state_dict(), merged_state(model)
    resumed, again = made(tmp_path / "two")
    resumed.train(resume_from_checkpoint=str(tmp_path / "one" / CHECKPOINTS / "checkpoint-2"))
    assert all(torch.equal(again.state_dict()[name], expected[name]) for name in expected)
    assert not torch.equal(begun["layers.0.weights.linear_weight"], ended["layers.0.weights.linear_weight"])
    query = "transformer.encoder.layer.0.attention.self.query.weight"
    assert not torch.equal(begun[query], ended[query])
    assert torch.equal(begun[query.replace("weight", "bias")], ended[query.replace("weight", "bias")])
