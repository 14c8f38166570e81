"""What a contextual training begins with: a CDE model as it is, or one that is made of an ordinary base.

A model that is made (`make_native_cde`) lies in the training's folder until the training is finished, with a note of
what it was made of. It is the same whenever it is made, so a training that goes on makes it again where it is gone, or
was made of something else: of another model, or with other settings, before a training that never began.

    training/base/   made_of.json    what decides the model: weights and settings of the ordinary one, and our options
                     model/          the model
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctxindex.encoding.cde.folder import make_native_cde
from ctxindex.encoding.cde.settings import NativeCde, require_second_stage
from ctxindex.encoding.checkpoint import open_checkpoint
from ctxindex.encoding.fitness import require_base
from ctxindex.encoding.model_files import read_object
from ctxindex.errors import ConfigError, ModelError
from ctxindex.training.sources import training_documents

_MADE_OF, _MODEL = "made_of.json", "model"

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ctxindex.encoding.checkpoint import Checkpoint, PoolingFacts
    from ctxindex.encoding.trained import TrainedSettings
    from ctxindex.evaluation.corpus import Corpus
    from ctxindex.training.contextual.options import ContextualOptions


def require_trainable(checkpoint: Checkpoint, options: ContextualOptions) -> None:
    """Check that a model can be trained, or made a CDE model that can.

    Raises:
        ConfigError: it is one that is only read here, or it is not what is asked for: its stages, or where it begins.
        ModelError: it is of a kind that cannot read a context, or its vectors are no means of token states.
    """
    if checkpoint.published is not None:
        raise ConfigError(
            f"{checkpoint.name} is a published CDE model, which is read here and not trained: choose an ordinary model"
        )
    require_second_stage(checkpoint.facts, checkpoint.folder)
    if checkpoint.cde is None:
        _require_means(checkpoint)
        return
    if options.context_bias_init is not None:
        raise ConfigError(
            f"--context-bias is what a new CDE model begins with, and {checkpoint.name} is one already, with biases of "
            "its own: leave it out"
        )
    shared = options.first_stage == "shared"
    if checkpoint.cde.share_stages != shared:
        has = "two stages: choose frozen or trained" if shared else "one network for both stages: choose shared"
        raise ConfigError(f"--first-stage {options.first_stage} does not go with {checkpoint.name}, which has {has}")


def _require_means(checkpoint: Checkpoint) -> None:
    """Before any data are read: that means of tokens are what the model gives by itself, whatever is insisted on."""
    try:
        require_base(checkpoint)
    except ModelError as error:
        raise ModelError(
            f"{error}. --force-mean does not help here; but a training with --method late --force-mean writes a model "
            "that is mean-pooled from then on, and can be the base of this one"
        ) from None


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


def cde_base(named: Checkpoint, options: ContextualOptions, folder: Path) -> Checkpoint:
    """The CDE model that is trained: the model that was named itself, or what is made of it in `folder`.

    Where nothing is made, nothing is left in `folder` of what an earlier start made of another model.

    Raises:
        ConfigError: as of `require_trainable`.
        ModelError: the model cannot be used, or the folder cannot be written.
    """
    require_trainable(named, options)
    if named.cde is not None:
        for left in (folder, _partial(folder)):
            shutil.rmtree(left, ignore_errors=True)
        return named
    settings = NativeCde(
        context_size=options.context_size[1],
        share_stages=options.first_stage == "shared",
        context_bias_init=options.context_bias,
    )
    made_of = _made_of(named, settings)
    if _noted(folder) != made_of:
        _make(named.name, settings, made_of, folder)
    made = open_checkpoint(str(folder / _MODEL))
    require_trainable(made, replace(options, context_bias_init=None))
    return made


def _made_of(named: Checkpoint, settings: NativeCde) -> dict[str, Any]:
    """All that decides the model that is made, as JSON values."""
    says = {name: getattr(named, name) for name in ("query_prefix", "document_prefix", "trained_tokens", "lower_case")}
    own = {name: None if one is None else asdict(one) for name, one in _parts(named).items()}
    found = {"digest": named.digest, "files": named.files, "settings": asdict(settings), **own, **says}
    plain: dict[str, Any] = json.loads(json.dumps(found))
    return plain


def _parts(named: Checkpoint) -> dict[str, PoolingFacts | TrainedSettings | None]:
    return {"pooling": named.pooling, "trained": named.trained}


def _noted(folder: Path) -> dict[str, Any]:
    """What the model in `folder` was made of; nothing where there is none, or nobody knows."""
    try:
        return read_object(folder / _MADE_OF, missing_ok=True) if (folder / _MODEL).is_dir() else {}
    except ModelError:
        return {}


def _make(model: str, settings: NativeCde, made_of: dict[str, Any], folder: Path) -> None:
    partial = _partial(folder)
    shutil.rmtree(partial, ignore_errors=True)
    make_native_cde(model, partial / _MODEL, settings)
    try:
        (partial / _MADE_OF).write_text(json.dumps(made_of, indent=1) + "\n", encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        partial.replace(folder)
    except OSError as error:
        raise ModelError(f"cannot write {folder}: {error}") from None


def _partial(folder: Path) -> Path:
    """Where it is made before it is whole."""
    return folder.with_name(f"{folder.name}.partial")
