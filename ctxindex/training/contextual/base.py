"""What a contextual training begins with: a CDE model as it is, or one that is made of an ordinary base.

A model that is made (`make_native_cde`) lies in the training's folder until the training is finished. It is the same
whenever it is made, so a training that goes on makes it again where it is gone.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ctxindex.encoding.cde_folder import make_native_cde
from ctxindex.encoding.cde_settings import NativeCde, require_second_stage
from ctxindex.encoding.checkpoint import open_checkpoint
from ctxindex.errors import ConfigError
from ctxindex.training.sources import training_documents

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ctxindex.encoding.checkpoint import Checkpoint
    from ctxindex.evaluation.corpus import Corpus
    from ctxindex.training.contextual.options import ContextualOptions


def require_trainable(checkpoint: Checkpoint, options: ContextualOptions) -> None:
    """Check that a model can be trained, or made a CDE model that can.

    Raises:
        ConfigError: it is one that is only read here, or its stages are not those that are asked for.
        ModelError: it is of a kind that cannot read a context.
    """
    if checkpoint.published is not None:
        raise ConfigError(
            f"{checkpoint.name} is a published CDE model, which is read here and not trained: choose an ordinary model"
        )
    require_second_stage(checkpoint.facts, checkpoint.folder)
    shared = options.first_stage == "shared"
    if checkpoint.cde is not None and checkpoint.cde.share_stages != shared:
        has = "two stages: choose frozen or trained" if shared else "one network for both stages: choose shared"
        raise ConfigError(f"--first-stage {options.first_stage} does not go with {checkpoint.name}, which has {has}")


def require_pairs(sources: Mapping[str, Corpus], batch: int) -> None:
    """Check that every source fills a batch of so many pairs.

    Raises:
        ConfigError: one does not; the message says what to do.
    """
    for name, corpus in sources.items():
        count = sum(len(document.questions) for document in training_documents(corpus))
        if count < batch:
            raise ConfigError(
                f"{name} has {count} questions to train on, fewer than a batch of {batch} pairs: give more, hold out "
                f"less (--held-out), or make batches smaller (--documents {count})"
            )


def as_cde(checkpoint: Checkpoint) -> Checkpoint:
    """What an ordinary model will say of itself as a CDE model, before it is made one: enough for a spec."""
    if checkpoint.cde is not None:
        return checkpoint
    trained = None if checkpoint.trained is None else replace(checkpoint.trained, method="cde")
    return replace(checkpoint, cde=NativeCde(share_stages=True), method="cde", trained=trained)


def cde_base(model: str, options: ContextualOptions, folder: Path) -> Checkpoint:
    """The CDE model that is trained: the model itself, or what is made of it in `folder`.

    Raises:
        ConfigError: as of `require_trainable`.
        ModelError: the model cannot be found or used, or the folder cannot be written.
    """
    checkpoint = open_checkpoint(model)
    require_trainable(checkpoint, options)
    if checkpoint.cde is not None:
        return checkpoint
    if not folder.is_dir():
        partial = folder.with_name(f"{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        settings = NativeCde(context_size=options.context_size[1], share_stages=options.first_stage == "shared")
        make_native_cde(model, partial, settings)
        partial.replace(folder)
    return open_checkpoint(str(folder))
