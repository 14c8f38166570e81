"""Trainings as a whole, on tiny models: what tests of them begin with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from ctxindex.encoding import EncoderOptions, open_checkpoint
from ctxindex.training.context import in_context
from ctxindex.training.data import Data
from ctxindex.training.finetune import Plan, finetune
from ctxindex.training.schedule import Schedule
from tests.training.sets import SPEC

QUICK = Schedule(
    steps=2, documents=2, windows=2, queries=2, clozes=0, learning_rate=5e-3, save_every=1, precision="float32"
)


def plan_of(root: Path, kind: str = "bert", schedule: Schedule = QUICK, **more: Any) -> Plan:
    chosen = more.pop("encoder", {"anchor": 8} | ({"force_mean": True} if kind in ("cls", "bare") else {}))
    encoder = in_context(EncoderOptions(**chosen), open_checkpoint(str(root / kind)))
    return Plan(str(root / kind), encoder, SPEC, schedule=schedule, **more)


def trained(plan: Plan, data: Data, out: Path, **more: Any) -> Any:
    return finetune(plan, data, out, device="cpu", **more)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")
