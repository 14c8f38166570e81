"""Where and in what precision the forward pass runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ctxindex.errors import ConfigError

if TYPE_CHECKING:
    import torch

DTYPES = ("float32", "bfloat16", "float16")
DEVICES = ("auto", "cpu", "cuda", "mps")


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
    """The torch dtype of that name.

    Raises:
        ConfigError: not one of `DTYPES`.
    """
    import torch

    if name not in DTYPES:
        raise ConfigError(f"--dtype {name} is none of {', '.join(DTYPES)}")
    dtype = getattr(torch, name)
    assert isinstance(dtype, torch.dtype)
    return dtype
