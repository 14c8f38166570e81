"""How far a training is, told to whoever wants to know: the seam between transformers' Trainer and a progress bar."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

_MEASURED = "eval_"


class TrainingWatch(Protocol):
    """Who is told how far a training is."""

    def start(self, steps: int, done: int) -> None:
        """Training begins, with so many steps in all, of which `done` were done before."""
        ...

    def step(self, done: int) -> None:
        """That many steps are done."""
        ...

    def loss(self, step: int, values: Mapping[str, float]) -> None:
        """The `loss` since the last time, and its parts."""
        ...

    def measured(self, step: int, values: Mapping[str, float]) -> None:
        """The model was measured on the held-out documents: `ndcg@10`, and where there are several sets, each."""
        ...

    def finish(self, step: int) -> None:
        """Training is over."""
        ...


class Watching(TrainerCallback):
    """Tells a watch what the Trainer does; on several devices the first process alone."""

    def __init__(self, watch: TrainingWatch) -> None:
        self._watch = watch

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """See `TrainerCallback`."""
        if state.is_world_process_zero:
            self._watch.start(state.max_steps, state.global_step)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """See `TrainerCallback`."""
        if state.is_world_process_zero:
            self._watch.step(state.global_step)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """See `TrainerCallback`; losses and measurements both come as logs."""
        logs: Mapping[str, Any] = kwargs.get("logs") or {}
        if not state.is_world_process_zero:
            return
        if "loss" in logs:
            self._watch.loss(state.global_step, logs)
        elif any(name.startswith(_MEASURED) for name in logs):
            own = {name.removeprefix(_MEASURED): value for name, value in logs.items() if name.startswith(_MEASURED)}
            self._watch.measured(state.global_step, own)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """See `TrainerCallback`."""
        if state.is_world_process_zero:
            self._watch.finish(state.global_step)
