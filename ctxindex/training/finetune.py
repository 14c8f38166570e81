"""From a base model and documents with questions to a tuned model in a folder: the whole of `ctxindex finetune`.

    load -> train, with checkpoints -> choose how much of the change to keep -> write the folder -> measure

All that a training writes stays in `training/` of its folder: the plan, checkpoints, logs, the curve. A training that
was stopped goes on from its last checkpoint, under the same plan, to the same model.

How much of the change is kept (`merge`): weights between the base's and the tuned ones often lose less of what the base
knew than they lose of what was learnt. Where several shares are given, the one with the best nDCG@10 on the held-out
documents is taken. Measured are then the base, each chunk alone and in context, and the tuned model.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctxindex.encoding import load_encoder, open_checkpoint
from ctxindex.encoding.modules import DenseLayer, LayerNormLayer
from ctxindex.encoding.options import EncoderOptions
from ctxindex.encoding.trained import TrainedSettings, write_settings
from ctxindex.errors import ConfigError
from ctxindex.evaluation.configuration import Configuration
from ctxindex.evaluation.evaluator import Evaluator, Watch
from ctxindex.evaluation.results import Run
from ctxindex.spec import ChunkerSpec, EncoderSpec
from ctxindex.training.export import write_model
from ctxindex.training.lora import merged_state
from ctxindex.training.merging import merge_states
from ctxindex.training.model import ContextualModel
from ctxindex.training.objective import ObjectiveOptions
from ctxindex.training.parameters import choose_parameters
from ctxindex.training.sampling import Limits, Sampler, Shares
from ctxindex.training.schedule import Schedule
from ctxindex.training.trainer import CHECKPOINTS, METRIC, ContextualTrainer, make_trainer

if TYPE_CHECKING:
    import torch
    from transformers import TrainerCallback

    from ctxindex.encoding.checkpoint import Checkpoint
    from ctxindex.evaluation.corpus import Corpus
    from ctxindex.training.data import Data

TRAINING, PLAN, CURVE, CANDIDATE = "training", "plan.json", "curve.json", "candidate"

ALONE, CONTEXT, TUNED = "base, each chunk alone", "base, in context", "tuned"
"""What is measured, as tables call it."""

_log = logging.getLogger("ctxindex")


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
    """

    model: str
    encoder: EncoderOptions
    chunker: ChunkerSpec
    objective: ObjectiveOptions = field(default_factory=ObjectiveOptions)
    schedule: Schedule = field(default_factory=Schedule)
    shares: Shares = field(default_factory=Shares)
    source_shares: Mapping[str, float] | None = None
    merge: tuple[float, ...] = (1.0,)


@dataclass(frozen=True)
class Finetuned:
    """What came of a training.

    Attributes:
        folder: of the model.
        history: what was logged, by step: `loss` and its parts, `learning_rate`, `eval_ndcg@10`.
        runs: measurements on each held-out corpus, by what was measured; empty where nothing is held out.
        merged: the share of the tuned weights that was taken; `merges` has the mean nDCG@10 of each that was tried.
        seconds: of training, in this process.
        steps: of the whole training.
    """

    folder: Path
    history: list[dict[str, float]]
    runs: Mapping[str, list[Run]]
    merged: float
    merges: Mapping[float, float]
    seconds: float
    steps: int


