"""The loop: transformers' Trainer around our objective.

Checkpoints, devices, precision, learning rates and logs are the Trainer's. What it takes from us: the batch of a step
is a function of the seed and the number of the step alone (`batches`, `sampling`), so a training that was stopped goes
on as if it had not been; the gradient may come from a cache (`objective`); and what counts is nDCG@10 on held-out
documents, not a loss. On several devices each takes every n-th batch; where they tell each other's chunks apart, they
share out the documents of one (`batches.dealt`).
"""

from __future__ import annotations

import importlib.util
import os
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch.utils.data import Dataset
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from ctxindex.encoding.backbone import out_of_memory_told
from ctxindex.encoding.runtime import choose_dtype, resolve_device
from ctxindex.errors import ConfigError, MissingDependencyError, ModelError
from ctxindex.training.batches import Draw, dealt, draw_batches
from ctxindex.training.gathering import gather_others
from ctxindex.training.insent import NotNumbersError
from ctxindex.training.memory import Memory
from ctxindex.training.objective import Backward, Objective, StepLoss
from ctxindex.training.results.measured import METRIC
from ctxindex.training.running.folder import CHECKPOINTS as CHECKPOINTS
from ctxindex.training.running.folder import LOGS as LOGS
from ctxindex.training.running.stopping import BestOfThisFolder, Patience, SavedAsAsked, SavedByTime

if TYPE_CHECKING:
    from ctxindex.training.model import ContextualModel
    from ctxindex.training.sampling import Sampler
    from ctxindex.training.schedule import Schedule

_WAITING = 24 * 60 * 60
"""Seconds that devices wait for each other: as long as the first may measure."""

_LOST = 10 * 60
"""Seconds after which there is a checkpoint, whatever was asked for."""

Validate = Callable[[], Mapping[str, float]]
"""Measures the model as it is now; `METRIC` is among what it gives."""


class Batches(Protocol):
    """Makes the batch of a draw: a `Sampler`, or another that its objective understands."""

    def batch(self, draw: Draw) -> Any:
        """What is read in the step of that draw."""
        ...


class Steps(Protocol):
    """Puts the gradients of a batch into the weights: an `Objective`, or another; see `Objective.step`."""

    def step(
        self,
        encode: Any,
        batch: Any,
        backward: Backward,
        *,
        budget: int | None,
        autocast: Callable[[], AbstractContextManager[object]],
        unfinished: Callable[[], AbstractContextManager[object]],
    ) -> StepLoss:
        """Gradients of a batch's loss; gives the loss without its graph."""
        ...


class Draws(Dataset[Draw]):
    """The batches of a training, in order."""

    def __init__(self, draws: Sequence[Draw]) -> None:
        self._draws = draws

    def __len__(self) -> int:
        return len(self._draws)

    def __getitem__(self, number: int) -> Draw:
        return self._draws[number]


