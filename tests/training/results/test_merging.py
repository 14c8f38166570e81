"""Merging of weights: the formula, dtypes, what is refused, and folders that load again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ctxindex.errors import ConfigError, ModelError
from ctxindex.training.results.merging import merge_folders, merge_states

State = dict[str, torch.Tensor]


def state(seed: int, dtype: torch.dtype = torch.float32) -> State:
    made = torch.Generator().manual_seed(seed)
    return {
        "embeddings.weight": torch.randn(7, 4, generator=made).to(dtype),
        "layer.bias": torch.randn(4, generator=made).to(dtype),
        "position_ids": torch.arange(5),
    }


def folder(path: Path, weights: State, *, shards: int = 1, dense: State | None = None) -> Path:
    path.mkdir()
    names = list(weights)
    for shard in range(shards):
        name = "model.safetensors" if shards == 1 else f"model-{shard}.safetensors"
        save_file({key: weights[key] for key in names[shard::shards]}, path / name, metadata={"format": "pt"})
    if dense:
        (path / "1_Dense").mkdir()
        save_file(dense, path / "1_Dense" / "model.safetensors")
    (path / "config.json").write_text(json.dumps({"from": path.name}), encoding="utf-8")
    (path / "pytorch_model.bin").write_bytes(b"weights of another format")
    return path


@settings(deadline=None, max_examples=60)
@given(
    share=st.floats(0, 1),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.float16]),
    seed=st.integers(0, 1000),
)
def test_merging_is_the_weighted_mean(share: float, dtype: torch.dtype, seed: int) -> None:
    base, tuned = state(seed, dtype), state(seed + 1, dtype)
    merged = merge_states(base, tuned, share)
    assert list(merged) == list(base)
    for name in ("embeddings.weight", "layer.bias"):
        assert merged[name].dtype == dtype
        expected = (1 - share) * base[name].double().numpy() + share * tuned[name].double().numpy()
        if dtype in (torch.float64, torch.float32):
            np.testing.assert_allclose(merged[name], expected, atol=2e-6)
        else:  # rounded once, at the end: off by half a step of the dtype
            off = np.abs(merged[name].double().numpy() - expected)
            assert (off <= torch.finfo(dtype).eps / 2 * np.abs(expected) + 1e-6).all()
    assert torch.equal(merged["position_ids"], torch.arange(5))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_ends_and_what_did_not_change_are_exact(dtype: torch.dtype) -> None:
    base, tuned = state(0, dtype), state(1, dtype)
    tuned["layer.bias"] = base["layer.bias"].clone()
    base["mask"] = tuned["mask"] = torch.tensor([0.0, -torch.inf], dtype=dtype)
    for share, end in ((0.0, base), (1.0, tuned)):
        merged = merge_states(base, tuned, share)
        assert all(torch.equal(merged[name], end[name]) for name in end)
    between = merge_states(base, tuned, 0.37)
    assert torch.equal(between["layer.bias"], base["layer.bias"])
    assert torch.equal(between["mask"], base["mask"])


def test_the_merged_weights_are_new_and_without_a_graph() -> None:
    base = {"weight": torch.nn.Parameter(torch.ones(2)), "ids": torch.arange(2)}
    tuned = {"weight": torch.nn.Parameter(torch.zeros(2)), "ids": torch.arange(2)}
    merged = merge_states(base, tuned, 0.25)
    merged["weight"].mul_(2)
    merged["ids"].mul_(2)
    assert merged["weight"].tolist() == [1.5, 1.5]
    assert not merged["weight"].requires_grad
    assert base["weight"].tolist() == [1, 1]
    assert base["ids"].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layer.bias": torch.ones(5)}, r"layer.bias is float32 \(4,\) in the base model and float32 \(5,\)"),
        ({"layer.bias": torch.ones(4).half()}, r"layer.bias is float32 \(4,\) .* and float16 \(4,\) in the tuned one"),
        ({"position_ids": torch.ones(5, dtype=torch.int64)}, "position_ids holds whole numbers, and not the same"),
        ({name: torch.ones(1) for name in "abcde"}, "only the tuned model has a, b, c and 2 more"),
    ],
)
def test_models_that_do_not_fit_are_refused(change: State, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        merge_states(state(0), state(1) | change, 0.5)


def test_a_missing_tensor_and_a_share_out_of_range_are_refused() -> None:
    base, tuned = state(0), state(1)
    del tuned["layer.bias"]
    with pytest.raises(ModelError, match=r"only the base model has layer\.bias: only a model"):
        merge_states(base, tuned, 0.5)
    for share in (-0.1, 1.1, float("nan")):
        with pytest.raises(ConfigError, match="must be 0 to 1"):
            merge_states(base, base, share)


def test_folders_are_merged_with_all_their_modules(tmp_path: Path) -> None:
    base_dense, tuned_dense = {"linear.weight": torch.ones(2, 4)}, {"linear.weight": torch.zeros(2, 4)}
    base = folder(tmp_path / "base", state(0), shards=2, dense=base_dense)
    tuned = folder(tmp_path / "tuned", state(1), dense=tuned_dense)
    into = tmp_path / "models" / "merged"
    merge_folders(base, tuned, 0.25, into)
    found = sorted(str(file.relative_to(into)) for file in into.rglob("*") if file.is_file())
    assert found == ["1_Dense/model.safetensors", "config.json", "model.safetensors"]
    expected = merge_states(state(0), state(1), 0.25)
    merged = load_file(into / "model.safetensors")
    assert merged.keys() == expected.keys()
    assert all(torch.equal(merged[name], expected[name]) for name in expected)
    assert load_file(into / "1_Dense" / "model.safetensors")["linear.weight"].tolist() == [[0.75] * 4] * 2
    with safe_open(into / "model.safetensors", framework="pt") as tensors:
        assert tensors.metadata() == {"format": "pt"}
    assert json.loads((into / "config.json").read_text(encoding="utf-8")) == {"from": "tuned"}
    assert [path.name for path in into.parent.iterdir()] == ["merged"]
    with pytest.raises(ModelError, match="is there already"):
        merge_folders(base, tuned, 0.25, into)


@pytest.mark.parametrize("beside", [("base",), ("tuned",), ("base", "tuned")])
def test_the_same_weights_in_another_precision_are_none_of_them(tmp_path: Path, beside: tuple[str, ...]) -> None:
    base, tuned = folder(tmp_path / "base", state(0)), folder(tmp_path / "tuned", state(1))
    for name in beside:
        save_file(state(2, torch.float16), tmp_path / name / "model.fp16.safetensors")
    merge_folders(base, tuned, 0.25, tmp_path / "merged")
    assert sorted(file.name for file in (tmp_path / "merged").iterdir()) == ["config.json", "model.safetensors"]
    expected = merge_states(state(0), state(1), 0.25)
    merged = load_file(tmp_path / "merged" / "model.safetensors")
    assert all(torch.equal(merged[name], expected[name]) for name in expected)


def test_the_tensors_of_a_context_are_merged_too(tmp_path: Path) -> None:
    for name, value in (("base", 0.0), ("tuned", 1.0)):
        folder(tmp_path / name, state(0))
        save_file({"null": torch.full((3,), value)}, tmp_path / name / "cde.safetensors")
    merge_folders(tmp_path / "base", tmp_path / "tuned", 0.25, tmp_path / "merged")
    assert load_file(tmp_path / "merged" / "cde.safetensors")["null"].tolist() == [0.25] * 3


def test_folders_that_cannot_be_merged_leave_nothing_behind(tmp_path: Path) -> None:
    base = folder(tmp_path / "base", state(0))
    into = tmp_path / "merged"
    wider = folder(tmp_path / "wider", state(1) | {"layer.bias": torch.ones(9)})
    with pytest.raises(ModelError, match=r"layer.bias is float32 \(4,\)"):
        merge_folders(base, wider, 0.5, into)
    dense = folder(tmp_path / "dense", state(1), dense={"linear.weight": torch.ones(1)})
    with pytest.raises(ModelError, match=r"only the tuned model has 1_Dense/linear\.weight"):
        merge_folders(base, dense, 0.5, into)
    damaged = folder(tmp_path / "damaged", state(1))
    (damaged / "model.safetensors").write_bytes(b"version https://git-lfs")
    with pytest.raises(ModelError, match=r"cannot read .*model\.safetensors"):
        merge_folders(base, damaged, 0.5, into)
    twice = folder(tmp_path / "twice", state(1))
    (twice / "model.safetensors").rename(twice / "weights.safetensors")
    save_file({"layer.bias": torch.ones(4)}, twice / "copy.safetensors")
    with pytest.raises(ModelError, match=r"has layer\.bias twice, in copy\.safetensors and in weights\.safetensors"):
        merge_folders(base, twice, 0.5, into)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"has no \*.safetensors weights"):
        merge_folders(base, tmp_path / "empty", 0.5, into)
    assert not list(tmp_path.glob("merged*"))


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    base, tuned = folder(tmp_path / "base", state(0)), folder(tmp_path / "tuned", state(1))
    (tmp_path / "file").write_text("no folder", encoding="utf-8")
    with pytest.raises(ModelError, match="cannot write"):
        merge_folders(base, tuned, 0.5, tmp_path / "file" / "merged")
