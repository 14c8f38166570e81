"""The card of a trained model: what it is, what it was made of, and what it finds, as the README.md of its folder.

Everything that a user has named is escaped, and of what lies at an absolute place only the last part is told: a card is
read elsewhere.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from ctxindex import __version__
from ctxindex.encoding import packaged
from ctxindex.encoding.known_models import MINILM_HUB_NAME, MINILM_INSENT, SHORT_NAMES, local_folder
from ctxindex.encoding.trained import read_settings
from ctxindex.evaluation.report import words
from ctxindex.training.plan import given
from ctxindex.training.results.comparison import results_rows, why_kept
from ctxindex.training.results.measured import METRIC, which_weights
from ctxindex.training.results.usage import ingest_command, search_command
from ctxindex.training.running.folder import TrainingFolder

if TYPE_CHECKING:
    from ctxindex.evaluation.corpus import Corpus
    from ctxindex.training.data import Data
    from ctxindex.training.finetune import Finetuned, Plan

TRAINED_ON = "## What it was trained on"
"""Heads the part that tells what was done and found, to the end of the card; what is before tells how to use it."""

_ROWS = 10
"""Of a curve, about."""

_CURVE = ("loss", "contrastive", "l_seq", "l_batch", "away", "accuracy", "context_bias", "learning_rate")
_USER = re.compile(r"//[^/@\s]+@")
"""Names and passwords in addresses."""

_MARKUP = re.compile(r"([\\`*_{}\[\]<>#|~!$&])")


def write_card(found: Finetuned, plan: Plan, data: Data, command: str) -> str:
    """The text of the card.

    Args:
        found: what came of the training.
        plan: what was to be done.
        data: what was trained and measured on.
        command: the command line, as of `command_line`.
    """
    name = found.folder.resolve().name
    sections = [
        _head(plan, data),
        f"# {_escaped(name)}",
        _introduction(found, plan),
        "## How to use it\n\n" + _usage(name, plan),
        f"{TRAINED_ON}\n\n" + _data_table(data),
        _of_base(plan),
        "## What it finds\n\n" + _results(found),
        "## How it was trained\n\n" + _fenced(command),
        _settings(found, plan),
        _curves(found.history, which_weights(found.history, plan.schedule.patience)),
        f"Made with ctxindex {__version__}.",
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def command_line(arguments: Iterable[str]) -> str:
    """A command to be shown: places on a disk are reduced to their last part, and passwords left out."""
    return _USER.sub("//", shlex.join(_without_place(argument) for argument in arguments))


def _head(plan: Plan, data: Data) -> str:
    """What the hub reads; a string of JSON is one of YAML."""
    tags = ["sentence-transformers", "sentence-similarity", "feature-extraction", "contextual-retrieval", "ctxindex"]
    base = MINILM_HUB_NAME if plan.model in SHORT_NAMES else _without_place(plan.model)
    lines = ["---", f"base_model: {_quoted(base)}", "library_name: sentence-transformers"]
    lines += ["pipeline_tag: sentence-similarity", "tags:", *(f"- {tag}" for tag in tags)]
    if published := [name for name in (*data.sources, *data.replay) if name in data.published]:
        lines += ["datasets:", *(f"- {_quoted(name)}" for name in published)]
    return "\n".join([*lines, "---"])


def _introduction(found: Finetuned, plan: Plan) -> str:
    if plan.encoder.method == "cde":
        return _introduction_in_corpus(plan)
    kind = (
        "a vector for every token of a chunk" if plan.encoder.method == "late-interaction" else "one vector for a chunk"
    )
    blend = _reading(found, plan).get("blend")
    mixed = "" if not blend else f", and mixed with that of the chunk alone, which counts {blend:g}"
    return (
        f"{_escaped(_without_place(plan.model))}, tuned with ctxindex to read "
        f"chunks in the context of their document: {kind} (method `{plan.encoder.method}`), made in one pass over all "
        f"chunks that share a window{mixed}. The loss is InSeNT "
        "([arXiv 2505.24782](https://arxiv.org/abs/2505.24782)): a chunk is told from its siblings, and its document "
        "from others. The licence of the base model goes for these weights, too."
    )


def _introduction_in_corpus(plan: Plan) -> str:
    loss = " and InSeNT ([arXiv 2505.24782](https://arxiv.org/abs/2505.24782))" if plan.contextual.insent else ""
    reads = (
        "of their document and in no corpus context (method `cde`): the control of a training that has one, and "
        "measured as it was trained, in the null context"
        if plan.is_control
        else "of their document and of their corpus: one vector for a chunk (method `cde`), made in the presence of a "
        "sample of the corpus that a first stage reads"
    )
    return (
        f"{_escaped(_without_place(plan.model))}, tuned with ctxindex to read chunks in the context {reads}. "
        f"The loss is that of contextual batches{loss} "
        "([arXiv 2410.02525](https://arxiv.org/abs/2410.02525)): a document is told from others that are about the "
        "same. What a corpus context is worth is the difference between models that were trained with one and without. "
        "The licence of the base model goes for these weights, too."
    )


def _usage(name: str, plan: Plan) -> str:
    ingest = f"{ingest_command(name, plan)}\n{search_command(name)}"
    if plan.encoder.method == "late-interaction":
        return (
            "In context, as it was trained (`ctxindex.json` says how):\n\n"
            + _fenced(ingest)
            + "\n\nThe layout is that of the base, so whatever opens the base opens this folder. It then reads every "
            "text alone, without the context of a document."
        )
    shortened = "" if plan.encoder.dims is None else f", truncate_dim={plan.encoder.dims}"
    code = (
        "from sentence_transformers import SentenceTransformer\n\n"
        f"model = SentenceTransformer({json.dumps(name, ensure_ascii=False)}{shortened})\n"
        'queries = model.encode_query(["your question"])\n'
        'passages = model.encode_document(["a passage"])'
    )
    alone = "without the context of a document"
    if plan.encoder.method == "cde":
        alone += " and without that of a corpus: the first stage is not used"
    null = "; without a corpus it has to be told" if plan.is_control else ""
    return (
        f"In context, as it was trained (`ctxindex.json` says how{null}):\n\n"
        + _fenced(ingest)
        + f"\n\nIn sentence-transformers. `encode` reads every text **alone**, {alone}, which is not what this model "
        "was tuned for:\n\n" + _fenced(code, "python")
    )


def _data_table(data: Data) -> str:
    rows = [("source", "used for", "documents", "queries")]
    kept = {name: corpus for name, corpus in data.held.items() if name in data.sources}
    apart = {name: corpus for name, corpus in data.held.items() if name not in data.sources}
    roles: list[tuple[str, Mapping[str, Corpus]]] = [
        ("training", data.sources),
        ("measuring, held out by document", kept),
        ("measuring, a set of its own", apart),
        ("training, each chunk alone", data.replay),
    ]
    rows += [
        (_escaped(name), role, f"{len(corpus.documents):,}", f"{len(corpus.queries):,}")
        for role, corpora in roles
        for name, corpus in corpora.items()
    ]
    return _table(rows)


def _of_base(plan: Plan) -> str:
    """What the card of the base says of others' work that it was made of, which goes for whatever is made of it."""
    folder = None
    with suppress(RuntimeError):  # a name that begins like a home folder, of nobody here
        folder = packaged.FOLDER if plan.model == MINILM_INSENT else local_folder(plan.model)
    card = None if folder is None else folder / "README.md"
    said = "" if card is None or not card.is_file() else card.read_text(encoding="utf-8", errors="replace")
    section = re.search(r"^## (Attribution[^\n]*)\n(.*?)(?=^## |\Z)", said, re.MULTILINE | re.DOTALL)
    if section is None:
        return ""
    told = section[2].strip()
    return f"## {section[1]}\n\nOf {_escaped(_without_place(plan.model))}, which this model was made of:\n\n{told}"


