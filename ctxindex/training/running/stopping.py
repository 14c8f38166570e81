"""When training stops early and which model it then keeps, told the same by a run that goes on as by one that did not.

The Trainer writes into a checkpoint how many measurements brought nothing better, where the best model lies and when
the next checkpoint is due, and trusts that all of it still holds when it goes on: that training had not been stopped at
that very checkpoint, that patience is what it was, that the folder has not been moved, and that checkpoints are wanted
as often as before.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from transformers import EarlyStoppingCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class Patience(EarlyStoppingCallback):
    """Stops training after so many measurements without a better one, those before an interruption included.

    Args:
        patience: measurements.
    """

    def __init__(self, patience: int) -> None:
        super().__init__(patience)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Stop at once where the last measurement before the interruption was the one to stop at."""
        super().on_train_begin(args, state, control, **kwargs)  # type: ignore[no-untyped-call]
        if self.early_stopping_patience_counter >= self.early_stopping_patience:
            control.should_training_stop = True

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps: the measurements, by the names that the Trainer restores."""
        return {
            "args": {"patience": self.early_stopping_patience},
            "attributes": {"early_stopping_patience_counter": self.early_stopping_patience_counter},
        }


class BestOfThisFolder(TrainerCallback):
    """Finds the best model where the checkpoints lie now, which need not be where they were written."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """See `TrainerCallback`."""
        best = Path(str(args.output_dir)) / f"checkpoint-{state.best_global_step}"
        if state.best_global_step and best.is_dir():
            state.best_model_checkpoint = str(best)


class SavedByTime(TrainerCallback):
    """Writes a checkpoint where the last is long ago, however few steps that were.

    With the next line of the log, so that what goes on from it writes the same lines. On one device only: several would
    have to agree on the time.

    Args:
        seconds: after which there is one.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._last = time.monotonic()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """See `TrainerCallback`."""
        self._last = time.monotonic()

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """See `TrainerCallback`."""
        self._last = time.monotonic()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """See `TrainerCallback`."""
        told = state.global_step % int(args.logging_steps) == 0
        if args.world_size == 1 and told and time.monotonic() - self._last >= self._seconds:
            control.should_save = True


class SavedAsAsked(TrainerCallback):
    """Writes checkpoints as often as this run asks for; the Trainer would as often as the one that it goes on from."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """See `TrainerCallback`."""
        state.save_steps = int(args.save_steps)
