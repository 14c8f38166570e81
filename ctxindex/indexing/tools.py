"""What an index works with: its encoder and its chunker, made for a new index, found again for one that exists."""

from __future__ import annotations

from ctxindex.chunking import load_chunker
from ctxindex.encoding import Encoder, load_encoder
from ctxindex.encoding.encoder import restore_encoder
from ctxindex.indexing.options import IndexOptions, require_agreement
from ctxindex.loading import LOADER_VERSION
from ctxindex.metering import Meter
from ctxindex.spec import IndexSpec
from ctxindex.types import Chunker


class Tools:
    """The tools of one index, loaded when they are needed and then kept.

    Args:
        options: what the user asks for.
        meter: measures the loading of the model, and its work.
        device: where the model runs.
        threads: of the CPU; None takes those this process may use.
        trust_remote_code: let Python code in the model's folder run.
    """

    def __init__(
        self,
        options: IndexOptions,
        meter: Meter,
        device: str = "auto",
        *,
        threads: int | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        self._options = options
        self._meter = meter
        self._device = device
        self._threads = threads
        self._trusted = trust_remote_code
        self._encoder: Encoder | None = None

    def require_agreement(self, spec: IndexSpec) -> None:
        """Check that what the user asks for is what the index has: raises MismatchError."""
        require_agreement(spec, self._options, LOADER_VERSION, trust_remote_code=self._trusted)

    def make(self, *, with_model: bool) -> IndexSpec:
        """The spec of a new index. All that could refuse to work is tried here, with `with_model` the weights too.

        Raises:
            ModelError: the model cannot be found or used.
            ConfigError: an option does not fit the model.
        """
        options = self._options.encoder_options(self._device, threads=self._threads, trust_remote_code=self._trusted)
        encoder = load_encoder(self._options.model_name, options, self._meter)
        spec = IndexSpec(LOADER_VERSION, self._options.chunker_spec(), encoder.spec)
        load_chunker(spec.chunker, encoder.tokenizer)
        if with_model:
            encoder.load()
        self._encoder = encoder
        return spec

    def encoder(self, spec: IndexSpec) -> Encoder:
        """The encoder that built the index.

        Raises:
            ModelError: the model cannot be found or used.
            MismatchError: it is another model.
        """
        if self._encoder is None:
            self._encoder = restore_encoder(
                spec.encoder,
                model=self._options.model,
                device=self._device,
                threads=self._threads,
                trust_remote_code=self._trusted,
                meter=self._meter,
            )
        return self._encoder

    def of(self, spec: IndexSpec) -> tuple[Encoder, Chunker]:
        """Encoder and chunker; errors as of `encoder`."""
        encoder = self.encoder(spec)
        return encoder, load_chunker(spec.chunker, encoder.tokenizer)