def _results(found: Finetuned) -> str:
    if not found.runs:
        return "No documents were held out, so nothing was measured."
    rows = [tuple(map(_escaped, row)) for row in results_rows(found.runs)]
    said = (
        "nDCG@10 on documents that are not trained on, all of whose chunks are ranked, in points of 100, with 95 % "
        "intervals of a bootstrap over queries:\n\n" + _table(rows)
    )
    if found.merges:
        tried = ", ".join(f"{share:g}: {words.points(value)}" for share, value in sorted(found.merges.items()))
        return f"{said}\n\nOf the tuned weights {found.merged:g} was kept, {why_kept(found.runs)} ({tried})."
    return said if found.merged == 1 else f"{said}\n\nOf the tuned weights {found.merged:g} was kept."


def _settings(found: Finetuned, plan: Plan) -> str:
    weights, schedule = asdict(plan.objective), asdict(plan.schedule)
    objective = {**weights.pop("insent"), **weights}
    if schedule["steps"] is not None:
        del schedule["epochs"]
    schedule["precision"] = TrainingFolder(found.folder).plan().get("precision", schedule["precision"])
    groups: list[tuple[str, Mapping[str, Any]]] = [
        ("chunks", asdict(plan.chunker)),
        ("reading", _reading(found, plan)),
        ("loss", objective),
        ("left out, share of steps", asdict(plan.shares)),
        ("schedule", schedule),
    ]
    if plan.encoder.method == "cde":
        insent = objective if plan.contextual.insent else {"tau": objective["tau"]}
        for name in ("queries", "clozes", "gather_negatives", "gradient_checkpointing"):  # of other methods
            del schedule[name]
        groups[2:4] = [("batches and contexts", _flat(asdict(plan.contextual))), ("loss", insent)]
    rows = [("", "settings"), ("steps done", duration(found))]
    rows += [(what, ", ".join(_said(*one) for one in own.items())) for what, own in groups]
    return _table([(what, _escaped(said)) for what, said in rows])