class ContextualTrainer(Trainer):
    """Trains a `ContextualModel`.

    Args:
        model: what is trained.
        objective: gives the loss of a batch.
        sampler: makes the batch of a draw.
        draws: the batches of all devices, in order.
        arguments: of the Trainer.
        budget: tokens of a part, for a gradient cache; None for none.
        validate: measures the model; None where nothing is held out.
        callbacks: of the Trainer, such as who draws a progress bar.
    """

    def __init__(
        self,
        model: ContextualModel,
        objective: Steps,
        sampler: Batches,
        draws: Sequence[Draw],
        arguments: TrainingArguments,
        *,
        budget: int | None = None,
        validate: Validate | None = None,
        callbacks: Sequence[TrainerCallback] = (),
    ) -> None:
        data = Draws(draws)
        super().__init__(
            model,
            args=arguments,
            train_dataset=data,
            eval_dataset=data if validate else None,
            data_collator=lambda taken: {"batch": sampler.batch(taken[0])},
            callbacks=list(callbacks),
        )
        self.remove_callback(PrinterCallback)
        self._draws = data
        self._objective = objective
        self._budget = budget
        self._validate = validate
        self._shown: dict[str, list[torch.Tensor]] = defaultdict(list)
        self._patience = {one.early_stopping_patience for one in callbacks if isinstance(one, Patience)}

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train; see `Trainer.train`.

        Raises:
            ModelError: memory is short, or the numbers leave their range; the message says what to do.
        """
        try:
            with out_of_memory_told(self.args.device):
                return super().train(*args, **kwargs)
        except MemoryError as error:
            parts = "4096" if self._budget is None else f"below {self._budget}"
            raise ModelError(
                f"a step of the training does not fit in memory ({error}): read batches in parts (--mini-batch-tokens "
                f"{parts}) or keep less of a pass (--gradient-checkpointing), and go on with --resume; or make batches "
                "smaller (--documents, --document-windows) in a new folder"
            ) from None

    def training_step(self, model: torch.nn.Module, inputs: dict[str, Any], *_: Any, **__: Any) -> torch.Tensor:
        """The gradients of one batch; its loss."""
        model.train()
        try:
            found = self._objective.step(
                model,
                inputs["batch"],
                self.accelerator.backward,
                budget=self._budget,
                autocast=self.accelerator.autocast,
                unfinished=lambda: self.accelerator.no_sync(model),
            )
        except NotNumbersError:
            raise self._out_of_range() from None
        if not torch.isfinite(found.total):
            raise self._out_of_range()
        for name, value in found.log.items():
            self._shown[name].append(value)
        return found.total.detach()

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """With the parts of the loss since the last time."""
        if "loss" in logs:
            logs |= {name: float(torch.stack(values).mean()) for name, values in self._shown.items()}
            self._shown.clear()
        super().log(logs, *args, **kwargs)

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """nDCG@10 on held-out documents, measured by the first process and told to all."""
        told: list[dict[str, float]] = [{}]
        if self._validate is not None and self.is_world_process_zero():
            told = [{f"eval_{name}": value for name, value in self._validate().items()}]
        if self.args.world_size > 1:
            torch.distributed.broadcast_object_list(told)
        metrics = told[0]
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _out_of_range(self) -> ModelError:
        half = "" if not (self.args.bf16 or self.args.fp16) else ", or compute in full precision (--precision float32)"
        return ModelError(
            f"step {self.state.global_step + 1} gives vectors or a loss that are not numbers: train more slowly "
            f"(--learning-rate less than {self.args.learning_rate:g}){half}, in a new folder"
        )

    def _load_callback_state(self) -> None:
        """What a checkpoint says of callbacks; but patience may be chosen anew."""
        super()._load_callback_state()
        for one in self.callback_handler.callbacks:
            if isinstance(one, Patience):
                (one.early_stopping_patience,) = self._patience

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        """Nothing where training had been stopped before it was interrupted: the Trainer would do one step more."""
        if not self.control.should_training_stop:
            super()._run_epoch(*args, **kwargs)  # type: ignore[no-untyped-call]

    def get_decay_parameter_names(self, model: torch.nn.Module) -> list[str]:
        """The matrices, by their form: names of ours tell nothing to the Trainer."""
        return [name for name, weight in model.named_parameters() if weight.ndim > 1]

    def _get_train_sampler(self, *_: Any, **__: Any) -> torch.utils.data.Sampler[int]:
        return torch.utils.data.SequentialSampler(self._draws)


def make_trainer(
    model: ContextualModel,
    base: ContextualModel | None,
    sampler: Sampler,
    sources: Mapping[str, int],
    schedule: Schedule,
    objective: Any,
    *,
    folder: Path,
    shares: Mapping[str, float] | None = None,
    replayed: Collection[str] = (),
    device: str = "auto",
    validate: Validate | None = None,
    callbacks: Sequence[TrainerCallback] = (),
    tensorboard: bool = False,
) -> ContextualTrainer:
    """A trainer that writes its checkpoints and logs into `folder`.

    Args:
        model: what is trained, with adapters where the schedule asks for them.
        base: the same before training, where the objective holds it.
        sampler: of the documents of all sources.
        sources: how many documents each source has.
        schedule: how long and how fast.
        objective: the `ObjectiveOptions`.
        folder: where training writes.
        shares: of the batches, for each source.
        replayed: sources that are practised beside: epochs are those of the others.
        device: where the model is trained.
        validate: measures the model.
        callbacks: of the Trainer.
        tensorboard: write logs that TensorBoard draws.

    Raises:
        ConfigError: batches that cannot be drawn; see `draw_batches`.
        MissingDependencyError: the extra `train` is not installed.
    """
    if importlib.util.find_spec("accelerate") is None:
        raise MissingDependencyError("accelerate", extra="train", purpose="training")
    watched = validate is not None and schedule.evaluate_every > 0
    documents = _documents(sources, shares or sources, replayed)
    arguments = arguments_of(schedule, documents, folder, device, watched=watched)
    if base is not None:
        base.to(arguments.device)  # where the Trainer brings the model
    devices = arguments.world_size
    together = schedule.gather_negatives and devices > 1
    memory = None
    if objective.cross_batch_memory:
        memory = Memory(
            [name for name in sources if name not in replayed], objective.cross_batch_memory, model.spec.dim
        )
        model.remember(memory)
    draws = draw_batches(sources, schedule.documents * (devices if together else 1), schedule.seed, shares)
    return ContextualTrainer(
        model,
        Objective(model, objective, base, gather_others if together else None, memory),
        sampler,
        list(islice(dealt(draws, devices) if together else draws, arguments.max_steps * devices)),
        arguments,
        budget=schedule.mini_batch_tokens,
        validate=validate,
        callbacks=[*callbacks_of(schedule, folder, watched=watched, tensorboard=tensorboard), *callbacks],
    )


def precision_of(schedule: Schedule, device: str) -> str:
    """What the passes run in on that device: one of `DTYPES`."""
    return choose_dtype(device) if schedule.precision == "auto" else schedule.precision


def _documents(sources: Mapping[str, int], shares: Mapping[str, float], replayed: Collection[str]) -> int:
    """As many documents as make the epochs: those that are trained on, and what is practised beside as often."""
    trained = sum(count for name, count in sources.items() if name not in replayed)
    share = sum(one for name, one in shares.items() if name not in replayed) / sum(shares.values())
    return round(trained / share)


def callbacks_of(schedule: Schedule, folder: Path, *, watched: bool, tensorboard: bool) -> list[TrainerCallback]:
    """Who stops a training, keeps the best of it, and writes its logs.

    Raises:
        MissingDependencyError: logs are asked for, and the extra `train` is not installed.
    """
    stopping = [Patience(schedule.patience)] if schedule.patience and watched else []
    drawing = [_tensorboard(folder / LOGS)] if tensorboard else []
    return [*stopping, BestOfThisFolder(), SavedAsAsked(), SavedByTime(_LOST), *drawing]


def _tensorboard(folder: Path) -> TrainerCallback:
    """Writes what TensorBoard draws into the folder."""
    if importlib.util.find_spec("tensorboard") is None:
        raise MissingDependencyError("tensorboard", extra="train", purpose="--tensorboard")
    from transformers.integrations import integration_utils

    make: Any = integration_utils.TensorBoardCallback  # without types
    callback: TrainerCallback = make()
    callback.logging_dir = str(folder)  # type: ignore[attr-defined]
    return callback


def arguments_of(schedule: Schedule, documents: int, folder: Path, device: str, *, watched: bool) -> TrainingArguments:
    """What the Trainer is told of a schedule, for so many documents (or pairs) an epoch.

    Raises:
        ConfigError: another device than the first of its kind.
    """
    if (resolved := resolve_device(device)).index:
        raise ConfigError(
            f"--device {device}: a training is on the first device that it sees: show it no other, as with "
            f"CUDA_VISIBLE_DEVICES={resolved.index}, and say --device {resolved.type}"
        )
    precision = precision_of(schedule, device)
    steps = schedule.total_steps(documents, int(os.environ.get("WORLD_SIZE", "1")))
    every = schedule.evaluate_every if watched else schedule.save_every
    arguments = TrainingArguments(
        output_dir=str(folder / CHECKPOINTS),
        max_steps=steps,
        per_device_train_batch_size=1,  # one draw, which is a batch of documents
        learning_rate=schedule.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=round(schedule.warmup * steps),
        weight_decay=schedule.weight_decay,
        max_grad_norm=schedule.max_norm,
        bf16=precision == "bfloat16",
        fp16=precision == "float16",
        use_cpu=resolved.type == "cpu",
        seed=schedule.seed,
        eval_strategy="steps" if watched else "no",
        eval_steps=every,
        save_strategy="steps",
        save_steps=every,
        save_total_limit=2,
        load_best_model_at_end=watched,
        metric_for_best_model=METRIC,
        greater_is_better=True,
        restore_callback_states_from_checkpoint=True,
        logging_steps=10,
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        ddp_timeout=_WAITING,
        dataloader_pin_memory=False,
    )
    arguments._n_gpu = min(1, arguments.n_gpu)  # devices are shared out by processes, never inside of one
    return arguments
