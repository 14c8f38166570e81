"""What each of two processes does that train together on CPUs, and how a test starts them."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional
from transformers import TrainerCallback

from ctxindex.training.gathering import gather_others
from ctxindex.training.insent import InsentOptions, Vectors
from ctxindex.training.objective import ObjectiveOptions
from ctxindex.training.running.trainer import make_trainer
from ctxindex.training.sampling import Answers, Limits, Sampler, Shares
from ctxindex.training.schedule import Schedule
from tests.training.toys import documents, tiny_model

OPTIONS: dict[str, Any] = {"blend": 0.3, "anchor": 8}
OBJECTIVE = ObjectiveOptions(InsentOptions(lambda_seq=0.3), hold=0.2)
LIMITS = Limits(2, 4)
SHARES = Shares(isolated=0.3)
BUDGET = 70
RUNS: dict[str, dict[str, Any]] = {
    "plain": {},
    "cached": {"mini_batch_tokens": BUDGET},
    "gathered": {"mini_batch_tokens": BUDGET, "gather_negatives": True},
}
"""What is chosen besides."""

_PATIENCE = 120.0
"""Seconds after which processes count as waiting for each other."""


def schedule(**more: Any) -> Schedule:
    """One step of two documents a device; the gradient is not cut."""
    return Schedule(steps=1, documents=2, max_norm=1e9, precision="float32", seed=2, **more)


def run_two(folder: Path, into: Path) -> list[dict[str, Any]]:
    """Train the model in `folder` in two processes; what each of them found.

    Raises:
        TimeoutError: they wait for each other.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    multiprocessing: Any = torch.multiprocessing  # exports nothing by name
    started = multiprocessing.spawn(_run, (port, folder, into), nprocs=2, join=False)
    until = time.monotonic() + _PATIENCE
    while not started.join(timeout=1):
        if time.monotonic() > until:
            for process in started.processes:
                process.kill()
            raise TimeoutError("two processes that train together wait for each other")
    return [torch.load(into / f"{rank}.pt", weights_only=False) for rank in range(2)]


def own_vectors(rank: int, *, ragged: bool) -> Vectors:
    """Other numbers, and another number of them, in each process."""
    lengths = (2, 1, 3) if rank else (4, 1)
    rows = torch.randn(sum(lengths), 5, generator=torch.Generator().manual_seed(rank))
    return Vectors(functional.normalize(rows, dim=1).requires_grad_(), lengths if ragged else None)


def own_answers(rank: int) -> Answers:
    """What each process asks, and what its chunks answer: "when?" is asked of both."""
    if rank:
        return Answers(("when?", "which?"), (("when?", 2), ("which?", 0), ("when?", 0)))
    return Answers(("who?", "when?"), (("who?", 0), ("when?", 1)))


class _Kept(TrainerCallback):
    def __init__(self) -> None:
        self.found: dict[str, torch.Tensor] = {}

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        model = getattr(more["model"], "module", more["model"])
        self.found = {name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None}


def _run(rank: int, port: int, folder: Path, into: Path) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true"}
    torch.set_num_threads(1)
    told: dict[str, Any] = {}
    for name, more in RUNS.items():
        encoder, model = tiny_model(folder, **OPTIONS)
        _, base = tiny_model(folder, **OPTIONS)
        sampler = Sampler({"toys": documents()}, encoder, LIMITS, SHARES)
        kept = _Kept()
        trainer = make_trainer(
            model,
            base,
            sampler,
            {"toys": 6},
            schedule(**more),
            OBJECTIVE,
            folder=into / name,
            device="cpu",
            validate=lambda: {"ndcg@10": 0.5 + rank},
            callbacks=[kept],
        )
        trainer.train()
        told[name] = kept.found
        told[f"{name}, measured"] = trainer.evaluate()
        told[f"{name}, weights"] = {key: weight.clone() for key, weight in model.state_dict().items()}
    for ragged in (False, True):
        found = gather_others(own_vectors(rank, ragged=ragged), own_answers(rank))
        assert found is not None
        told["ragged" if ragged else "dense"] = found
    torch.save(told, into / f"{rank}.pt")
    # What torch would do on leaving can last for ever: the group is freed under the interpreter's lock and waits for
    # gloo's thread, which waits for that lock if it is just letting go of the tensors that were gathered last.
    os._exit(0)