def duration(found: Finetuned) -> str:
    """How many steps, and in what time; of a training that was interrupted only the last part of it is known."""
    steps = f"{found.steps:,} step{'' if found.steps == 1 else 's'}"
    part = f", the last {found.steps - found.before:,} of them" if found.before else ""
    return f"{steps}{part} in {found.seconds:.0f} s"


def _reading(found: Finetuned, plan: Plan) -> dict[str, Any]:
    """How vectors are made: what the model says of itself; what was chosen, where it is not there."""
    said = read_settings(found.folder)
    return {"method": plan.encoder.method, **(given(plan.encoder) if said is None else said.options)}


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """What stands in a group is called after the group, too."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        inner = value if isinstance(value, Mapping) else {"": value}
        found |= {f"{name}_{own}" if own else name: one for own, one in inner.items()}
    return found


def _curves(history: Sequence[Mapping[str, float]], kept: str) -> str:
    trained = [line for line in history if "loss" in line]
    measured = [line for line in history if f"eval_{METRIC}" in line]
    parts = []
    if trained:
        names = [name for name in _CURVE if any(name in line for line in trained)]
        rows = [
            ("step", *names),
            *((f"{line['step']:.0f}", *(_number(line.get(name)) for name in names)) for line in _some(trained)),
        ]
        parts.append("The loss, with its parts, as means since the line before in the log:\n\n" + _columns(rows))
    if measured:
        rows = [
            ("step", "nDCG@10"),
            *((f"{line['step']:.0f}", words.points(line[f"eval_{METRIC}"])) for line in _some(measured)),
        ]
        parts.append("On documents that are not trained on:\n\n" + _columns(rows) + f"\n\n{kept}")
    return "\n\n".join(parts)


def _some(lines: Sequence[Mapping[str, float]]) -> list[Mapping[str, float]]:
    """About so many as a table has rows, in equal steps, the last always."""
    every = max(1, len(lines) // _ROWS)
    return [*lines[:-1:every], lines[-1]]


def _columns(rows: Sequence[Sequence[str]]) -> str:
    """Numbers below one another."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return _fenced("\n".join(lines))


def _table(rows: Sequence[Sequence[str]]) -> str:
    """A table of Markdown; the cells are escaped already."""
    head, *body = rows
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *body))


def _fenced(text: str, language: str = "") -> str:
    """A block of code; nothing in it ends it."""
    text = words.clean(text)
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", text)), default=0))
    return f"{fence}{language}\n{text}\n{fence}"


def _escaped(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    return _MARKUP.sub(r"\\\1", " ".join(words.clean(text).split()))


def _quoted(text: str) -> str:
    return json.dumps(" ".join(words.clean(text).split()), ensure_ascii=False)


def _without_place(argument: str) -> str:
    """The last part of an absolute path; in `--flag=/path` as well."""
    flag, equals, value = argument.partition("=")
    if equals and flag.startswith("-") and value.startswith(("/", "~")):
        return f"{flag}={_without_place(value)}"
    return PurePath(argument).name or argument if argument.startswith(("/", "~")) else argument


def _said(name: str, value: Any) -> str:
    """A setting in words; an underscore would need a mark before it."""
    return f"{name.replace('_', ' ')} {_value(value)}"


def _value(value: Any) -> str:
    return {True: "yes", False: "no", None: "none"}[value] if value is None or isinstance(value, bool) else f"{value}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
