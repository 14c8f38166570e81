"""Where and in what precision the forward pass runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ctxindex.errors import ConfigError

if TYPE_CHECKING:
    import torch

DTYPES = ("float32", "bfloat16", "float16")
DEVICES = ("auto", "cpu", "cuda", "mps")


def require_known(device: str, dtype: str) -> None:
    """Check two names without asking torch, so that a slip is told before anything is loaded or made.

    Raises:
        ConfigError: not one of `DEVICES` (a CUDA device may have a number, `cuda:1`) or `DTYPES`.
    """
    if device.split(":")[0] not in DEVICES:
        raise ConfigError(f"--device {device} is none of {', '.join(DEVICES)}")
    if dtype not in DTYPES:
        raise ConfigError(f"--dtype {dtype} is none of {', '.join(DTYPES)}")


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
