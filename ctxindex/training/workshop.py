"""What a training works with, from its base to what it finds: the models, the data, and the folder that it writes in.

A training of another kind is a `Workshop` with other models, batches and measurements (`contextual.workshop`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctxindex.encoding import load_encoder, open_checkpoint
from ctxindex.encoding.options import EncoderOptions, make_spec
from ctxindex.encoding.runtime import keep_freed_memory, resolve_device, use_threads
from ctxindex.encoding.trained import FILE
from ctxindex.errors import ConfigError, ModelError
from ctxindex.evaluation.configuration import Configuration
from ctxindex.evaluation.evaluator import Evaluator, Watch
from ctxindex.evaluation.results import Run
from ctxindex.training.context import require_memory
from ctxindex.training.model import ContextualModel
from ctxindex.training.plan import (
    ALONE,
    CONTEXT,
    OWN,
    TUNED,
    Finetuned,
    Plan,
    described,
    devices,
    given,
    is_first,
    tokens_alone,
)
from ctxindex.training.results.measured import METRIC, from_json, least_share, mean_of
from ctxindex.training.results.merging import merge_states
from ctxindex.training.results.tuned import require_same, write_tuned
from ctxindex.training.running.folder import Ended, TrainingFolder
from ctxindex.training.running.lora import merged_state
from ctxindex.training.running.parameters import choose_parameters
from ctxindex.training.running.trainer import ContextualTrainer, make_trainer, precision_of
from ctxindex.training.sampling import Limits, Sampler

if TYPE_CHECKING:
    import torch
    from transformers import TrainerCallback

    from ctxindex.encoding.checkpoint import Checkpoint
    from ctxindex.training.data import Data

_log = logging.getLogger("ctxindex")


class Workshop:
    """What a training works with: the models, the data, and the folder that it writes in."""

    def __init__(
        self,
        plan: Plan,
        data: Data,
        folder: TrainingFolder,
        device: str,
        threads: int | None,
        trust_remote_code: bool,
        watch: Watch | None,
    ) -> None:
        self._plan = plan
        self._data = data
        self._folder = folder
        self._device = device
        self._machine: dict[str, Any] = {"threads": threads, "trust_remote_code": trust_remote_code}
        self._watch = watch
        self._checkpoint: Checkpoint = self._open()
        # Rows do not depend on the precision; weights are float32 whatever the passes run in.
        options = replace(plan.encoder, device=device, dtype="float32", **self._machine)
        self._encoder = load_encoder(self._checkpoint.name, options)
        if len(plan.merge) > 1 and not data.held:
            raise ConfigError("to choose among several shares of the tuned weights, documents must be held out")
        require_memory(self._encoder.spec, plan.objective, devices())
        self.described = described(plan, data, self._encoder.spec, precision_of(plan.schedule, device))

    def _open(self) -> Checkpoint:
        """The model that is trained."""
        return open_checkpoint(self._plan.model, trust_remote_code=self._machine["trust_remote_code"])

    def _new_model(self, device: str) -> ContextualModel:
        """The model before training, without adapters."""
        return ContextualModel(self._encoder, self._checkpoint, device)

    def train(self, callbacks: Sequence[TrainerCallback], *, tensorboard: bool, resume: bool) -> Ended:
        """Train, from the last checkpoint on where there is one, and keep the weights in the training's folder."""
        if resolve_device(self._device).type == "cpu":
            use_threads(self._machine["threads"])
            keep_freed_memory()
        model = self._new_model(self._device)
        choose_parameters(model, self._plan.schedule)
        trainer = self._trainer(model, callbacks, tensorboard=tensorboard)
        last = self._folder.last_checkpoint(devices()) if resume else None
        if is_first():
            if last is None:
                self._require_writable(model)
            self._folder.begin(self.described)
            self._folder.remove_broken(devices())
        began = time.perf_counter()
        with _told_once():
            trainer.train(resume_from_checkpoint=None if last is None else str(last))
        before = 0 if last is None else int(last.name.rpartition("-")[2])
        ended = Ended(trainer.state.global_step, time.perf_counter() - began, before=before)
        if is_first():
            self._folder.end(ended, _on_cpu(model), trainer.state.log_history)
        return ended

    def finish(self, ended: Ended) -> Finetuned:
        """Choose how much of the tuned weights to keep, write the model, and measure it."""
        state = self._folder.tuned()
        tried = self._try_merges(state)
        merged = least_share(tried) if tried else self._plan.merge[-1]
        self._write(state, merged, self._folder.out)
        runs = self._measure(self._folder.out)
        history = self._folder.history()
        merges = {share: mean_of(found) for share, found in tried.items()}
        done = ended.seconds, ended.steps
        return Finetuned(self._folder.out, history, runs, merged, merges, *done, before=ended.before)

    def finished(self, ended: Ended, found: Mapping[str, Any]) -> Finetuned:
        """What was found when the training was finished.

        Raises:
            ConfigError: something else is asked for, which would need the tuned weights again, or the model is gone.
        """
        out = self._folder.out
        if not (out / FILE).is_file():
            raise ConfigError(f"{out} holds a finished training without its model: train anew in a new folder")
        if found["merge"] != list(self._plan.merge):
            raise ConfigError(
                f"{out} is finished: {found['merged']:g} of the tuned weights is kept, and the weights themselves are "
                "not there any more; for another --merge train anew in a new folder"
            )
        runs = from_json(found["runs"], {corpus.name: corpus for corpus in self._data.held.values()})
        merges = {float(share): float(value) for share, value in found["merges"]}
        history = self._folder.history()
        done = ended.seconds, ended.steps
        return Finetuned(out, history, runs, found["merged"], merges, *done, earlier=True, before=ended.before)

    def _trainer(
        self, model: ContextualModel, callbacks: Sequence[TrainerCallback], *, tensorboard: bool
    ) -> ContextualTrainer:
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
            model,
            base,
            sampler,
            {name: len(documents) for name, documents in sources.items()},
            schedule,
            plan.objective,
            folder=self._folder.path,
            shares=plan.source_shares,
            replayed=frozenset(self._data.replay),
            device=self._device,
            validate=(lambda: self._validate(model)) if self._data.held else None,
            callbacks=callbacks,
            tensorboard=tensorboard,
        )

    def _reader_alone(self) -> Any:
        """Reads every chunk alone, in vectors of the same kind."""
        spec = self._encoder.spec
        options = EncoderOptions(max_tokens=spec.max_tokens, dims=spec.dim, device=self._device, dtype="float32")
        if spec.multivector:
            options = replace(options, method=spec.method, windows="chunk", skiplist=spec.skiplist)
        else:
            options = replace(options, method="independent", force_mean=spec.force_mean)
        return load_encoder(self._plan.model, replace(options, **self._machine))

    def _require_writable(self, model: ContextualModel) -> None:
        """Write the model as it is and open it, before hours go into what could not be written.

        Raises:
            ModelError: the base is of a form that cannot be written; nothing is left of it.
        """
        state = _on_cpu(model)
        try:
            self._write(state, 1.0, self._folder.candidate)
            require_same(self._checkpoint, self._encoder.spec, state, self._folder.candidate)
        except BaseException:
            self._folder.discard()
            raise

    @cached_property
    def _base_state(self) -> dict[str, torch.Tensor]:
        return merged_state(self._new_model("cpu"))

    def _try_merges(self, state: Mapping[str, torch.Tensor]) -> dict[float, list[Run]]:
        """What every share that may be taken finds; nothing where there is no choice."""
        if len(self._plan.merge) < 2:
            return {}
        found = {}
        for share in self._plan.merge:
            self._write(state, share, self._folder.candidate)
            found[share] = self._of_tuned(self._folder.candidate)
            _log.info("%g of the tuned weights: nDCG@10 %.4f on held-out documents", share, mean_of(found[share]))
        return found

    def _write(self, state: Mapping[str, torch.Tensor], share: float, into: Path) -> None:
        """Write the model with so much of the tuned weights as a folder."""
        write_tuned(self._checkpoint, self._encoder.spec, self._merged(state, share), into)

    def _merged(self, state: Mapping[str, torch.Tensor], share: float) -> Mapping[str, torch.Tensor]:
        """So much of the tuned weights, the rest the base's."""
        return state if share == 1 else merge_states(self._base_state, state, share)

    def _measure(self, folder: Path) -> dict[str, list[Run]]:
        """The base, each chunk alone and in context, and the tuned model, on every held-out corpus.

        In context it is read as the tuned model is; and as it says of itself, where that is another way.
        """
        if not self._data.held:
            return {}
        method, model = self._encoder.spec.method, self._plan.model
        measured = {ALONE: self._run(method if self._encoder.spec.multivector else "independent", model, self._alone())}
        measured[CONTEXT] = self._run(method, model, given(self._plan.encoder))
        if self._says_otherwise():
            measured[OWN] = self._run(method, model, {})
        measured[TUNED] = self._of_tuned(folder)
        return measured

    def _says_otherwise(self) -> bool:
        """Whether the base says of itself that it is read, by the same method, in another way than was trained."""
        said = self._checkpoint.trained
        if said is None or said.method != self._encoder.spec.method:
            return False
        return make_spec(self._checkpoint, EncoderOptions(dtype="float32")) != self._encoder.spec

    def _of_tuned(self, folder: Path) -> list[Run]:
        """What is measured of a tuned model, as it says of itself that it is read."""
        return self._run(self._encoder.spec.method, str(folder), {})

    def _alone(self) -> dict[str, Any]:
        """Settings of the base when it reads each chunk alone: its own pooling, or means where it has none."""
        chosen = {name: getattr(self._plan.encoder, name) for name in ("max_tokens", "dims")}
        settings = {name: value for name, value in chosen.items() if value is not None}
        if self._encoder.spec.multivector:
            return settings | tokens_alone(self._plan.encoder)
        try:
            make_spec(self._checkpoint, EncoderOptions(method="independent", **settings))
        except ModelError:
            settings["force_mean"] = True
        return settings

    def _validate(self, model: ContextualModel) -> dict[str, float]:
        with _as_it_was(model):
            self._write(_on_cpu(model), 1.0, self._folder.candidate)
            runs = self._of_tuned(self._folder.candidate)
        each = {f"{METRIC} {run.corpus.name}": run.metrics[METRIC].mean for run in runs}
        return {METRIC: mean_of(runs), **(each if len(each) > 1 else {})}

    def _run(self, method: str, model: str, settings: Mapping[str, Any]) -> list[Run]:
        evaluator = Evaluator(device=self._device, watch=self._watch, **self._machine)
        configuration = Configuration(method, settings=settings, common={"model": model})
        return list(evaluator.run(configuration, list(self._data.held.values())))


def _on_cpu(model: ContextualModel) -> dict[str, torch.Tensor]:
    """The model's weights with adapters added, away from a device that has other uses for its memory."""
    return {name: tensor.cpu() for name, tensor in merged_state(model).items()}


@contextmanager
def _told_once() -> Iterator[None]:
    """Let each warning of ours pass once: in hundreds of steps the same is met again and again."""
    told = set[str]()

    def is_new(record: logging.LogRecord) -> bool:
        known = record.msg in told
        told.add(record.msg)
        return record.levelno < logging.WARNING or not known

    _log.addFilter(is_new)
    try:
        yield
    finally:
        _log.removeFilter(is_new)


@contextmanager
def _as_it_was(model: ContextualModel) -> Iterator[None]:
    """Puts a model back into training after something else was done with it."""
    training = model.training
    try:
        yield
    finally:
        model.train(training)
