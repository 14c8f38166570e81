"""From a base model and documents with questions to a tuned model in a folder: the whole of `ctxindex finetune`.

    load -> train, with checkpoints -> choose how much of the change to keep -> write the folder -> measure

All that a training writes stays in `training/` of its folder (`running.folder`). A training that was stopped
goes on from its last checkpoint, under the same plan, to the same model; one that had ended is only written and
measured; and of one that is finished the run says what was found.

How much of the change is kept (`merge`): weights between the base's and the tuned ones often lose less of what the base
knew than they lose of what was learnt. Where several shares are given, the smallest is taken that is not told from the
best on the held-out documents (`measured.least_share`). Measured are then the base, each chunk alone and in context,
as the tuned model reads and, where it says so, as it is read itself; and the tuned model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctxindex.evaluation.evaluator import Watch
from ctxindex.training.plan import ALONE as ALONE
from ctxindex.training.plan import CONTEXT as CONTEXT
from ctxindex.training.plan import NULL as NULL
from ctxindex.training.plan import OWN as OWN
from ctxindex.training.plan import TUNED as TUNED
from ctxindex.training.plan import Finetuned as Finetuned
from ctxindex.training.plan import Plan as Plan
from ctxindex.training.plan import given as given
from ctxindex.training.plan import is_first
from ctxindex.training.results.measured import to_json
from ctxindex.training.running.folder import TRAINING as TRAINING
from ctxindex.training.running.folder import TrainingFolder
from ctxindex.training.workshop import Workshop

if TYPE_CHECKING:
    from transformers import TrainerCallback

    from ctxindex.training.data import Data


def finetune(
    plan: Plan,
    data: Data,
    out: Path,
    *,
    resume: bool = False,
    device: str = "auto",
    threads: int | None = None,
    made: Path | None = None,
    tensorboard: bool = False,
    trust_remote_code: bool = False,
    callbacks: Sequence[TrainerCallback] = (),
    watch: Watch | None = None,
    card: Callable[[Finetuned], str] | None = None,
) -> Finetuned:
    """Train a model and write it into the folder `out`.

    Args:
        plan: what to do.
        data: on what.
        out: the new model's folder; may hold an earlier part of the same training only.
        resume: do what is not done yet of the training there, if there is one.
        device: where to train and to measure.
        threads: of the CPU; None takes those this process may use.
        made: a folder for what is made before the first step (of a contextual training), where several trainings are
            to share it; each file says what it was made of. None keeps it in `out`, until the training has ended.
        tensorboard: write logs for it.
        trust_remote_code: let Python code in the model's folder run.
        callbacks: of the Trainer.
        watch: told how far evaluations are.
        card: writes the model card.

    Raises:
        ConfigError: the folder is in use, or the plan does not fit the model or the data.
        ModelError: the model cannot be found, used or written; memory is short, or the numbers leave their range.
        MissingDependencyError: an extra that is needed is not installed.
    """
    folder, first = TrainingFolder(out, made), is_first()
    if first:
        folder.require_usable(resume=resume)
    with folder.writing():
        workshop = _workshop_of(plan)(plan, data, folder, device, threads, trust_remote_code, watch)
        if first:
            folder.require_same(workshop.described)
        ended = folder.ended() if resume else None
        if ended is None:
            ended = workshop.train(callbacks, tensorboard=tensorboard, resume=resume)
        if not first:
            return Finetuned(out, [], {}, 1.0, {}, ended.seconds, ended.steps)
        if ended.found is not None:
            return workshop.finished(ended, ended.found)
        found = workshop.finish(ended)
        if card is not None:
            (out / "README.md").write_text(card(found), encoding="utf-8")
        folder.finish(replace(ended, found=_kept(plan, found)))
    return found


def _kept(plan: Plan, found: Finetuned) -> dict[str, Any]:
    """What a run that comes later says of this one."""
    merges = [[share, value] for share, value in found.merges.items()]
    return {"merge": list(plan.merge), "merged": found.merged, "merges": merges, "runs": to_json(found.runs)}


def _workshop_of(plan: Plan) -> type[Workshop]:
    if plan.encoder.method != "cde":
        return Workshop
    from ctxindex.training.contextual.workshop import ContextualWorkshop

    return ContextualWorkshop
