"""The loop of a contextual training: that of `ctxindex.training.running.trainer`, over batches of pairs.

What the base does not have (the projection, the null vector, an output head) learns faster than what it has: it begins
next to nowhere, and the base is to stay near where it was. The biases of context scores have a rate of their own: a
step moves a weight by about its rate, and these are to move by one or two within a short training, or the context
counts for as much as it did at the start. Their mean is logged as `context_bias`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctxindex.errors import MissingDependencyError
from ctxindex.training.contextual.model import BIAS, PARTS
from ctxindex.training.contextual.objective import ContextualObjective
from ctxindex.training.running.trainer import ContextualTrainer, Validate, arguments_of, callbacks_of

if TYPE_CHECKING:
    import torch
    from transformers import TrainerCallback

    from ctxindex.training.contextual.model import TwoStageModel
    from ctxindex.training.contextual.options import ContextualOptions
    from ctxindex.training.contextual.packing import PairBatchSampler
    from ctxindex.training.contextual.pairs import PairSampler
    from ctxindex.training.plan import Plan


class TwoStageTrainer(ContextualTrainer):
    """Trains a `TwoStageModel`; `options` has the learning rates of its new weights."""

    def __init__(self, model: TwoStageModel, *args: Any, options: ContextualOptions, **kwargs: Any) -> None:
        super().__init__(model, *args, **kwargs)
        self._biases = model.parts[BIAS]
        self._options = options

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """With what the bias of context scores is now."""
        if "loss" in logs:
            logs["context_bias"] = float(self._biases.detach().mean())
        super().log(logs, *args, **kwargs)

    def create_optimizer(self, *_: Any, **__: Any) -> torch.optim.Optimizer:
        """As of the Trainer, with three learning rates; the schedule scales all."""
        if self.optimizer is None:
            model: Any = self.model
            kind, settings = self.get_optimizer_cls_and_kwargs(self.args)
            decayed = set(self.get_decay_parameter_names(model))
            groups: dict[tuple[float, bool], list[torch.nn.Parameter]] = {}
            for name, weight in model.named_parameters():
                if weight.requires_grad:
                    groups.setdefault((self._rate(name), name in decayed), []).append(weight)
            self.optimizer = kind(
                [
                    {
                        "params": weights,
                        "weight_decay": self.args.weight_decay if decays else 0.0,
                        "lr": rate,
                    }
                    for (rate, decays), weights in groups.items()
                ],
                **settings,
            )
        return self.optimizer

    def _rate(self, name: str) -> float:
        if name == f"{PARTS}{BIAS}":
            return self._options.bias_rate
        return self.args.learning_rate * (self._options.new_rate if name.startswith(PARTS) else 1.0)


def make_pair_trainer(
    model: TwoStageModel,
    sampler: PairSampler,
    batches: PairBatchSampler,
    pairs: int,
    plan: Plan,
    *,
    folder: Path,
    device: str = "auto",
    validate: Validate | None = None,
    callbacks: Sequence[TrainerCallback] = (),
    tensorboard: bool = False,
) -> TwoStageTrainer:
    """A trainer that writes its checkpoints and logs into `folder`.

    Args:
        model: what is trained.
        sampler: makes what is read of a batch.
        batches: which pairs make a batch.
        pairs: how many there are.
        plan: the rest.
        folder: where training writes.
        device: where the model is trained.
        validate: measures the model.
        callbacks: of the Trainer.
        tensorboard: write logs that TensorBoard draws.

    Raises:
        MissingDependencyError: the extra `train` is not installed.
    """
    if importlib.util.find_spec("accelerate") is None:
        raise MissingDependencyError("accelerate", extra="train", purpose="training")
    schedule, options = plan.schedule, plan.contextual
    watched = validate is not None and schedule.evaluate_every > 0
    arguments = arguments_of(schedule, pairs, folder, device, watched=watched)
    return TwoStageTrainer(
        model,
        ContextualObjective(model, plan.objective.insent, options.insent),
        sampler,
        list(islice(batches.draws(), arguments.max_steps)),
        arguments,
        budget=schedule.mini_batch_tokens,
        validate=validate,
        callbacks=[*callbacks_of(schedule, folder, watched=watched, tensorboard=tensorboard), *callbacks],
        options=options,
    )
