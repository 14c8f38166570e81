"""Where the contenders of `encode.py` run: a process each, in an interpreter that has what it needs."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.contenders import Job
from ctxindex.encoding.runtime import choose_dtype

ROOT = Path(__file__).parents[1]

NEEDS = {
    "sentence-transformers": ("sentence-transformers",),
    "batch-sizes": ("sentence-transformers",),
    "onnx": ("sentence-transformers", "optimum-onnx", "onnxruntime"),
    "llama-index": ("llama-index-core", "llama-index-embeddings-huggingface"),
    "chonkie": ("chonkie", "sentence-transformers"),
}
"""What the interpreter of a peer must have, by kind of job; a kind that is not here is ours."""

_INSTALL = {"onnx": "'sentence-transformers[onnx]<6'", "llama-index": "llama-index-embeddings-huggingface"}
_BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}


class Interpreters:
    """The Pythons that contenders may run in: those of the peers, in their order, and at last the one that runs this.

    What is ours runs in the last alone.
    """

    def __init__(self, peers: Sequence[str]) -> None:
        self._versions: dict[str, dict[str, str]] = {}
        for python in [*peers, sys.executable]:
            self._versions[python] = require(run_job(python, Job("probe")))["versions"]

    def find(self, kind: str) -> str | None:
        """The first that has all that a job of that kind needs."""
        if kind not in NEEDS:
            return sys.executable
        return next((python for python, has in self._versions.items() if set(NEEDS[kind]) <= set(has)), None)

    def versions(self, kind: str) -> dict[str, str]:
        """What decides the speed of a job of that kind, with the versions it runs with."""
        has = self._versions[self.find(kind) or sys.executable]
        return {name: has[name] for name in (*NEEDS.get(kind, ()), "transformers", "torch") if name in has}


def how_to_install(kind: str) -> str:
    """What to tell where no interpreter has a peer."""
    return f"not installed: pip install {_INSTALL.get(kind, kind)}"


def run_job(python: str, job: Job) -> dict[str, Any]:
    """What one process answers; `failed` with the reason if it does not."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "connectors")]),
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",  # peers choose a device on their own; all are measured on the CPU
    }
    command = [python, "-P", "-m", "benchmarks.jobs"]
    try:
        done = subprocess.run(command, input=job.to_json(), capture_output=True, text=True, env=environment)
    except OSError as error:
        return {"failed": f"cannot run {python}: {error.strerror}"}
    if done.returncode or not done.stdout:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        return {"failed": f"ended with status {done.returncode}: {last}"[:300]}
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def require(result: dict[str, Any]) -> dict[str, Any]:
    """The result itself; the script ends where a process failed that nothing can be measured without."""
    if "failed" in result:
        sys.exit(f"a measured run failed: {result['failed']}")
    return result


def bfloat16_flags() -> list[str]:
    """The CPU's own names of its bfloat16 instructions; empty where it has none."""
    if sys.platform == "darwin":
        command = ["sysctl", "-n", "hw.optional.arm.FEAT_BF16"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return ["bf16"] if done.stdout.strip() == "1" else []
    return sorted(_BFLOAT16_FLAGS & set(_cpu_facts().get("flags", "").split()))


def resolve_dtype(name: str) -> str:
    """The dtype of that name; `auto` is what an index would take on this CPU."""
    return choose_dtype("cpu") if name == "auto" else name


def describe_machine(threads: int | None, versions: Mapping[str, str]) -> str:
    """What the figures depend on, in a line. It does not tell the machine's name."""
    flags = ", ".join(bfloat16_flags())
    parts = [
        _cpu_facts().get("model", "") or platform.processor() or platform.machine(),
        f"{os.cpu_count()} CPUs",
        f"bfloat16 instructions: {flags or 'none'}",
        f"torch {versions.get('torch', 'unknown')}" + (f" with {threads} threads" if threads else ""),
        f"Python {platform.python_version()}",
    ]
    return "; ".join(parts)


def _cpu_facts() -> dict[str, str]:
    """`model` and `flags` of the first CPU, as Linux tells them; empty elsewhere."""
    file = Path("/proc/cpuinfo")
    if not file.exists():
        return {}
    names = {"model name": "model", "flags": "flags", "Features": "flags"}  # Features: what ARM calls them
    lines = (line.partition(":") for line in file.read_text(encoding="utf-8").split("\n\n")[0].splitlines())
    return {names[key.strip()]: value.strip() for key, _, value in lines if key.strip() in names}