def finetune(
    plan: Plan,
    data: Data,
    out: Path,
    *,
    resume: bool = False,
    device: str = "auto",
    threads: int | None = None,
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
        resume: go on from the last checkpoint there, if there is one.
        device: where to train and to measure.
        threads: of the CPU; None takes those this process may use.
        tensorboard: write logs for it.
        trust_remote_code: let Python code in the model's folder run.
        callbacks: of the Trainer.
        watch: told how far evaluations are.
        card: writes the model card.

    Raises:
        ConfigError: the folder is in use, or the plan does not fit the model or the data.
        ModelError: the model cannot be found, used or written.
        MissingDependencyError: an extra that is needed is not installed.
    """
    workshop = _Workshop(plan, data, out, device, threads, trust_remote_code, watch)
    workshop.prepare(resume=resume)
    began = time.perf_counter()
    trainer = workshop.trainer(callbacks, tensorboard=tensorboard)
    trainer.train(resume_from_checkpoint=workshop.last_checkpoint() if resume else None)
    seconds = time.perf_counter() - began
    if not trainer.is_world_process_zero():
        return Finetuned(out, [], {}, 1.0, {}, seconds, trainer.state.global_step)
    history = [dict(line) for line in trainer.state.log_history]
    (workshop.folder / CURVE).write_text(json.dumps(history, indent=1) + "\n", encoding="utf-8")
    merges = workshop.try_merges()
    merged = max(merges, key=lambda share: merges[share]) if merges else plan.merge[-1]
    workshop.write(merged, out)
    found = Finetuned(out, history, workshop.measure(out), merged, merges, seconds, trainer.state.global_step)
    if card is not None:
        (out / "README.md").write_text(card(found), encoding="utf-8")
    workshop.clean()
    return found


class _Workshop:
    """What a training works with: the models, the data, and the folder that it writes in."""

    def __init__(
        self,
        plan: Plan,
        data: Data,
        out: Path,
        device: str,
        threads: int | None,
        trust_remote_code: bool,
        watch: Watch | None,
    ) -> None:
        self._plan = plan
        self._data = data
        self._out = out
        self.folder = out / TRAINING
        self._device = device
        self._machine: dict[str, Any] = {"threads": threads, "trust_remote_code": trust_remote_code}
        self._watch = watch
        self._checkpoint: Checkpoint = open_checkpoint(plan.model, trust_remote_code=trust_remote_code)
        # Rows do not depend on the precision; weights are float32 whatever the passes run in.
        options = replace(plan.encoder, device=device, dtype="float32", **self._machine)
        self._encoder = load_encoder(plan.model, options)
        self._model = ContextualModel(self._encoder, self._checkpoint, device)
        self._base_state = _transformer(self._model)
        self._base_heads = _heads(self._model)
        choose_parameters(self._model, plan.schedule)

    def prepare(self, *, resume: bool) -> None:
        """Make the folder, or find out whether what lies there is an earlier part of this training.

        Raises:
            ConfigError: it is something else.
        """
        if len(self._plan.merge) > 1 and not self._data.held:
            raise ConfigError("to choose among several shares of the tuned weights, documents must be held out")
        if os.environ.get("RANK", "0") != "0":
            return  # the first of several processes looks after the folder
        file = self.folder / PLAN
        plan = json.loads(json.dumps(self._described()))
        if self._out.exists() and any(self._out.iterdir()):
            if not resume:
                raise ConfigError(f"{self._out} is not empty: choose a new folder, or go on in it with --resume")
            if not file.is_file():
                raise ConfigError(f"{self._out} holds no training to go on with: choose a new folder")
            before = json.loads(file.read_text(encoding="utf-8"))
            if other := [name for name in sorted({*plan, *before}) if plan.get(name) != before.get(name)]:
                raise ConfigError(
                    f"{self._out} holds a training with another {', '.join(other)}: resume with the same data and "
                    "settings, or choose a new folder"
                )
        self.folder.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(plan, indent=1) + "\n", encoding="utf-8")

    def last_checkpoint(self) -> str | None:
        """The checkpoint to go on from; None where training has not come so far."""
        from transformers.trainer_utils import get_last_checkpoint

        folder = self.folder / CHECKPOINTS
        get: Callable[[str], str | None] = get_last_checkpoint
        return get(str(folder)) if folder.is_dir() else None

    def trainer(self, callbacks: Sequence[TrainerCallback], *, tensorboard: bool) -> ContextualTrainer:
        """What trains the model."""
        from ctxindex.training.sources import training_documents

        plan, schedule = self._plan, self._plan.schedule
        sources = {
            **{name: training_documents(corpus) for name, corpus in self._data.sources.items()},
            **{name: training_documents(corpus) for name, corpus in self._data.replay.items()},
        }
        sampler = Sampler(
            sources,
            self._encoder,
            Limits(schedule.windows, schedule.queries, schedule.clozes),
            plan.shares,
            alone=self._reader_alone() if self._data.replay else None,
            replayed=frozenset(self._data.replay),
        )
        base = None
        if plan.objective.hold:
            base = ContextualModel(self._encoder, self._checkpoint, self._device).eval().requires_grad_(False)
        return make_trainer(
            self._model,
            base,
            sampler,
            {name: len(documents) for name, documents in sources.items()},
            schedule,
            plan.objective,
            folder=self.folder,
            shares=plan.source_shares,
            device=self._device,
            validate=self._validate if self._data.held else None,
            callbacks=callbacks,
            tensorboard=tensorboard,
        )

    def try_merges(self) -> dict[float, float]:
        """The mean nDCG@10 of every share that may be taken; nothing where there is no choice."""
        if len(self._plan.merge) < 2:
            return {}
        found = {}
        for share in self._plan.merge:
            self.write(share, self.folder / CANDIDATE)
            found[share] = self._mean_ndcg(self.folder / CANDIDATE)
            _log.info("%g of the tuned weights: nDCG@10 %.4f on held-out documents", share, found[share])
        return found

    def write(self, share: float, into: Path) -> None:
        """Write the model with so much of the tuned weights as a folder."""
        state, heads = _transformer(self._model), _heads(self._model)
        if share < 1:
            state = merge_states(self._base_state, state, share)
            heads = {file: merge_states(self._base_heads[file], tensors, share) for file, tensors in heads.items()}
        into.mkdir(parents=True, exist_ok=True)
        write_model(self._checkpoint, state, heads, into)
        write_settings(into, _settings(self._encoder.spec))

    def measure(self, folder: Path) -> dict[str, list[Run]]:
        """The base, each chunk alone and in context, and the tuned model, on every held-out corpus."""
        if not self._data.held:
            return {}
        given = _given(self._plan.encoder)
        multivector = self._encoder.spec.multivector
        measured = {} if multivector else {ALONE: self._run("independent", self._plan.model, {})}
        measured[CONTEXT] = self._run(self._encoder.spec.method, self._plan.model, given)
        measured[TUNED] = self._run(self._encoder.spec.method, str(folder), {})
        return measured

    def clean(self) -> None:
        """Remove what only a training that goes on would need."""
        for name in (CHECKPOINTS, CANDIDATE):
            shutil.rmtree(self.folder / name, ignore_errors=True)

    def _validate(self) -> dict[str, float]:
        with _as_it_was(self._model):
            self.write(1.0, self.folder / CANDIDATE)
            runs = self._run(self._encoder.spec.method, str(self.folder / CANDIDATE), {})
        each = {f"{METRIC} {run.corpus.name}": run.metrics[METRIC].mean for run in runs}
        return {METRIC: _mean(runs), **(each if len(each) > 1 else {})}

    def _mean_ndcg(self, folder: Path) -> float:
        return _mean(self._run(self._encoder.spec.method, str(folder), {}))

    def _run(self, method: str, model: str, settings: Mapping[str, Any]) -> list[Run]:
        evaluator = Evaluator(device=self._device, watch=self._watch, **self._machine)
        configuration = Configuration(method, settings=settings, common={"model": model})
        return list(evaluator.run(configuration, list(self._data.held.values())))

    def _reader_alone(self) -> Any:
        return load_encoder(
            self._plan.model,
            EncoderOptions(method="independent", device=self._device, dtype="float32", **self._machine),
        )

    def _described(self) -> dict[str, Any]:
        """The plan and the data, so that they can be compared."""
        plan, data = self._plan, self._data
        described = asdict(plan) | {"model": self._checkpoint.digest, "encoder": asdict(self._encoder.spec)}
        described["merge"] = None  # what is kept may be chosen anew
        described["encoder"].pop("model")
        for role in ("sources", "held", "replay"):
            described[role] = {name: _digest(corpus) for name, corpus in getattr(data, role).items()}
        return described


def _settings(spec: EncoderSpec) -> TrainedSettings:
    """What the tuned model says of itself: how it was read in training."""
    windowed = spec.method != "independent"
    anchored = windowed and spec.windows == "window"
    blends = spec.method == "late" and spec.blend > 0
    return TrainedSettings(
        spec.method,
        join=spec.join if windowed and spec.join != "none" else None,
        windows=spec.windows if windowed else None,
        pooling="strict" if windowed and spec.pooling == "strict" else None,
        anchor=spec.anchor if anchored else None,
        anchor_title=spec.anchor_title if anchored else None,
        blend=spec.blend if blends else None,
        isolated=spec.isolated if blends else None,
    )


def _given(options: EncoderOptions) -> dict[str, Any]:
    """What was chosen of an encoder, as settings of a configuration."""
    machine = {"method", "device", "threads", "dtype", "trust_remote_code", "batch_tokens"}
    return {
        name: value for name, value in asdict(options).items() if name not in machine and value not in (None, False)
    }


def _transformer(model: ContextualModel) -> dict[str, torch.Tensor]:
    """Copies of the transformer's weights by their names in it, with adapters added."""
    prefix = "transformer."
    state = merged_state(model)
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def _heads(model: ContextualModel) -> dict[Path, dict[str, torch.Tensor]]:
    """The weights of the modules behind the transformer, by the file that each was read from."""
    found: dict[Path, dict[str, torch.Tensor]] = {}
    for module in (*model.token_layers, *model.layers):
        layer: Any = getattr(module, "layer", None)
        if isinstance(layer, DenseLayer | LayerNormLayer):
            named: Any = module
            found[layer.weights] = {name: tensor.clone() for name, tensor in named.named().items()}
    return found


@contextmanager
def _as_it_was(model: ContextualModel) -> Iterator[None]:
    """Puts a model back into training after something else was done with it."""
    training = model.training
    try:
        yield
    finally:
        model.train(training)


def _mean(runs: Sequence[Run]) -> float:
    return sum(run.metrics[METRIC].mean for run in runs) / len(runs)


def _digest(corpus: Corpus) -> str:
    import hashlib

    found = hashlib.sha256()
    for one in corpus.documents:
        found.update(f"{one.document.doc_id}\0{one.document.title}\0{one.document.text}\0{len(one.chunks)}\0".encode())
    for query, gold in zip(corpus.queries, corpus.gold, strict=True):
        found.update(f"{query.text}\0{sorted(gold)}\0".encode())
    return found.hexdigest()
