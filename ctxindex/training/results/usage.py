"""What to do with a trained model: the commands that use it as it was trained, for the card and for who trained it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from ctxindex.evaluation.configuration import Configuration
from ctxindex.indexing.options import IndexOptions
from ctxindex.training.plan import given, tokens_alone

if TYPE_CHECKING:
    from ctxindex.encoding.checkpoint import Checkpoint
    from ctxindex.encoding.options import EncoderOptions
    from ctxindex.spec import ChunkerSpec
    from ctxindex.training.plan import Plan

DOCUMENTS, DATASET = "DOCS", "OTHER-SET"
"""What stands in a command where nobody has named any."""

_NOT_OF_A_NAME, _UNDERSCORES = re.compile(r"[^A-Za-z0-9_.-]+"), re.compile(r"__+")
_LONGEST = 64


def ingest_command(model: str, plan: Plan, documents: Iterable[str] = (), options: Iterable[str] = ()) -> str:
    """Index documents with the model `model`, a folder, as they were cut in training.

    The index is a new one: one that is there already holds the vectors of another model.

    Args:
        model: the folder of the model.
        plan: what was trained.
        documents: paths; `DOCS` where there are none.
        options: more, each a flag with its value, quoted.
    """
    paths = [shlex.quote(path) for path in documents] or [DOCUMENTS]
    parts = ["ctxindex ingest", *paths, f"--model {shlex.quote(model)}", _index(model), *chunk_flags(plan.chunker)]
    return " ".join([*parts, *(["--context null"] if plan.is_control else []), *options])


def search_command(model: str) -> str:
    """Ask that index."""
    return f"ctxindex search 'your question' {_index(model)}"


def eval_command(model: str, plan: Plan, dataset: str = DATASET, *, context: str | None) -> str:
    """Compare with the base: in context, which the tuned model is to be ahead of, and each chunk alone.

    Args:
        model: the folder of the model.
        plan: what was trained.
        dataset: what is asked.
        context: how the base is read in context; see `base_in_context`.
    """
    alone = "independent"
    if plan.encoder.method == "late-interaction":
        alone = Configuration("late-interaction", settings=tokens_alone(plan.encoder)).name
    null = ",context=null" if plan.is_control else ""
    tuned = f"model={model}{null}"
    if context is not None and context.split(",")[0] == "cde":
        context += null
    # Without its context, a model of a corpus is its own control: what it does with one is seen beside that.
    own = [f"{tuned},context=null"] if plan.encoder.method == "cde" and not null else []
    first, *more = [one for one in (context, alone, tuned, *own) if one is not None]
    compared = " ".join(f"--compare {shlex.quote(one)}" for one in more)
    parts = [f"ctxindex eval {shlex.quote(dataset)} --model {shlex.quote(plan.model)} --method {first}", compared]
    return " ".join([*parts, *chunk_flags(plan.chunker)])


def base_in_context(checkpoint: Checkpoint, options: EncoderOptions) -> str | None:
    """How a base is read in context, as `eval` writes configurations; None where it is not.

    Args:
        checkpoint: the base, as it was named.
        options: how the tuned model is read.
    """
    method = options.method
    if method == "cde" and checkpoint.cde is None:
        if options.windows == "chunk":
            return None  # without a corpus it would read each chunk alone
        method = "late"
    if checkpoint.trained is not None and checkpoint.trained.method == method:
        return method
    chosen = {name: value for name, value in given(options).items() if name != "force_mean" or value}
    return Configuration(method, settings=chosen).name


def chunk_flags(spec: ChunkerSpec) -> list[str]:
    """The flags that cut as a spec says, where that is not what is done without any."""
    usual = IndexOptions().chunker_spec()
    flags = {"--chunker": "name", "--chunk-size": "size", "--chunk-unit": "unit", "--chunk-overlap": "overlap"}
    return [
        f"{flag} {getattr(spec, name)}" for flag, name in flags.items() if getattr(spec, name) != getattr(usual, name)
    ]


def _index(model: str) -> str:
    """A name of an index, after the folder."""
    name = _NOT_OF_A_NAME.sub("-", Path(model).resolve().name).lstrip(".-")
    # Two underscores are for the tables of an index.
    return f"--index {_UNDERSCORES.sub('_', name)[:_LONGEST] or 'tuned'}"
