"""The folder of a training: what may be begun in it, what it goes on from, and how far it is.

    OUT/                    the model and its card, once there are any
    OUT/training/           plan.json      what decides the weights: written when training begins
                            checkpoints/   to go on from
                            tuned.safetensors, curve.json, done.json
                                           the weights before any merging, what was logged, and that training has ended
                            candidate/     a model that is measured and may be dropped
                            base/, made/   what a training makes before its first step, and would make again: each
                                           says of what it was made
                            logs/          for TensorBoard

`done.json` is written twice: when training has ended, and once more, with what was found, when the model has been
written and measured. A run that goes on does only what is not done yet. Importing this is cheap.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from ctxindex.encoding.model_files import read_any, read_object
from ctxindex.errors import ConfigError, ModelError
from ctxindex.training.running.checkpoints import last_complete, remove_incomplete

if TYPE_CHECKING:
    import torch

TRAINING, CHECKPOINTS, LOGS, CANDIDATE = "training", "checkpoints", "logs", "candidate"
BASE, MADE = "base", "made"
PLAN, DONE, CURVE, TUNED = "plan.json", "done.json", "curve.json", "tuned.safetensors"

NAMED = "base"
"""The part of a plan about the model that was named, where what is trained was made of it."""

_DATA = {
    "sources": "what is trained on of {} (documents, questions, or --held-out)",
    "held": "what is measured on of {} (documents, questions, --held-out or --validation)",
    "replay": "what is practised of {} (documents or questions)",
}
"""What is told of data that differ, by their part in a training; the share held out changes two of them."""

_NAMED = 5
"""How many differences a message names."""

_CALLED = {
    "schedule.windows": "--document-windows",
    "objective.insent.lambda_seq": "--lambda",
    "objective.insent.mask_positives": "--punish-positives",
    "shares.titles": "--withhold-titles",
    "shares.contextual": "--skip-contextual",
    "shares.isolated": "--skip-isolated",
    "chunker.name": "--chunker",
    "chunker.size": "--chunk-size",
    "chunker.unit": "--chunk-unit",
    "chunker.overlap": "--chunk-overlap",
    "encoder.dim": "--dims",
    "encoder.overlap": "--window-overlap",
    "contextual.context_bias_init": "--context-bias",
    "contextual.dropout.row": "--context-dropout",
    "contextual.filter.rule": "--filter",
    "contextual.filter.margin": "--filter-margin",
}
"""Flags that are called otherwise than what they decide."""

_UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES}
_OF_SYSTEM = re.compile(r"\(os error (\d+)\)")
_OF_TORCH = re.compile(r"PytorchStreamWriter failed|enforce fail at inline_container")

_GIVEN = {
    "schedule": "epochs steps documents queries clozes learning_rate warmup weight_decay gather_negatives lora "
    "freeze_embeddings evaluate_every seed",
    "objective": "hold distil cross_batch_memory",
    "objective.insent": "tau average",
    "encoder": "method anchor anchor_title blend isolated join pooling windows owner max_tokens force_mean pool_factor "
    "skiplist",
    "contextual": "batches cluster_size context_size first_stage insent",
}
"""What has a flag of its own name, by the group that it stands in."""


@dataclass(frozen=True)
class Ended:
    """A training that is over.

    Attributes:
        steps: that it took, in all.
        seconds: of training, in the process that ended it.
        before: steps that earlier processes had done.
        found: what was found with the model that was written, as JSON values; None where that is still to be done.
    """

    steps: int
    seconds: float
    found: Mapping[str, Any] | None = None
    before: int = 0


class TrainingFolder:
    """What a training writes in the folder `out` of its model, beside the model.

    Args:
        out: the model's.
        made: where what is made before the first step lies and stays, for several trainings that read the same; None
            takes a place beside the checkpoints, and nothing stays.
    """

    def __init__(self, out: Path, made: Path | None = None) -> None:
        self.out = out
        self.path = out / TRAINING
        self.checkpoints = self.path / CHECKPOINTS
        self.candidate = self.path / CANDIDATE
        self.base = self.path / BASE
        self.made = made or self.path / MADE
        self._shared = made is not None

    def require_usable(self, *, resume: bool) -> None:
        """Check that a training may begin here or, with `resume`, go on. Nothing is read but names, and nothing left.

        Raises:
            ConfigError: the folder holds something else.
        """
        try:
            if self.out.exists() and not self.out.is_dir():
                raise ConfigError(f"{self.out} is a file: choose a new folder")
            above = next(place for place in (self.out, *self.out.absolute().parents) if place.exists())
            if not (above.is_dir() and os.access(above, os.W_OK | os.X_OK)):
                raise ConfigError(f"{self.out} cannot be made: {above} is no folder that may be written in")
            with TemporaryDirectory(prefix=".ctxindex-", dir=above):
                pass
        except OSError as error:
            raise ConfigError(f"{self.out} cannot be made ({error.strerror}): choose another folder") from None
        if not self._in_use():
            return
        if not resume:
            raise ConfigError(f"{self.out} is not empty: choose a new folder, or go on in it with --resume")
        if not (self.path / PLAN).is_file():
            raise ConfigError(f"{self.out} holds no training to go on with: choose a new folder")

    def require_same(self, described: Mapping[str, Any], part: str = "") -> None:
        """Check that a training that lies here is the one described; see `ctxindex.training.plan.described`.

        With `part`, nothing is looked at but what it calls so: enough to know before anything is made here.
        One that came to no checkpoint may go on as any other: a batch that did not fit, for one, as a smaller one.

        Raises:
            ConfigError: it is another; the message names what differs.
        """
        file = self.path / PLAN
        if not file.is_file() or not self._begun():
            return
        before, now = dict(_leaves(read_object(file))), dict(_leaves(_plain(described)))
        other = [name for name in (*before, *(now.keys() - before.keys())) if before.get(name) != now.get(name)]
        other = [name for name in other if not part or name.startswith(f"{part}.")]
        if other:
            told = list(dict.fromkeys(_told(name, before.get(name), now.get(name)) for name in other))
            more = f" and {len(told) - _NAMED} more" if len(told) > _NAMED else ""
            raise ConfigError(
                f"{self.out} holds another training: {', '.join(told[:_NAMED])}{more}. Resume with the same data and "
                "settings, or choose a new folder"
            )

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Tell what to do where something cannot be written here, as on a full disk.

        Raises:
            ModelError: a file of this folder could not be written.
        """
        try:
            yield
        except Exception as error:
            if (why := _not_written(error)) is None:
                raise
            raise ModelError(f"cannot write into {self.out}: {why}; make room, and go on with --resume") from None

    def begin(self, described: Mapping[str, Any]) -> None:
        """Say what is trained here from now on."""
        self.path.mkdir(parents=True, exist_ok=True)
        _write(self.path / PLAN, _plain(described))

    def plan(self) -> dict[str, Any]:
        """What is trained here, as of `ctxindex.training.plan.described`; nothing before anything began."""
        return read_object(self.path / PLAN, missing_ok=True)

    def discard(self) -> None:
        """Leave nothing behind of a training that could not begin."""
        shutil.rmtree(self.candidate, ignore_errors=True)
        self.remove_made()
        for folder in (self.checkpoints, self.path, self.out):
            with suppress(OSError):  # something else is in it
                folder.rmdir()

    def last_checkpoint(self, devices: int = 1) -> Path | None:
        """The newest whole checkpoint; None where training has not come so far."""
        return last_complete(self.checkpoints, devices)

    def remove_broken(self, devices: int = 1) -> None:
        """Remove checkpoints that nothing can go on from."""
        remove_incomplete(self.checkpoints, devices)

    def end(self, ended: Ended, tuned: Mapping[str, torch.Tensor], history: Sequence[Mapping[str, float]]) -> None:
        """Keep what training gave, and say that it is over."""
        from safetensors.torch import save_file

        partial = self.path / f".{TUNED}"
        save_file({name: tensor.contiguous() for name, tensor in tuned.items()}, partial)
        partial.replace(self.path / TUNED)
        _write(self.path / CURVE, history)
        self._say(ended)

    def ended(self) -> Ended | None:
        """How the training ended; None where it did not."""
        values = read_object(self.path / DONE, missing_ok=True)
        known = {field.name for field in fields(Ended)}
        return Ended(**{name: value for name, value in values.items() if name in known}) if values else None

    def tuned(self) -> dict[str, torch.Tensor]:
        """The tuned weights before any merging, by the names of `merged_state`; on the CPU."""
        from safetensors.torch import load_file

        return load_file(self.path / TUNED)

    def history(self) -> list[dict[str, float]]:
        """What was logged in training."""
        found: list[dict[str, float]] = read_any(self.path / CURVE)
        return found

    def finish(self, ended: Ended) -> None:
        """Say that the model is written and measured, and remove what only a training that goes on would need."""
        self._say(ended)
        for folder in (self.checkpoints, self.candidate):
            shutil.rmtree(folder, ignore_errors=True)
        self.remove_made()
        (self.path / TUNED).unlink(missing_ok=True)

    def remove_made(self) -> None:
        """Remove what can be made again, and what no other training reads."""
        for folder in (self.base, *(() if self._shared else (self.made,))):
            shutil.rmtree(folder, ignore_errors=True)

    def _say(self, ended: Ended) -> None:
        _write(self.path / DONE, {name: value for name, value in asdict(ended).items() if value is not None})

    def _in_use(self) -> bool:
        """Whether there is any file but what a start that was killed may have left."""
        left = (self.candidate, self.made, *self.path.glob(f"{BASE}*"))
        found = (Path(folder) / name for folder, _, names in os.walk(self.out) for name in names)
        return any(not any(file.is_relative_to(folder) for folder in left) for file in found)

    def _begun(self) -> bool:
        """Whether there is anything to go on with."""
        return (self.path / DONE).is_file() or any(self.checkpoints.glob("checkpoint-*/trainer_state.json"))


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _told(name: str, before: Any, now: Any) -> str:
    role, _, rest = name.partition(".")
    if role in _DATA:
        return _DATA[role].format(rest)
    if role == NAMED or name in ("encoder.digest", "encoder.files"):
        return "the base model"
    return f"{_CALLED.get(name) or _flag(name)} ({before} there, {now} here)"


def _not_written(error: Exception) -> str | None:
    """Why something could not be written; None where an error says something else.

    Weights are written by libraries that have errors of their own: safetensors names the system's in words, torch not.
    """
    if isinstance(error, OSError):
        return os.strerror(error.errno) if error.errno in _UNWRITABLE else None
    if (found := _OF_SYSTEM.search(str(error))) is not None:
        return os.strerror(int(found[1])) if int(found[1]) in _UNWRITABLE else None
    return "a file is not complete" if _OF_TORCH.search(str(error)) else None


def _flag(name: str) -> str:
    """What a user gave, where it is one of the plan's own numbers."""
    group, _, own = name.rpartition(".")
    return f"--{own.replace('_', '-')}" if own in _GIVEN.get(group, "").split() else name


def _plain(values: Mapping[str, Any]) -> Any:
    """As they come back from a file: tuples are lists there."""
    return json.loads(json.dumps(values))


def _write(file: Path, values: Any) -> None:
    """Whole, or not at all."""
    partial = file.with_name(f".{file.name}")
    partial.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    partial.replace(file)
