"""Which checkpoints of a training are whole: one that was being written when the power went is none to go on from.

The Trainer writes a checkpoint file by file into its folder. One counts that has them all, with an end to each: the
weights, the states of optimizer and schedule, the random numbers of every process, and the Trainer's own state.
"""

from __future__ import annotations

import json
import logging
import shutil
import zipfile
from pathlib import Path

from ctxindex.encoding.model_files import read_header
from ctxindex.errors import ModelError

_PREFIX = "checkpoint-"
_WEIGHTS = "model.safetensors"
_STATE = "trainer_state.json"

_log = logging.getLogger("ctxindex")


def last_complete(folder: Path, devices: int = 1) -> Path | None:
    """The newest whole checkpoint in `folder`, of so many processes; None where there is none."""
    return next((one for one in reversed(_checkpoints(folder)) if is_complete(one, devices)), None)


def remove_incomplete(folder: Path, devices: int = 1) -> None:
    """Remove the checkpoints in `folder` that are not whole, so that nobody takes them for the newest."""
    for one in _checkpoints(folder):
        if not is_complete(one, devices):
            _log.warning("%s is not complete, and is removed: it was being written when the training stopped", one)
            shutil.rmtree(one, ignore_errors=True)


def is_complete(checkpoint: Path, devices: int = 1) -> bool:
    """Whether everything that a training of so many processes goes on from is there, whole."""
    randoms = ["rng_state.pth"] if devices == 1 else [f"rng_state_{number}.pth" for number in range(devices)]
    saved = ["optimizer.pt", "scheduler.pt", *randoms]
    try:
        json.loads((checkpoint / _STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    # What torch saves is a zip, whose directory stands at its end.
    return all(zipfile.is_zipfile(checkpoint / name) for name in saved) and _is_whole(checkpoint / _WEIGHTS)


def _is_whole(file: Path) -> bool:
    try:
        header, begin = read_header(file)
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        return file.stat().st_size == begin + max(ends, default=0)
    except (OSError, ModelError):
        return False


def _checkpoints(folder: Path) -> list[Path]:
    """By their steps."""
    found = [one for one in folder.glob(f"{_PREFIX}*") if one.name.removeprefix(_PREFIX).isdigit() and one.is_dir()]
    return sorted(found, key=lambda one: int(one.name.removeprefix(_PREFIX)))
