"""What to do with a trained model: the commands that use it as it was trained, for the card and for who trained it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from ctxindex.evaluation.configuration import Configuration
from ctxindex.indexing.options import IndexOptions
from ctxindex.training.plan import given

if TYPE_CHECKING:
    from ctxindex.spec import ChunkerSpec
    from ctxindex.training.plan import Plan

DOCUMENTS, DATASET = "DOCS", "OTHER-SET"
"""What stands in a command where nobody has named any."""

_NOT_OF_A_NAME = re.compile(r"[^A-Za-z0-9_.-]+")


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
    return " ".join([*parts, *options])


def search_command(model: str) -> str:
    """Ask that index."""
    return f"ctxindex search 'your question' {_index(model)}"


def eval_command(model: str, plan: Plan, dataset: str = DATASET, *, trained: bool = False) -> str:
    """Compare with the base: each chunk alone, and in context.

    Args:
        model: the folder of the model.
        plan: what was trained.
        dataset: what is asked.
        trained: whether the base says of itself how it is read in context.
    """
    method = plan.encoder.method
    flags = chunk_flags(plan.chunker)
    # A late-interaction model reads no chunk alone, and an ordinary model has no corpus context.
    alone = [] if method == "late-interaction" else ["independent"]
    chosen = {name: value for name, value in given(plan.encoder).items() if name != "force_mean" or value}
    context = method if trained else Configuration(_of_base(plan), settings=chosen).name
    first, *more = [*alone, context, f"model={model}"]
    compared = " ".join(f"--compare {shlex.quote(one)}" for one in more if one is not None)
    parts = [f"ctxindex eval {shlex.quote(dataset)} --model {shlex.quote(plan.model)} --method {first}", compared]
    return " ".join([*parts, *flags])


def chunk_flags(spec: ChunkerSpec) -> list[str]:
    """The flags that cut as a spec says, where that is not what is done without any."""
    usual = IndexOptions().chunker_spec()
    flags = {"--chunker": "name", "--chunk-size": "size", "--chunk-unit": "unit", "--chunk-overlap": "overlap"}
    return [
        f"{flag} {getattr(spec, name)}" for flag, name in flags.items() if getattr(spec, name) != getattr(usual, name)
    ]


def _of_base(plan: Plan) -> str | None:
    return "late" if plan.encoder.method == "cde" else plan.encoder.method


def _index(model: str) -> str:
    """A name of an index, after the folder."""
    name = _NOT_OF_A_NAME.sub("-", Path(model).resolve().name).lstrip(".-")
    return f"--index {name or 'tuned'}"
