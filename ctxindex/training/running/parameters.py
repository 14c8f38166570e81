"""Which weights a training changes, and how much of a pass is kept for their gradients, as a schedule says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from ctxindex.encoding.backbones import BACKBONES
from ctxindex.errors import ConfigError
from ctxindex.training.running.lora import add_adapters

if TYPE_CHECKING:
    from ctxindex.training.model import ContextualModel
    from ctxindex.training.schedule import Schedule


def choose_parameters(model: ContextualModel, schedule: Schedule) -> None:
    """Add adapters, freeze the table of token embeddings, and turn on gradient checkpointing, as the schedule says.

    A first stage that learns beside the model (method `cde`) is treated as the model itself is. New weights depend on
    the schedule's seed alone. It comes before the optimizer is made, and in the same way before a checkpoint is read
    again.

    Raises:
        ConfigError: the model cannot do without what it computed in a pass.
        MissingDependencyError: adapters are asked for, and the extra `lora` is not installed.
    """
    stages = _stages(model)
    if schedule.lora is not None:
        with torch.random.fork_rng():
            torch.manual_seed(schedule.seed)
            for stage in stages:
                add_adapters(stage, schedule.lora)
    for stage in stages:
        if schedule.freeze_embeddings:
            stage.transformer.get_input_embeddings().requires_grad_(False)
        if schedule.gradient_checkpointing:
            _compute_again(stage.transformer)


def _stages(model: ContextualModel) -> list[ContextualModel]:
    """The model, and the first stage that learns beside it, where there is one: a `TwoStageModel` has it."""
    first: ContextualModel | None = getattr(model, "first_stage", None)
    return [model] if first is None else [model, first]


def _compute_again(transformer: Any) -> None:
    # transformers renamed it within release 5, and warns of the old name.
    enable = getattr(transformer, "activation_checkpointing_enable", None) or transformer.gradient_checkpointing_enable
    try:
        enable({"use_reentrant": False})
    except ValueError:
        kind = str(transformer.config.model_type)
        raise ConfigError(
            f"--gradient-checkpointing does not go with {BACKBONES.get(kind, kind)}: a smaller --mini-batch-tokens "
            "spares memory with any model"
        ) from None
