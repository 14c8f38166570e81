"""From the flags of `ctxindex finetune` to a training: what is read, what is planned, and what has to be there."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctxindex.chunking import load_chunker
from ctxindex.cli.contextual_options import contextual_of, require_no_contextual, with_contextual_defaults
from ctxindex.cli.options import chosen_loading
from ctxindex.cli.training_options import REPLAY_SHARE, objective_of, parse_merge, schedule_of, shares_of
from ctxindex.config import SETTINGS, Settings
from ctxindex.encoding import open_checkpoint
from ctxindex.encoding.options import make_spec
from ctxindex.encoding.runtime import resolve_device
from ctxindex.encoding.tokenizer import ModelTokenizer
from ctxindex.errors import ConfigError, MissingDependencyError
from ctxindex.evaluation.configuration import CHUNKING
from ctxindex.indexing import IndexOptions
from ctxindex.loading import LoadOptions, globs_of
from ctxindex.loading.values import DEFAULT_MAX_CHARS
from ctxindex.training.context import in_context, require_memory
from ctxindex.training.contextual.options import ContextualOptions
from ctxindex.training.data import Data, DataOptions, read_data
from ctxindex.training.results.usage import base_in_context
from ctxindex.training.schedule import Schedule

if TYPE_CHECKING:
    from ctxindex.encoding.checkpoint import Checkpoint
    from ctxindex.evaluation.study import Chunks
    from ctxindex.spec import ChunkerSpec, EncoderSpec
    from ctxindex.training.options import ObjectiveOptions, Shares
    from ctxindex.training.plan import Plan

_STDIN = "-"

_log = logging.getLogger("ctxindex")


@dataclass(frozen=True)
class Training:
    """What was asked for, with the data read: all that `finetune` takes but the folder and who watches.

    Attributes:
        plan: what is to be done.
        data: on what.
        named: the data as it was named.
        device: where.
        threads: of the CPU.
        loading_flags: how files became documents, to be repeated in the next command.
        context: how the base is read in context, as `eval` writes configurations.
    """

    plan: Plan
    data: Data
    named: DataOptions
    device: str
    threads: int | None
    loading_flags: tuple[str, ...] = ()
    context: str | None = None


def require_packages(given: Mapping[str, Any]) -> None:
    """Find out what is not installed before anything is read.

    Raises:
        MissingDependencyError: a package that training, or what was asked of it, needs.
    """
    needed = [("accelerate", "train", "training", True)]
    needed += [("tensorboard", "train", "--tensorboard", given["tensorboard"])]
    needed += [("peft", "lora", "--lora", given["lora"] is not None)]
    for package, extra, purpose, asked in needed:
        if asked and find_spec(package) is None:
            raise MissingDependencyError(package, extra=extra, purpose=purpose)


def prepare(given: Mapping[str, Any], out: Path) -> Training:
    """Plan the training that the flags describe, and read its data.

    Raises:
        CtxIndexError: something cannot be used as it is; the message says what to do.
    """
    from ctxindex.training.plan import Plan, devices

    settings = Settings({name: given[name] for name in SETTINGS if name in given})
    options = IndexOptions(**{name: settings.get(name) for name in IndexOptions.names()})
    device, threads, trusted = settings.get("device", "auto"), settings.get("threads"), given["trust_remote_code"]
    resolve_device(device)  # before anything is read
    values = dict(given)
    objective, shares, merge = objective_of(values), shares_of(values), parse_merge(given["merge"])
    checkpoint = base = open_checkpoint(options.model_name, trust_remote_code=trusted)
    contextual = _contextual(values, options, checkpoint)
    if contextual is not None:
        from ctxindex.training.contextual.base import as_cde

        values, checkpoint = with_contextual_defaults(values), as_cde(checkpoint)
    schedule = schedule_of(values)
    named = _named(given, settings, out, schedule.seed)
    chosen = replace(options, dtype=None).encoder_options(device, threads=threads, trust_remote_code=trusted)
    encoder = in_context(chosen, checkpoint)
    # What does not go together is told before anything is read.
    require_effect(make_spec(checkpoint, encoder), objective, shares)
    require_memory(make_spec(checkpoint, encoder), objective, devices())
    if len(merge) > 1 and named.share == 0 and not named.validation:
        raise ConfigError("--merge chooses on held-out documents: hold some out, or name a --validation")
    spec = options.chunker_spec()
    data = _read(named, spec, checkpoint, schedule, in_pairs=contextual is not None)
    _warn_of_idle(schedule, shares, data)
    plan = Plan(
        options.model_name,
        encoder,
        spec,
        objective,
        schedule,
        shares,
        source_shares=source_shares(data, given["replay_share"]),
        merge=merge,
        contextual=contextual or ContextualOptions(),
    )
    return Training(plan, data, named, device, threads, chosen_loading(given), base_in_context(base, encoder))


def _read(named: DataOptions, spec: ChunkerSpec, checkpoint: Checkpoint, schedule: Schedule, *, in_pairs: bool) -> Data:
    """The data: enough for a step of documents or of pairs, and to measure on where that is asked for.

    Raises:
        CtxIndexError: there is not, or it cannot be read.
    """
    tokenizer = ModelTokenizer(checkpoint.backbone, lower_case=checkpoint.lower_case)
    data = read_data(named, load_chunker(spec, tokenizer), spec, tokenizer)
    if in_pairs:
        from ctxindex.training.contextual.base import require_pairs

        require_pairs(data.sources, schedule.documents)
    else:
        data.require(schedule.documents)
    if schedule.evaluate_every and not data.held:
        raise ConfigError("--evaluate-every measures on held-out documents: hold some out, or name a --validation")
    return data


def _contextual(given: dict[str, Any], options: IndexOptions, checkpoint: Checkpoint) -> ContextualOptions | None:
    """What is chosen about a contextual training; None for another.

    Raises:
        ConfigError: flags that do not go together, or a model that cannot be trained so.
        MissingDependencyError: what finds clusters is not installed.
    """
    if (options.method or ("cde" if checkpoint.cde is not None else "")) != "cde":
        require_no_contextual(given)
        return None
    from ctxindex.training.contextual.base import require_trainable

    chosen = contextual_of(given, shared=None if checkpoint.cde is None else checkpoint.cde.share_stages)
    require_trainable(checkpoint, chosen)
    if chosen.batches == "clusters" and find_spec("sklearn") is None:
        raise MissingDependencyError("scikit-learn", extra="cde", purpose="batches of clusters")
    return chosen


def require_effect(spec: EncoderSpec, objective: ObjectiveOptions, shares: Shares) -> None:
    """Check that nothing is asked for that would change nothing.

    Raises:
        ConfigError: a flag is about something that vectors of this kind do not have.
    """
    views = {"distil": objective.distil, "skip-contextual": shares.contextual, "skip-isolated": shares.isolated}
    for name, value in views.items():
        if value and not spec.blend:
            raise ConfigError(
                f"--{name} is about the two vectors of a chunk, or of its tokens, that --blend mixes, and here is "
                "nothing mixed: leave it out, or say how much with --blend"
            )
    if shares.titles and not (spec.anchor_title or (spec.blend and spec.isolated != "chunk")):
        raise ConfigError(
            "--withhold-titles leaves out what nothing shows: leave it out, or show titles with --anchor-title"
        )


def _warn_of_idle(schedule: Schedule, shares: Shares, data: Data) -> None:
    """Tell what changes nothing on this machine, or with these documents."""
    if schedule.gather_negatives and os.environ.get("WORLD_SIZE", "1") == "1":
        _log.warning("--gather-negatives changes nothing on one device")
    if schedule.evaluate_every and schedule.save_every != Schedule().save_every:
        _log.warning("--save-every changes nothing: with --evaluate-every there is a checkpoint at each measurement")
    if shares.titles and not any(one.document.title for each in data.sources.values() for one in each.documents):
        _log.warning("--withhold-titles changes nothing: no document has a title")


def _named(given: Mapping[str, Any], settings: Settings, out: Path, seed: int) -> DataOptions:
    """The data as it was named.

    Raises:
        ConfigError: flags that do not go together.
    """
    # A shell leaves the ~ of --pairs=~/x as it is.
    data, validation, replay = (
        tuple(map(os.path.expanduser, given[name])) for name in ("data", "validation", "replay")
    )
    pairs = given["pairs"] and os.path.expanduser(given["pairs"])
    if pairs is not None and given["chunks"] == "given":
        raise ConfigError(
            "--chunks given is of sets that have chunks, and the documents of --pairs have none: leave it out"
        )
    if pairs is not None and not Path(pairs).exists():
        raise ConfigError(f"--pairs {given['pairs']}: there is no such file")
    files = {name: given[name] for name in ("include", "exclude", "root", "no_ignore", "max_chars")}
    loading = LoadOptions()
    if pairs is not None:
        places = [path for path in data if path != _STDIN]
        own = [glob for path in (out, Path(pairs)) for glob in globs_of(path, places)]
        most = DEFAULT_MAX_CHARS if files["max_chars"] is None else files["max_chars"]
        root = None if files["root"] is None else Path(files["root"]).expanduser()
        exclude = [*files["exclude"], *own]
        loading = LoadOptions.of(files["include"], exclude, root, no_ignore=files["no_ignore"], max_chars=most)
    elif flag := next((name for name, value in files.items() if value), None):
        raise ConfigError(f"--{flag.replace('_', '-')} is about files of documents, which go with --pairs FILE")
    return DataOptions(
        data,
        pairs,
        given["held_out"],
        validation,
        replay,
        _chunks(given, settings),
        loading,
        seed,
    )


def _chunks(given: Mapping[str, Any], settings: Settings) -> Chunks | None:
    chosen: Chunks | None = given["chunks"]
    flag = next((found.origin for name in CHUNKING if (found := settings.find(name)).origin.startswith("--")), None)
    if flag is None:
        return chosen
    if chosen == "given":
        raise ConfigError(f"{flag} says how to cut, and --chunks given takes chunks as they are: leave one out")
    return "cut"


def source_shares(data: Data, replayed: float | None) -> dict[str, float] | None:
    """Of the steps, for each source: by documents, and a fixed part for all that is replayed.

    Raises:
        ConfigError: a share for nothing.
    """
    if not data.replay:
        if replayed is not None:
            raise ConfigError("--replay-share is of the sets that --replay names: name one")
        return None
    share = REPLAY_SHARE if replayed is None else replayed
    found: dict[str, float] = {}
    for corpora, part in ((data.sources, 1 - share), (data.replay, share)):
        total = sum(len(corpus.documents) for corpus in corpora.values())
        found |= {name: part * len(corpus.documents) / total for name, corpus in corpora.items()}
    return found
