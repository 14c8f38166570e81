"""Which weights a training changes, and how much of a pass is kept for their gradients, as a schedule says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from ctxindex.errors import ConfigError
from ctxindex.training.lora import add_adapters

if TYPE_CHECKING:
    from ctxindex.training.model import ContextualModel
    from ctxindex.training.schedule import Schedule


def choose_parameters(model: ContextualModel, schedule: Schedule) -> None:
    """Add adapters, freeze the table of token embeddings, and turn on gradient checkpointing, as the schedule says.

    New weights depend on the schedule's seed alone. It comes before the optimizer is made, and in the same way before a
    checkpoint is read again.

    Raises:
        ConfigError: the model cannot do without what it computed in a pass.
        MissingDependencyError: adapters are asked for, and the extra `lora` is not installed.
    """
    if schedule.lora is not None:
        with torch.random.fork_rng():
            torch.manual_seed(schedule.seed)
            add_adapters(model, schedule.lora)
    if schedule.freeze_embeddings:
        model.transformer.get_input_embeddings().requires_grad_(False)
    if schedule.gradient_checkpointing:
        _compute_again(model.transformer)


def _compute_again(transformer: Any) -> None:
    # transformers renamed it within release 5, and warns of the old name.
    enable = getattr(transformer, "activation_checkpointing_enable", None) or transformer.gradient_checkpointing_enable
    try:
        enable({"use_reentrant": False})
    except ValueError:
        raise ConfigError(
            f"--gradient-checkpointing does not go with {type(transformer).__name__}: a smaller --mini-batch-tokens "
            "spares memory with any model"
        ) from None
