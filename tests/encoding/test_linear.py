"""Fast linear layers: the plain ones' results, in place of them, wherever they work."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import transformers

from ctxindex.encoding import linear
from ctxindex.encoding.linear import speed_up

CONFIGS = {
    "bert": transformers.BertConfig,
    "distilbert": transformers.DistilBertConfig,
    "mpnet": transformers.MPNetConfig,
    "nomic": transformers.NomicBertConfig,
}


def model(kind: str, **more: object) -> torch.nn.Module:
    torch.manual_seed(1)
    sizes = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    if kind == "distilbert":
        sizes = {"vocab_size": 50, "dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 48}
    else:
        sizes["intermediate_size"] = 48
    auto: Any = transformers.AutoModel  # its functions carry no types
    made: torch.nn.Module = auto.from_config(CONFIGS[kind](**sizes, **more)).eval()
    return made


def has_operator() -> bool:
    """Whether this machine is of the kind that the operator is for."""
    backends: Any = torch.backends
    return bool(backends.mkldnn.is_available()) and backends.cpu.get_cpu_capability() != "DEFAULT"


@pytest.mark.parametrize("size", [384, 1024, 1536, 4096])
@pytest.mark.parametrize("bias", [True, False])
def test_layers_of_every_size_are_replaced(size: int, bias: bool) -> None:
    if not has_operator():
        pytest.skip("this processor has no oneDNN kernels for the operator")
    for seed in range(3):
        torch.manual_seed(seed)
        assert speed_up(torch.nn.Sequential(torch.nn.Linear(size, 64, bias=bias))) == 1


def test_another_formula_of_gelu_is_told_apart() -> None:
    torch.manual_seed(0)
    plain: Any = torch.nn.Module()
    plain.dense, plain.intermediate_act_fn = torch.nn.Linear(32, 64), torch.nn.GELU(approximate="tanh")
    fast = copy.deepcopy(plain)
    speed_up(fast)
    values = torch.randn(5, 32)
    with torch.inference_mode():
        found, expected = (one.intermediate_act_fn(one.dense(values)) for one in (fast, plain))
    assert float((found - expected).abs().max()) < 2e-6


def states(network: torch.nn.Module, ids: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = network(input_ids=ids).last_hidden_state.float()
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", CONFIGS)
def test_same_states_as_the_plain_model(kind: str, dtype: torch.dtype) -> None:
    plain = model(kind).to(dtype)
    fast = copy.deepcopy(plain)
    count = sum(type(module) is torch.nn.Linear for module in plain.modules())
    replaced = speed_up(fast)
    assert replaced == (count if has_operator() else 0)
    ids = torch.arange(2, 40)[None].repeat(3, 1)
    error = (states(fast, ids) - states(plain, ids)).abs().max()
    assert float(error) < {torch.float32: 2e-6, torch.bfloat16: 8e-2}[dtype]


def test_on_x86_with_onednn_they_are_replaced_and_gelu_is_fused() -> None:
    if not has_operator():
        pytest.skip("this processor has no oneDNN kernels for the operator")
    network = model("bert")
    assert speed_up(network) == 13  # six in each of two layers, and the pooler's
    assert not any(type(module) is torch.nn.Linear for module in network.modules())
    assert not any("GELU" in type(module).__name__ for module in network.modules())


def test_other_activations_stay_where_they_are() -> None:
    plain = model("bert", hidden_act="relu")
    fast = copy.deepcopy(plain)
    speed_up(fast)
    assert sum("ReLU" in type(module).__name__ for module in fast.modules()) == 2
    ids = torch.arange(2, 40)[None]
    assert float((states(fast, ids) - states(plain, ids)).abs().max()) < 2e-6


@pytest.mark.parametrize("error", [AttributeError, NotImplementedError, RuntimeError])
def test_a_torch_without_the_operator(monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    def missing(*_: object) -> torch.nn.Module:
        raise error("no such operator")

    monkeypatch.setattr(linear, "_fast", missing)
    network = model("bert")
    assert speed_up(network) == 0
    assert any(type(module) is torch.nn.Linear for module in network.modules())


def test_an_operator_that_is_off_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "_fast", lambda layer, gelu: layer)  # forgets the activation
    assert speed_up(model("bert")) == 0


def test_a_model_without_linear_layers() -> None:
    assert speed_up(torch.nn.Sequential(torch.nn.LayerNorm(3))) == 0
