"""A contextual training from its base to what it finds: `ctxindex finetune --method cde`.

    make a CDE model of the base -> embed the pairs, cluster them, read the first stage -> train -> write -> measure

It is measured in the context of each held-out corpus, and without any: what a model gains by its context is the
difference to one that was trained with the null context alone (a dropout of 1), not to its base, since batches of
what is alike help by themselves. That control, and a base beside it, are measured without a corpus context alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ctxindex.encoding import EncoderOptions, load_encoder
from ctxindex.encoding.cde.corpus_context import sample_context
from ctxindex.encoding.cde.encoder import CdeEncoder, FirstStage
from ctxindex.encoding.cde.folder import is_untrained, save_cde
from ctxindex.encoding.cde.model import load_parts
from ctxindex.encoding.cde.settings import FIRST_STAGE, TENSORS
from ctxindex.encoding.checkpoint import open_checkpoint
from ctxindex.errors import ConfigError
from ctxindex.evaluation.cache import MemoryCache
from ctxindex.evaluation.configuration import Configuration
from ctxindex.evaluation.evaluator import Unwatched
from ctxindex.evaluation.run import evaluate
from ctxindex.evaluation.scoring import Encoded
from ctxindex.metering import Meter
from ctxindex.training.contextual.base import cde_base, require_pairs
from ctxindex.training.contextual.clustering import ClusteringOptions
from ctxindex.training.contextual.model import FIRST, TwoStageModel, parts_in
from ctxindex.training.contextual.packing import ClusterBatchSampler, PairBatchSampler, RandomBatchSampler
from ctxindex.training.contextual.pairs import GoldTexts, PairSampler, pairs_of, read_alone
from ctxindex.training.contextual.surrogate import (
    PairFilter,
    PairTexts,
    clusters_of,
    embed,
    kept,
    read_clusters,
    vectors_of_pairs,
)
from ctxindex.training.contextual.trainer import make_pair_trainer
from ctxindex.training.plan import ALONE, CONTEXT, NULL, TUNED, base_of, devices, given
from ctxindex.training.results.export import write_model
from ctxindex.training.results.tuned import parts_of, write_tuned
from ctxindex.training.running.folder import NAMED
from ctxindex.training.workshop import Workshop

if TYPE_CHECKING:
    import torch
    from transformers import TrainerCallback

    from ctxindex.encoding.checkpoint import Checkpoint
    from ctxindex.encoding.local import LocalEncoder
    from ctxindex.evaluation.results import Run
    from ctxindex.training.contextual.pairs import Pair, Sources
    from ctxindex.training.plan import Finetuned
    from ctxindex.training.running.folder import Ended
    from ctxindex.training.running.trainer import ContextualTrainer
    from ctxindex.types import FloatArray

    State = Mapping[str, torch.Tensor]


class ContextualWorkshop(Workshop):
    """See `Workshop`; for plans whose encoder has the method `cde`."""

    def _open(self) -> Checkpoint:
        if devices() > 1:
            raise ConfigError("--method cde trains on one device: start it without torchrun or accelerate launch")
        if not self._plan.objective.insent.mask_positives:
            raise ConfigError("--method cde leaves known positives and what its filter takes out alone: mask positives")
        require_pairs(self._data.sources, self._plan.schedule.documents)
        self._named = base_of(self._plan)
        self._folder.require_same({NAMED: self._named}, NAMED)
        named = open_checkpoint(self._plan.model)
        self._reads_a_context = named.cde is not None
        return cde_base(named, self._plan.contextual, self._folder.base)

    def finished(self, ended: Ended, found: Mapping[str, Any]) -> Finetuned:
        """See `Workshop.finished`."""
        self._folder.remove_made()
        return super().finished(ended, found)

    @property
    def _cde(self) -> CdeEncoder:
        assert isinstance(self._encoder, CdeEncoder)  # that is what the method is
        return self._encoder

    @cached_property
    def _first(self) -> FirstStage | None:
        """The first stage as an encoder; None where it is the second one."""
        checkpoint = self._checkpoint.first_stage
        if checkpoint is None:
            return None
        options = EncoderOptions(device=self._device, dtype="float32", threads=self._machine["threads"])
        return FirstStage.of(checkpoint, options, Meter())

    def _new_model(self, device: str) -> TwoStageModel:
        """Without the vectors of a frozen first stage, whose weights are no part of it."""
        first = self._first if self._plan.contextual.first_stage == "trained" else None
        return TwoStageModel(self._cde, self._checkpoint, device, first=first)

    def _trainer(self, model: Any, callbacks: Sequence[TrainerCallback], *, tensorboard: bool) -> ContextualTrainer:
        from ctxindex.training.sources import training_documents

        plan, options = self._plan, self._plan.contextual
        sources = {name: training_documents(corpus) for name, corpus in self._data.sources.items()}
        pairs = pairs_of(sources)
        texts = GoldTexts.of(sources, pairs)
        batches, labels, remove = self._batches(sources, pairs)
        first = None
        if options.first_stage == "frozen":
            model.freeze(self._frozen(texts))
        else:
            first = read_alone(self._first or self._shared_first())
        sampler = PairSampler(
            sources,
            pairs,
            self._encoder,
            options,
            windows=plan.schedule.windows,
            labels=labels,
            texts=texts,
            remove=remove,
            first=first,
        )
        return make_pair_trainer(
            model,
            sampler,
            batches,
            len(pairs),
            plan,
            folder=self._folder.path,
            device=self._device,
            validate=(lambda: self._validate(model)) if self._data.held else None,
            callbacks=callbacks,
            tensorboard=tensorboard,
        )

    def _batches(
        self, sources: Sources, pairs: Sequence[Pair]
    ) -> tuple[PairBatchSampler, np.ndarray[Any, np.dtype[np.int64]], PairFilter]:
        """Which pairs make a batch, which are of one small domain, and what is no negative."""
        options, schedule = self._plan.contextual, self._plan.schedule
        texts, owners = PairTexts.of(sources, pairs), [one.source for one in pairs]
        clustered = options.batches == "clusters"
        queries, documents = (np.zeros((len(own), 1), np.float32) for own in (texts.queries, texts.documents))
        if clustered or options.filter.rule != "none":
            queries, documents = self._embedded(texts)
        remove = PairFilter(options.filter, texts, queries, documents)
        if not clustered:
            labels = np.unique(owners, return_inverse=True)[1].astype(np.int64)
            return RandomBatchSampler(owners, schedule.documents, schedule.seed), labels, remove
        chosen = ClusteringOptions(options.cluster_size or schedule.documents)
        golds = hashlib.sha256(texts.golds.to_bytes()).hexdigest()
        told = self._told(texts.queries, texts.documents)
        arrays = kept(
            self._folder.made / "clusters.safetensors",
            {"clusters": asdict(chosen), "sources": owners, "golds": golds, **told},
            lambda: clusters_of(queries, vectors_of_pairs(documents, texts.golds), owners, chosen),
        )
        clusters = read_clusters(arrays, owners)
        return ClusterBatchSampler(clusters, schedule.documents, schedule.seed), clusters.labels, remove

    def _embedded(self, texts: PairTexts) -> tuple[FloatArray, FloatArray]:
        def make() -> dict[str, FloatArray]:
            queries, documents = embed(self._surrogate(), texts)
            return {"queries": queries, "documents": documents}

        made_of = self._told(texts.queries, texts.documents)
        found = kept(self._folder.made / "surrogate.safetensors", made_of, make)
        return found["queries"], found["documents"]

    def _frozen(self, texts: GoldTexts) -> FloatArray:
        """(texts, width): the first stage's vectors."""
        stage = self._first
        assert stage is not None  # `require_trainable` has seen to that
        file = self._folder.made / "context.safetensors"
        made_of = {"first stage": stage.spec.digest, **self._told(texts.texts)}
        return kept(file, made_of, lambda: {"vectors": stage.mean_states(texts.texts)})["vectors"]

    def _told(self, *texts: Sequence[str]) -> dict[str, Any]:
        """What vectors of texts are made of."""
        said = json.dumps(texts, ensure_ascii=False).encode("utf-8", "surrogatepass")
        read = {
            "alone": self._alone(),
            "prefixes": [self._encoder.spec.query_prefix, self._encoder.spec.document_prefix],
        }
        return {"base": self._named, **read, "texts": hashlib.sha256(said).hexdigest()}

    def _surrogate(self) -> LocalEncoder:
        options = EncoderOptions(
            method="independent", **self._alone(), device=self._device, dtype="float32", **self._machine
        )
        return load_encoder(self._plan.model, options)

    def _shared_first(self) -> FirstStage:
        """For the rows of a first stage that is the second one; its network is not loaded."""
        return FirstStage.of(self._checkpoint, EncoderOptions(device="cpu", dtype="float32"), Meter())

    def _write(self, state: State, share: float, into: Path) -> None:
        kept_state = self._merged(state, share)
        checkpoint = self._checkpoint
        write_tuned(checkpoint, self._encoder.spec, kept_state, into)
        settings = self._cde.settings
        first = checkpoint.first_stage
        if first is not None and self._plan.contextual.first_stage == "trained":
            own = {name.removeprefix(FIRST): one for name, one in kept_state.items() if name.startswith(FIRST)}
            transformer, heads = parts_of(first, own)
            write_model(first, transformer, heads, into / FIRST_STAGE)
            settings = settings.unnamed()
        like = load_parts(checkpoint.folder / TENSORS, checkpoint.facts, head=settings.output_head)
        # What an untrained model says of its contexts is what somebody wrote there, and no model was trained with.
        earlier = 0 if is_untrained(like, settings) else settings.context_size
        largest = max(earlier, self._plan.contextual.context_size[1])
        save_cde(into, parts_in(kept_state, like), replace(settings, context_size=largest))

    def _measure(self, folder: Path) -> dict[str, list[Run]]:
        if not self._data.held:
            return {}
        model, chosen = self._plan.model, given(self._plan.encoder)
        measured = {ALONE: self._run("independent", model, self._alone())}
        if self._reads_a_context:
            measured[CONTEXT] = list(self._in_corpus(model, chosen, null=self._plan.is_control))
        elif self._plan.encoder.windows != "chunk":
            measured[CONTEXT] = self._run("late", model, chosen)
        if not self._plan.is_control:
            measured[NULL] = list(self._in_corpus(str(folder), {}, null=True))
        measured[TUNED] = self._of_tuned(folder)
        return measured

    def _of_tuned(self, folder: Path) -> list[Run]:
        """As it was trained: a control that was chosen by what it finds in a corpus would be none."""
        return list(self._in_corpus(str(folder), {}, null=self._plan.is_control))

    def _in_corpus(self, model: str, settings: Mapping[str, Any], *, null: bool = False) -> Iterator[Run]:
        """A CDE model on every held-out corpus, in the context of a sample of it, or in the null context."""
        configuration = Configuration("cde", settings=settings, common={"model": model})
        watch = self._watch or Unwatched()
        options = configuration.options().encoder_options(self._device, **self._machine)
        encoder = load_encoder(model, options, Meter(on_tokens=watch.advance))
        assert isinstance(encoder, CdeEncoder)
        for corpus in self._data.held.values():
            watch.begin(corpus, configuration)
            reading = encoder
            if not null:
                drawn = sample_context(corpus.documents, encoder.settings.context_size)
                reading = encoder.with_context(encoder.encode_context([one.text for one in drawn]))
            spec = reading.spec
            notes = {"method": spec.method, "dtype": spec.dtype, "encoder": asdict(spec)}
            scorer = Encoded(reading, MemoryCache(), done=watch.done)
            run = evaluate(corpus, configuration, scorer, model=spec.model, notes=notes)
            watch.end(run)
            yield run
