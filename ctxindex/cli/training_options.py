"""The options of `ctxindex finetune`. Defaults are those of the dataclasses that take them, and are read from there."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import fields
from typing import Any, TypeVar

import click

from ctxindex.cli.options import TRAINING, SectionedOption, encoder_options
from ctxindex.errors import ConfigError
from ctxindex.training.options import ANCHOR, AVERAGES, BLEND, ISOLATED, InsentOptions, ObjectiveOptions, Shares
from ctxindex.training.schedule import PRECISIONS, Schedule

Command = TypeVar("Command", bound=Callable[..., Any])

DATA = "Data"
OUTPUT = "Output"
WATCHING = "Watching"

REPLAY_SHARE = 0.2
"""Of the steps, where there is something to replay."""

SWEEP = (0.4, 0.6, 0.8, 1.0)
"""The shares of the tuned weights that --merge sweep tries."""

_CONTEXT = {
    "anchor": str(ANCHOR),
    "anchor_title": "yes",
    "blend": f"{BLEND:g}; late interaction 0",
    "isolated": ISOLATED,
}
"""Defaults in training, in words: those of `ctxindex.training.context`."""

_DEFAULT = re.compile(r" +\[default: [^\]]*\]$")


def option(section: str, *names: str, **keywords: Any) -> Callable[[Command], Command]:
    """An option in a section of the help."""
    return click.option(*names, cls=SectionedOption, section=section, **keywords)


def _number(section: str, holder: Any, name: str, text: str, flag: str = "", **keywords: Any) -> Any:
    """An option for a field of `holder`, an instance with its defaults; not given it stays None, which is that."""
    default = getattr(holder, name)
    kind = keywords.pop("type", float if isinstance(default, float) else click.IntRange(min=0))
    shown = "none" if default is None else f"{default:g}" if isinstance(default, float) else str(default)
    metavar = keywords.pop("metavar", "X" if kind is float else "N")
    return option(
        section,
        flag or f"--{name.replace('_', '-')}",
        name if not flag else flag.removeprefix("--").replace("-", "_"),
        type=kind,
        metavar=metavar,
        help=f"{text}  [default: {shown}]",
        **keywords,
    )


def _flag(name: str, text: str) -> Any:
    return option(TRAINING, f"--{name.replace('_', '-')}", name, is_flag=True, default=None, help=text)


_SCHEDULE, _INSENT, _OBJECTIVE, _SHARES = Schedule(), InsentOptions(), ObjectiveOptions(), Shares()
_SHARE = click.FloatRange(0, 1)
_SOME = click.IntRange(min=1)

_TRAINING = (
    _number(TRAINING, _SCHEDULE, "epochs", "Times that each document is drawn."),
    _number(TRAINING, _SCHEDULE, "steps", "Steps, instead of epochs.", type=_SOME),
    _number(TRAINING, _SCHEDULE, "documents", "In a batch, on each device: what a document is told from.", type=_SOME),
    _number(TRAINING, _SCHEDULE, "windows", "Read of a document in a step, at most.", "--document-windows", type=_SOME),
    _number(TRAINING, _SCHEDULE, "queries", "Asked of a document in a step, at most.", type=_SOME),
    _number(TRAINING, _SCHEDULE, "clozes", "Made of words of a document's chunks in a step, beside its queries."),
    _number(TRAINING, _SCHEDULE, "learning_rate", "At its highest; --lora wants about ten times as much."),
    _number(TRAINING, _SCHEDULE, "warmup", "Share of the steps in which the learning rate rises."),
    _number(TRAINING, _SCHEDULE, "weight_decay", "Of matrices."),
    _number(
        TRAINING,
        _INSENT,
        "lambda_seq",
        "Weight of telling a chunk from its siblings, against other documents.",
        "--lambda",
        type=_SHARE,
        metavar="X",
    ),
    _number(TRAINING, _INSENT, "tau", "Temperature of the loss."),
    option(
        TRAINING,
        "--average",
        type=click.Choice(AVERAGES),
        help=f"Mean over documents, or over queries.  [default: {_INSENT.average}]",
    ),
    option(
        TRAINING,
        "--mask-positives/--punish-positives",
        default=None,
        help="Whether other chunks that answer a query are no negatives of it.  [default: masked]",
    ),
    _number(TRAINING, _OBJECTIVE, "hold", "Weight of what keeps chunks alone and queries where the base has them."),
    _number(TRAINING, _OBJECTIVE, "cross_batch_memory", "Chunks of each source's earlier steps as further negatives."),
    _number(TRAINING, _OBJECTIVE, "distil", "Weight of what draws the vector in context to the blend."),
    _number(
        TRAINING,
        _SHARES,
        "titles",
        "Share of the steps without titles.",
        "--withhold-titles",
        type=_SHARE,
        metavar="X",
    ),
    _number(
        TRAINING,
        _SHARES,
        "contextual",
        "Share of the steps with chunks alone only; with --blend.",
        "--skip-contextual",
        type=_SHARE,
        metavar="X",
    ),
    _number(
        TRAINING,
        _SHARES,
        "isolated",
        "Share of the steps with chunks in context only; with --blend.",
        "--skip-isolated",
        type=_SHARE,
        metavar="X",
    ),
    option(
        TRAINING,
        "--replay-share",
        type=click.FloatRange(0, 1, min_open=True, max_open=True),
        metavar="X",
        help=f"Share of the steps on --replay.  [default: {REPLAY_SHARE:g}]",
    ),
    _number(TRAINING, _SCHEDULE, "lora", "Rank of adapters to train in place of all weights.", type=_SOME),
    _flag("freeze_embeddings", "Leave the table of token embeddings as it is: less memory."),
    option(
        TRAINING,
        "--precision",
        type=click.Choice(PRECISIONS),
        help=f"Of the passes; weights are float32.  [default: {_SCHEDULE.precision}]",
    ),
    _number(
        TRAINING,
        _SCHEDULE,
        "mini_batch_tokens",
        "Read a batch in parts of so many tokens, a window at least: less memory, slower.",
        type=_SOME,
    ),
    _flag("gradient_checkpointing", "Compute parts of a pass again instead of keeping them: less memory, slower."),
    _flag("gather_negatives", "Tell a document from those of other devices, too."),
    _number(TRAINING, _SCHEDULE, "seed", "Of all that is drawn, and of what is held out."),
)

_WATCHING = (
    _number(WATCHING, _SCHEDULE, "evaluate_every", "Steps between measurements on held-out documents; 0: at the end."),
    _number(WATCHING, _SCHEDULE, "patience", "Measurements without a better one after which to stop; 0: never."),
    _number(
        WATCHING, _SCHEDULE, "save_every", "Steps between checkpoints; with --evaluate-every one at each.", type=_SOME
    ),
    option(WATCHING, "--tensorboard", is_flag=True, help="Write logs for TensorBoard into OUT/training/logs."),
)


def training_options(command: Command) -> Command:
    """What decides the training, and how it is watched."""
    for one in reversed((*_TRAINING, *_WATCHING)):
        command = one(command)
    return command


def context_options(command: Command) -> Command:
    """As `encoder_options`, with the defaults of a training; --dtype, which is of an index, is not among them."""
    command = encoder_options(command)
    parameters: list[click.Parameter] = command.__click_params__  # type: ignore[attr-defined]
    parameters[:] = [one for one in parameters if one.name != "dtype"]
    for one in parameters:
        if isinstance(one, click.Option) and one.name in _CONTEXT and one.help is not None:
            one.help = f"{_DEFAULT.sub('', one.help)}  [default: {_CONTEXT[one.name]}]"
    return command


def schedule_of(given: dict[str, Any]) -> Schedule:
    """The schedule that the flags give; what is not given is the default.

    Raises:
        ConfigError: a number out of its range.
    """
    if given.get("steps") is not None and given.get("epochs") is not None:
        raise ConfigError("--steps and --epochs both say how long to train: leave one out")
    names = {one.name: one.name for one in fields(Schedule)} | {"windows": "document_windows"}
    return Schedule(**{name: given[flag] for name, flag in names.items() if given.get(flag) is not None})


def objective_of(given: dict[str, Any]) -> ObjectiveOptions:
    """The loss that the flags give.

    Raises:
        ConfigError: a number out of its range.
    """
    insent = {"lambda_seq": given["lambda"]} | {name: given[name] for name in ("tau", "average", "mask_positives")}
    chosen = InsentOptions(**{name: value for name, value in insent.items() if value is not None})
    weights = {name: given[name] for name in ("hold", "distil", "cross_batch_memory") if given[name] is not None}
    return ObjectiveOptions(chosen, **weights)


def shares_of(given: dict[str, Any]) -> Shares:
    """What steps leave out, as the flags give it.

    Raises:
        ConfigError: more than all steps.
    """
    flags = {"titles": "withhold_titles", "contextual": "skip_contextual", "isolated": "skip_isolated"}
    return Shares(**{name: given[flag] for name, flag in flags.items() if given[flag] is not None})


def parse_merge(text: str | None) -> tuple[float, ...]:
    """The value of --merge: shares of the tuned weights, each once and in order; 1 where nothing is said.

    Raises:
        ConfigError: it is neither `sweep` nor numbers from 0 to 1.
    """
    if text is None:
        return (1.0,)
    if text == "sweep":
        return SWEEP
    try:
        shares = sorted({float(part) for part in text.split(",")})
    except ValueError:
        shares = []
    if not shares or not all(0 <= share <= 1 for share in shares):
        raise ConfigError(f"--merge {text}: shares of the tuned weights, 0 to 1, as in 0.5 or 0.5,0.75,1; or sweep")
    return tuple(shares)
