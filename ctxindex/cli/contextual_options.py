"""The options of `ctxindex finetune --method cde`, and what of the others goes with it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

import click

from ctxindex.cli.training_options import option
from ctxindex.errors import ConfigError
from ctxindex.training.contextual.context import ContextDropout
from ctxindex.training.contextual.filtering import RULES, FalseNegativeFilter
from ctxindex.training.contextual.options import BATCHES, FIRST_STAGES, PAIRS, WINDOWS, ContextualOptions

Command = TypeVar("Command", bound=Callable[..., Any])

SECTION = "Contextual training (--method cde)"

_DEFAULT = ContextualOptions()
_LEAST, _MOST = _DEFAULT.context_size
_SIZE = re.compile(r"(\d+)(?:-(\d+))?")

_OPTIONS = (
    option(
        SECTION,
        "--batches",
        type=click.Choice(BATCHES),
        help=f"Of pairs that are about the same, or of any of a source.  [default: {_DEFAULT.batches}]",
    ),
    option(
        SECTION,
        "--cluster-size",
        type=click.IntRange(min=1),
        metavar="N",
        help="Pairs in a cluster, on average.  [default: as in a batch]",
    ),
    option(
        SECTION,
        "--filter",
        type=click.Choice(RULES),
        help="Which documents of a batch the base likes too well for a wrong answer: as much as the right one, or "
        f"from --filter-margin on.  [default: {_DEFAULT.filter.rule}]",
    ),
    option(
        SECTION,
        "--filter-margin",
        type=float,
        metavar="X",
        help="Added to the score of the right one; with absolute the score itself.  [default: 0]",
    ),
    option(
        SECTION,
        "--context-size",
        metavar="N|A-B",
        help=f"Texts in the context of a step, or from how many to how many.  [default: {_LEAST}-{_MOST}]",
    ),
    option(
        SECTION,
        "--context-dropout",
        type=click.FloatRange(0, 1),
        metavar="X",
        help="Share of the steps that are read without a context; 1 trains the control that a gain is measured "
        f"against.  [default: {_DEFAULT.dropout.row:g}]",
    ),
    option(
        SECTION,
        "--context-bias",
        type=float,
        metavar="X",
        help="What the context counts for before training in a model that is made of an ordinary one: -2 is next to "
        f"nothing, and 1 more is about three times as much.  [default: {_DEFAULT.context_bias:g}]",
    ),
    option(
        SECTION,
        "--first-stage",
        type=click.Choice(FIRST_STAGES),
        help="Left as it is, the same network as the second one, or trained beside it.  [default: frozen, or shared "
        "where the model is so]",
    ),
    option(
        SECTION,
        "--insent",
        type=click.FloatRange(0, 1),
        metavar="X",
        help="Weight of the InSeNT loss beside the contextual one.  [default: 0]",
    ),
)

_FLAGS = (
    "batches",
    "cluster_size",
    "filter",
    "filter_margin",
    "context_size",
    "context_dropout",
    "context_bias",
    "first_stage",
    "insent",
)
_OF_OTHERS = {
    "hold": "",
    "distil": "",
    "cross_batch_memory": "",
    "replay": "",
    "replay_share": "",
    "queries": "",
    "clozes": "",
    "withhold_titles": "",
    "skip_contextual": "",
    "skip_isolated": "",
    "gather_negatives": ": it trains on one device",
    "gradient_checkpointing": ": --mini-batch-tokens spares memory, too",
}
"""Flags that say nothing to contextual training, and what there is instead."""


def contextual_options(command: Command) -> Command:
    """What decides batches, contexts and loss of a contextual training."""
    for one in reversed(_OPTIONS):
        command = one(command)
    return command


def contextual_of(given: dict[str, Any], *, shared: bool | None) -> ContextualOptions:
    """The options that the flags of `--method cde` give.

    Args:
        given: all flags.
        shared: whether the base is a CDE model with one network for both stages; None where it is no CDE model.

    Raises:
        ConfigError: a flag that says nothing here, or a value out of its range.
    """
    _require_fitting(given)
    chosen = {name: given[name] for name in ("batches", "cluster_size", "first_stage", "insent")}
    if shared and chosen["first_stage"] is None:
        chosen["first_stage"] = "shared"
    margin = given["filter_margin"] or 0.0
    dropout = given["context_dropout"]
    return ContextualOptions(
        **{name: value for name, value in chosen.items() if value is not None},
        filter=FalseNegativeFilter(given["filter"] or _DEFAULT.filter.rule, margin),
        context_size=_size(given["context_size"]),
        dropout=_DEFAULT.dropout if dropout is None else ContextDropout(_DEFAULT.dropout.slot, dropout),
        context_bias_init=given["context_bias"],
    )


def require_no_contextual(given: dict[str, Any]) -> None:
    """Check that no flag of `--method cde` is given with another.

    Raises:
        ConfigError: one is.
    """
    for name in _FLAGS:
        if given[name] is not None:
            raise ConfigError(f"--{_flag(name)} goes with --method cde: leave it out, or choose that method")


def with_contextual_defaults(given: dict[str, Any]) -> dict[str, Any]:
    """The flags with what a batch is in a contextual training, where they say nothing."""
    defaults = {"documents": PAIRS, "document_windows": WINDOWS}
    return {**given, **{name: value for name, value in defaults.items() if given[name] is None}}


def _require_fitting(given: dict[str, Any]) -> None:
    """Refuses flags that say nothing here, or nothing beside each other."""
    for name, instead in _OF_OTHERS.items():
        if given[name]:
            raise ConfigError(f"--{_flag(name)} does not go with --method cde{instead}")
    if given["mask_positives"] is False:
        raise ConfigError("--punish-positives does not go with --method cde, whose filter takes more out than is known")
    for name, flag in (("lambda", "--lambda"), ("average", "--average"), ("mask_positives", "--mask-positives")):
        if given[name] is not None and not given["insent"]:
            raise ConfigError(f"{flag} is of the InSeNT loss: say how much that counts with --insent")
    if given["document_windows"] is not None and not given["insent"]:
        raise ConfigError(
            "--document-windows is for siblings, which only the InSeNT loss reads (--insent): leave it out"
        )
    if given["cluster_size"] is not None and given["batches"] == "random":
        raise ConfigError("--cluster-size is of --batches clusters: leave one of both out")
    if given["filter_margin"] is not None and given["filter"] == "none":
        raise ConfigError("--filter-margin is of a filter, and --filter none is none: leave one of both out")
    if given["filter"] == "absolute" and given["filter_margin"] is None:
        raise ConfigError("--filter absolute needs the score from which on nothing is a wrong answer: --filter-margin")


def _size(text: str | None) -> tuple[int, int]:
    if text is None:
        return _DEFAULT.context_size
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise ConfigError(f"--context-size {text}: a number of texts, or from how many to how many, as in 8-64")
    return int(found[1]), int(found[2] or found[1])


def _flag(name: str) -> str:
    return name.replace("_", "-")
