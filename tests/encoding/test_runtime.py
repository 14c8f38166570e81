"""Which precision and how many threads are chosen, from what a machine says of itself."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

from ctxindex.encoding import EncoderOptions, load_encoder, runtime
from ctxindex.encoding.runtime import choose_dtype, require_known, resolve_device, use_threads
from ctxindex.errors import ConfigError


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A CPU with bfloat16 instructions, and an empty cache."""
    info = tmp_path / "cpuinfo"
    info.write_text("processor\t: 0\nmodel name\t: One\nflags\t\t: fpu avx512f avx512_bf16\n\nprocessor\t: 1\n")
    monkeypatch.setattr(runtime, "_CPU_INFO", info)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return info


def measured(monkeypatch: pytest.MonkeyPatch, ratio: float) -> list[float]:
    calls: list[float] = []

    def measure() -> float:
        calls.append(ratio)
        return ratio

    monkeypatch.setattr(runtime, "_measure", measure)
    return calls


@pytest.mark.parametrize(("ratio", "expected"), [(3.0, "bfloat16"), (1.1, "float32"), (0.2, "float32")])
def test_bfloat16_where_it_is_faster(
    machine: Path, monkeypatch: pytest.MonkeyPatch, ratio: float, expected: str
) -> None:
    calls = measured(monkeypatch, ratio)
    assert choose_dtype("cpu") == expected
    assert choose_dtype("auto") == expected
    assert len(calls) == 1  # the second time it is known


def test_no_measurement_without_the_instructions(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = measured(monkeypatch, 5.0)
    machine.write_text("flags\t: fpu avx2 avx512f\n")
    assert choose_dtype("cpu") == "float32"
    machine.unlink()  # no Linux
    assert choose_dtype("cpu") == "float32"
    assert not calls


def test_another_machine_is_measured_again(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = measured(monkeypatch, 2.0)
    choose_dtype("cpu")
    machine.write_text("flags\t: amx_bf16\n")
    assert choose_dtype("cpu") == "bfloat16"
    assert len(calls) == 2


@pytest.mark.parametrize("content", ["", "{", "[]", '{"machine": 3}', "null"])
def test_a_damaged_cache_is_measured_again(
    machine: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str
) -> None:
    calls = measured(monkeypatch, 2.0)
    cache = tmp_path / "cache" / "ctxindex" / "bfloat16.json"
    cache.parent.mkdir(parents=True)
    cache.write_text(content)
    assert choose_dtype("cpu") == "bfloat16"
    assert calls
    assert json.loads(cache.read_text())["ratio"] == 2.0


def test_a_cache_that_cannot_be_written(machine: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    measured(monkeypatch, 2.0)
    (tmp_path / "cache").write_text("a file where a folder should be")
    assert choose_dtype("cpu") == "bfloat16"


def test_the_measurement_is_a_ratio_of_speeds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "_SHAPE", (64, 64, 64))
    monkeypatch.setattr(runtime, "_SECONDS", 0.002)
    assert 0.001 < runtime._measure() < 1000


def test_what_is_chosen_is_in_the_spec(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctxindex.encoding.encoder.choose_dtype", lambda device: "bfloat16")
    for given in (None, "auto"):
        assert load_encoder("minilm", EncoderOptions(dtype=given)).spec.dtype == "bfloat16"
    assert load_encoder("minilm", EncoderOptions(dtype="float32")).spec.dtype == "float32"


@pytest.mark.parametrize(("device", "dtype", "threads"), [("tpu", "auto", 1), ("cpu", "int3", 1), ("cpu", "auto", 0)])
def test_what_is_unknown_is_refused(device: str, dtype: str, threads: int) -> None:
    with pytest.raises(ConfigError):
        require_known(device, dtype, threads)
    with pytest.raises(ConfigError):
        load_encoder("minilm", EncoderOptions(device=device, dtype=dtype, threads=threads))


def test_a_device_that_is_not_there() -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    with pytest.raises(ConfigError, match="usable: auto, cpu"):
        resolve_device("cuda")
    with pytest.raises(ConfigError, match="usable: auto, cpu"):
        choose_dtype("cuda:1")


@pytest.mark.parametrize(("content", "expected"), [("150000 100000\n", 2), ("50000 100000\n", 1), ("max 100000\n", 64)])
def test_threads_are_those_that_a_container_is_given(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str, expected: int
) -> None:
    quota = tmp_path / "cpu.max"
    quota.write_text(content)
    monkeypatch.setattr(runtime, "_CPU_QUOTA", quota)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    assert runtime.usable_processors() == expected


def test_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    try:
        use_threads(1)
        assert torch.get_num_threads() == 1
        torch.set_num_threads(2)
        monkeypatch.setattr(runtime, "usable_processors", lambda: 1)
        monkeypatch.setenv("OMP_NUM_THREADS", "2")
        use_threads(None)  # somebody has decided already
        assert torch.get_num_threads() == 2
        monkeypatch.delenv("OMP_NUM_THREADS")
        use_threads(None)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
