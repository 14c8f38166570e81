"""What a training is to do, what came of it, and how two trainings are told apart."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctxindex.encoding.checkpoint import open_checkpoint
from ctxindex.encoding.options import OF_TOKENS, EncoderOptions
from ctxindex.evaluation.results import Run
from ctxindex.spec import ChunkerSpec, EncoderSpec
from ctxindex.training.contextual.options import ContextualOptions
from ctxindex.training.options import ObjectiveOptions, Shares
from ctxindex.training.running.folder import NAMED
from ctxindex.training.schedule import Schedule

if TYPE_CHECKING:
    from ctxindex.evaluation.corpus import Corpus
    from ctxindex.training.data import Data

ALONE, CONTEXT, TUNED = "base, each chunk alone", "base, in context", "tuned"
OWN = "base, as it says of itself"
NULL = "tuned, without a corpus context"
"""What is measured, as tables call it."""

_OF_THE_MACHINE = {"method", "device", "threads", "dtype", "trust_remote_code", "batch_tokens"}

HARMLESS = frozenset({"save_every", "patience", "mini_batch_tokens", "gradient_checkpointing"})
"""Fields of a schedule that a training which goes on may have otherwise: they decide when, and in how many parts."""


@dataclass(frozen=True)
class Plan:
    """All that decides a training, but its data and the machine.

    Attributes:
        model: the base, by name.
        encoder: how its vectors are made, in training and after it.
        objective: the loss.
        schedule: how long, how fast, on how much at once.
        shares: of the steps that leave something out.
        source_shares: of the steps, for each source; None goes by the number of documents.
        merge: shares of the tuned weights to choose from; (1.0,) keeps the tuned model as it is.
        chunker: how documents were cut.
        contextual: batches and contexts of the method `cde`; nothing to any other.
    """

    model: str
    encoder: EncoderOptions
    chunker: ChunkerSpec
    objective: ObjectiveOptions = field(default_factory=ObjectiveOptions)
    schedule: Schedule = field(default_factory=Schedule)
    shares: Shares = field(default_factory=Shares)
    source_shares: Mapping[str, float] | None = None
    merge: tuple[float, ...] = (1.0,)
    contextual: ContextualOptions = field(default_factory=ContextualOptions)

    @property
    def is_control(self) -> bool:
        """Whether what is trained never reads a corpus context, and so is measured, chosen and used without one."""
        return self.encoder.method == "cde" and self.contextual.dropout.row == 1


@dataclass(frozen=True)
class Finetuned:
    """What came of a training.

    Attributes:
        folder: of the model.
        history: what was logged, by step: `loss` and its parts, `learning_rate`, `eval_ndcg@10`.
        runs: measurements on each held-out corpus, by what was measured; empty where nothing is held out.
        merged: the share of the tuned weights that was taken; `merges` has the mean nDCG@10 of each that was tried.
        seconds: of training, in the process that ended it.
        steps: of the whole training; `before` of them were done by earlier processes.
        earlier: whether all of it had been done before; then `runs` have values, and no rankings.
    """

    folder: Path
    history: list[dict[str, float]]
    runs: Mapping[str, list[Run]]
    merged: float
    merges: Mapping[float, float]
    seconds: float
    steps: int
    earlier: bool = False
    before: int = 0


def tokens_alone(options: EncoderOptions) -> dict[str, Any]:
    """Settings with which a late-interaction model reads chunks alone, and keeps of their tokens what it does else."""
    chosen = {name: getattr(options, name) for name in OF_TOKENS}
    return {"windows": "chunk", **{name: value for name, value in chosen.items() if value is not None}}


def given(options: EncoderOptions) -> dict[str, Any]:
    """What was chosen of an encoder, as settings of a configuration; 0 and no are choices."""
    return {name: value for name, value in asdict(options).items() if name not in _OF_THE_MACHINE and value is not None}


def devices() -> int:
    """How many processes train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """Whether this process is the one that looks after the folder, measures and speaks for all."""
    return os.environ.get("RANK", "0") == "0"


def base_of(plan: Plan) -> dict[str, str]:
    """What tells the model that a plan names from another, as it stands in `described`; for the method `cde`.

    What is trained then may be a model that was made of it, and says less of it than it says itself.

    Raises:
        ModelError: it cannot be found or read.
    """
    named = open_checkpoint(plan.model)
    return {"digest": named.digest, "files": named.files}


def described(plan: Plan, data: Data, spec: EncoderSpec, precision: str) -> dict[str, Any]:
    """All that decides the tuned weights, as JSON values that can be compared.

    Args:
        plan: what is to be done; what is kept of it (`merge`) may be chosen anew.
        data: on what.
        spec: of the encoder whose rows are read.
        precision: of the passes, as it was resolved on this machine.
    """
    found = asdict(plan) | {"encoder": asdict(spec), "precision": precision, "devices": devices()}
    # The digest of the weights is in the spec; where the model lies decides nothing.
    del found["model"], found["merge"], found["encoder"]["model"], found["schedule"]["precision"]
    for name in HARMLESS:
        del found["schedule"][name]
    if spec.method == "cde":
        found[NAMED] = base_of(plan)
        found["contextual"]["context_bias_init"] = plan.contextual.context_bias
    else:
        del found["contextual"]
    for role in ("sources", "held", "replay"):
        found[role] = {name: _digest(corpus) for name, corpus in getattr(data, role).items()}
    return found


def _digest(corpus: Corpus) -> str:
    found = hashlib.sha256()
    for one in corpus.documents:
        found.update(f"{one.document.doc_id}\0{one.document.title}\0{one.document.text}\0{len(one.chunks)}\0".encode())
    for query, gold in zip(corpus.queries, corpus.gold, strict=True):
        found.update(f"{query.text}\0{sorted(gold)}\0".encode())
    return found.hexdigest()
