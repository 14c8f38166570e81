"""Where and in what precision the forward pass runs, and on how many threads.

The precision of a new index is chosen by what the device can do: half precision on CUDA; on a CPU bfloat16 if it has
instructions for it (AVX512-BF16 or AMX) and they are faster, which is measured once and kept in the user's cache; else
float32. What was chosen is part of an index's spec, so it does not change when the index moves to another machine.
"""

from __future__ import annotations

import json
import logging
import math
import os
import platform
import time
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from ctxindex.errors import ConfigError

if TYPE_CHECKING:
    import torch

DTYPES = ("float32", "bfloat16", "float16")
DEVICES = ("auto", "cpu", "cuda", "mps")
AUTO = "auto"

_log = logging.getLogger("ctxindex")

_CPU_INFO = Path("/proc/cpuinfo")
_CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")
_BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16"}
_WORTH = 1.2
"""How much faster bfloat16 must be to be chosen."""

_SHAPE = (1024, 768, 1024)
_SECONDS = 0.05

_MALLOC_VARIABLES = ("MALLOC_", "GLIBC_TUNABLES")
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's mallopt, from malloc.h."""

_LARGEST_BLOCK = 32 * 2**20
"""The most that glibc takes as a threshold for blocks of their own."""

_KEPT = 128 * 2**20


def cache_folder() -> Path:
    """Where is kept what can be made again: $XDG_CACHE_HOME/ctxindex, or ctxindex in ~/.cache.

    Raises:
        RuntimeError: there is no home, as in some containers.
    """
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ctxindex"


def require_known(device: str, dtype: str, threads: int | None = None) -> None:
    """Check what was asked for without asking torch, so that a slip is told before anything is loaded or made.

    Raises:
        ConfigError: not one of `DEVICES` (a CUDA device may have a number, `cuda:1`) or `DTYPES`, or no thread at all.
    """
    if threads is not None and threads < 1:
        raise ConfigError(f"--threads {threads} must be 1 or more")
    if device.split(":")[0] not in DEVICES:
        raise ConfigError(f"--device {device} is none of {', '.join(DEVICES)}")
    if dtype not in (AUTO, *DTYPES):
        raise ConfigError(f"--dtype {dtype} is none of {', '.join((AUTO, *DTYPES))}")


def resolve_device(name: str) -> torch.device:
    """The device called `name`; `auto` takes CUDA, then MPS, then the CPU.

    Raises:
        ConfigError: this machine, or this build of torch, has no such device.
    """
    import torch

    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return torch.device(next(device for device in ("cuda", "mps", "cpu") if present[device]))
    if not present.get(name.split(":")[0], False):
        usable = ", ".join(device for device, there in present.items() if there)
        raise ConfigError(f"--device {name} is not usable here; usable: auto, {usable}")
    return torch.device(name)


def resolve_dtype(name: str) -> torch.dtype:
    """The torch dtype of that name, one of `DTYPES`."""
    import torch

    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[name]


def choose_dtype(device: str) -> str:
    """The name of the fastest precision that keeps the quality of vectors, on the device called `device`.

    Raises:
        ConfigError: this machine has no such device.
    """
    kind = device.split(":")[0]
    if kind == "cpu" or (kind == AUTO and not _has_accelerator()):
        return "bfloat16" if _BFLOAT16_FLAGS & _cpu_flags() and _bfloat16_pays() else "float32"
    import torch

    if resolve_device(device).type != "cuda":
        return "float32"
    return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"


def _has_accelerator() -> bool:
    import torch

    return torch.cuda.is_available() or torch.backends.mps.is_available()


def _cpu_flags() -> set[str]:
    """What the first processor of a Linux machine can do; empty elsewhere."""
    try:
        lines = _CPU_INFO.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return set()
    return set(next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), []))


def _bfloat16_pays() -> bool:
    """Whether a matrix product is faster in bfloat16 than in float32; measured once on each machine and torch."""
    machine = f"{platform.machine()} {' '.join(sorted(_cpu_flags()))} torch {version('torch')}"
    try:
        kept = cache_folder() / "bfloat16.json"
    except RuntimeError:
        return _measure() >= _WORTH
    try:
        known = json.loads(kept.read_text(encoding="utf-8"))
        if known["machine"] == machine:
            return float(known["ratio"]) >= _WORTH
    except (OSError, ValueError, TypeError, KeyError):
        pass  # measured again
    ratio = _measure()
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps({"machine": machine, "ratio": ratio}), encoding="utf-8")
    except OSError as error:
        _log.debug("the measurement was not kept: %s", error)
    return ratio >= _WORTH


def _measure() -> float:
    """How many times as fast a product of matrices is in bfloat16 as in float32: the best of some of each."""
    import torch

    rows, inner, columns = _SHAPE
    best = {torch.float32: math.inf, torch.bfloat16: math.inf}
    for dtype in best:
        left, right = torch.ones(rows, inner, dtype=dtype), torch.ones(inner, columns, dtype=dtype)
        left @ right  # the first starts threads and makes kernels
        began = time.perf_counter()
        while time.perf_counter() - began < _SECONDS:
            start = time.perf_counter()
            left @ right
            best[dtype] = min(best[dtype], time.perf_counter() - start)
    return best[torch.float32] / best[torch.bfloat16]


def use_threads(count: int | None) -> None:
    """Let torch run on `count` threads of the CPU; None: on those this process may use.

    torch counts the processors of the machine; a container is often given the time of fewer, and more threads than
    those wait for each other.
    """
    import torch

    _torch_threads()
    if count is not None or "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(count or min(_torch_threads(), usable_processors()))


@cache
def _torch_threads() -> int:
    """What torch takes by itself, before anybody has said otherwise here."""
    import torch

    return torch.get_num_threads()


def keep_freed_memory() -> None:
    """Let the C library keep what a batch has freed for the next one, instead of giving it back to the system.

    By default glibc returns blocks of a few megabytes at once, and each is then brought in again page by page: a tenth
    of the time of a forward pass. Nothing is changed where the user has set a MALLOC_ or GLIBC_TUNABLES variable.
    """
    if platform.libc_ver()[0] != "glibc" or any(name.startswith(_MALLOC_VARIABLES) for name in os.environ):
        return
    import ctypes

    library = ctypes.CDLL(None)
    library.mallopt(_M_MMAP_THRESHOLD, _LARGEST_BLOCK)
    library.mallopt(_M_TRIM_THRESHOLD, _KEPT)


def usable_processors() -> int:
    """Processors whose time this process is given, by its container or its affinity."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = _CPU_QUOTA.read_text(encoding="ascii").split()
        return min(usable, max(1, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):  # no such file, or "max"
        return usable
