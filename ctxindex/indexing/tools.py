"""What an index works with: its encoder and its chunker, made for a new index, found again for one that exists."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ctxindex.chunking import load_chunker
from ctxindex.encoding import Encoder, load_encoder
from ctxindex.encoding.encoder import as_context_encoder, restore_encoder
from ctxindex.errors import ConfigError, UsageError
from ctxindex.indexing.drifting import context_drift, context_status
from ctxindex.indexing.freezing import FrozenContext, Load, freeze_context, has_frozen_context, thaw_context
from ctxindex.indexing.options import (
    CORPUS_CONTEXT,
    IndexOptions,
    require_agreement,
    require_sample,
    sample_settings,
)
from ctxindex.loading import LOADER_VERSION, Source
from ctxindex.metering import Meter
from ctxindex.spec import NULL_CONTEXT, IndexSpec
from ctxindex.stores import Store
from ctxindex.types import Chunker, ContextStatus, DocumentRecord, FailedDocument

if TYPE_CHECKING:
    from ctxindex.encoding.cde.context_encoder import ContextEncoder
    from ctxindex.encoding.local import LocalEncoder


class Tools:
    """The tools of one index, loaded when they are needed and then kept.

    Args:
        options: what the user asks for.
        meter: measures the loading of the model, and its work.
        read_context: gives the corpus context that the store holds; asked only where the index has one.
        device: where the model runs.
        threads: of the CPU; None takes those this process may use.
        trust_remote_code: let Python code in the model's folder run.
    """

    def __init__(
        self,
        options: IndexOptions,
        meter: Meter,
        read_context: Callable[[], bytes | None],
        device: str = "auto",
        *,
        threads: int | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        self._options = options
        self._meter = meter
        self._read_context = read_context
        self._device = device
        self._threads = threads
        self._trusted = trust_remote_code
        self._encoder: Encoder | None = None

    def require_agreement(self, spec: IndexSpec) -> None:
        """Check that what the user asks for is what the index has: raises MismatchError."""
        drawn: dict[str, Any] = {}
        if sample_settings(self._options):  # the spec does not say, and the context is read for that alone
            frozen = self.frozen_context(spec)
            seed, sampling = (None, None) if frozen is None else (frozen.seed, frozen.sampling)
            drawn = {"context_seed": seed, "context_sampling": sampling}
        require_agreement(spec, self._options, LOADER_VERSION, drawn, trust_remote_code=self._trusted)

    def make(
        self, sources: Sequence[Source], load: Load, failures: Sequence[FailedDocument] = ()
    ) -> tuple[IndexSpec, FrozenContext | None]:
        """The spec of a new index, and its corpus context where its encoder reads one.

        All that could refuse to work is tried here: the weights too, where there are any sources.

        Args:
            sources: the documents that the index begins with.
            load: reads one.
            failures: what was found and can be no document.

        Raises:
            ModelError: the model cannot be found or used.
            ConfigError: an option does not fit the model.
            UsageError: there is no text to make a corpus context of.
        """
        options = self._options.encoder_options(self._device, threads=self._threads, trust_remote_code=self._trusted)
        encoder: LocalEncoder | ContextEncoder = load_encoder(self._options.model_name, options, self._meter)
        chunker = load_chunker(self._options.chunker_spec(), encoder.tokenizer)
        frozen: FrozenContext | None = None
        conditioned = self._conditioned(encoder)
        if conditioned is not None and self._options.context == NULL_CONTEXT:
            encoder = conditioned.with_context(None)
        elif conditioned is not None:
            settings: dict[str, Any] = {
                name.removeprefix("context_"): value for name, value in sample_settings(self._options).items()
            }
            frozen = freeze_context(conditioned, sources, load, chunker, self._meter, failures=failures, **settings)
            encoder = conditioned.with_context(frozen.context)
        if sources:
            encoder.load()
        self._encoder = encoder
        return IndexSpec(LOADER_VERSION, self._options.chunker_spec(), encoder.spec), frozen

    def _conditioned(self, encoder: Encoder) -> ContextEncoder | None:
        """The encoder, where it reads a corpus context; raises ConfigError where what was asked does not fit it."""
        found, asked = as_context_encoder(encoder), self._options.context
        given = [*(["context"] if asked is not None else []), *sample_settings(self._options)]
        if found is None and given:
            flag = f"--{given[0].replace('_', '-')}"
            raise ConfigError(f"{flag} is for method cde; {encoder.spec.method} reads no corpus context: leave it out")
        require_sample(self._options)
        if asked not in (None, CORPUS_CONTEXT, NULL_CONTEXT):
            raise ConfigError(
                f"--context {asked}: an index is read in the context of its own documents ({CORPUS_CONTEXT}), or in "
                f"none ({NULL_CONTEXT})"
            )
        return found

    def frozen_context(self, spec: IndexSpec) -> FrozenContext | None:
        """The corpus context of the index, with where it is from; None where its encoder reads none.

        Raises:
            MismatchError: the store does not hold the one that the spec names.
        """
        return thaw_context(self._read_context(), spec.encoder) if has_frozen_context(spec.encoder) else None

    def context_status(
        self, spec: IndexSpec, store: Store, records: Sequence[DocumentRecord], *, drift: bool
    ) -> ContextStatus | None:
        """The corpus context of the index and the corpus since; None where the index has none.

        Raises:
            MismatchError: the store does not hold the context, or with `drift`, the model is another.
            UsageError: `drift` was asked for where there is no context.
            ModelError: the model cannot be found or used.
        """
        frozen = self.frozen_context(spec)
        if frozen is None:
            if drift:
                raise UsageError(
                    "this index is read in no corpus context, so it cannot drift from one: leave out --drift"
                )
            return None
        found = context_status(frozen, records, spec.fingerprint)
        encoder = as_context_encoder(self.encoder(spec)) if drift else None
        if encoder is None:
            return found
        return replace(found, drift=context_drift(frozen, store, records, encoder))

    def encoder(self, spec: IndexSpec) -> Encoder:
        """The encoder that built the index.

        Raises:
            ModelError: the model cannot be found or used.
            MismatchError: it is another model, or the store does not hold the corpus context.
        """
        if self._encoder is None:
            frozen = self.frozen_context(spec)
            self._encoder = restore_encoder(
                spec.encoder,
                model=self._options.model,
                device=self._device,
                threads=self._threads,
                trust_remote_code=self._trusted,
                meter=self._meter,
                context=None if frozen is None else frozen.context,
            )
        return self._encoder

    def of(self, spec: IndexSpec) -> tuple[Encoder, Chunker]:
        """Encoder and chunker; errors as of `encoder`."""
        encoder = self.encoder(spec)
        return encoder, load_chunker(spec.chunker, encoder.tokenizer)
