"""`Index`, the facade: what the command line does, as an object.

from ctxindex import Index

with Index.open("contracts") as index:
    index.ingest("contracts/")
    for hit in index.search("Who may terminate early?"):
        print(hit.score, hit.doc_id, hit.text)
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ctxindex.chunking import load_chunker
from ctxindex.config import DEFAULT_INDEX, DEFAULT_PATH, DEFAULT_STORE, Settings
from ctxindex.encoding import Encoder, load_encoder
from ctxindex.encoding.encoder import restore_encoder
from ctxindex.errors import IndexNotFoundError
from ctxindex.indexing import (
    IndexOptions,
    Ingest,
    Outcome,
    Plan,
    Progress,
    make_plan,
    require_agreement,
    stale_failures,
)
from ctxindex.loading import LOADER_VERSION, Found, LoadOptions, find_sources, hash_source, load_source
from ctxindex.metering import STAGES, Meter
from ctxindex.retrieval import Searcher, parse_conditions
from ctxindex.spec import IndexSpec
from ctxindex.stores import Store, open_store
from ctxindex.stores.filters import AllOf, Condition, Filter
from ctxindex.types import Chunker, DocumentRecord, FailedDocument, Hit, StoredChunk, VectorLayout

if TYPE_CHECKING:
    from ctxindex.integrations.llama_index import CtxIndexRetriever

Where = Filter | Mapping[str, Any] | Iterable[str] | None
"""A filter; or {key: value} for equality; or conditions as the command line has them, such as "page>=3"."""


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What an ingest did, or with `dry_run` would do (then `new` and `changed` are what is planned).

    `seconds` has `total` and the stages model, load, chunk, tokenise, forward and write. Stages overlap: they are the
    work of three threads. `idle` is the share of the time from the first forward pass to the last in which none ran.
    """

    new: int
    changed: int
    unchanged: int
    skipped: int
    failures: tuple[FailedDocument, ...]
    chunks: int
    tokens: int
    seconds: Mapping[str, float]
    idle: float = 0.0
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class IndexStatus:
    """What is in an index: documents with live chunks, their chunks, and what failed at the last attempt."""

    location: str
    documents: int
    chunks: int
    failed: tuple[FailedDocument, ...]
    spec: IndexSpec


class Quiet(Progress):
    """Progress that nobody watches."""

    def start(self, plan: Plan) -> None:
        """Nothing."""

    def advance(self, tokens: int) -> None:
        """Nothing."""

    def done(self, doc_id: str, failure: str | None) -> None:
        """Nothing."""


@dataclass
class Index:
    """A named set of documents in a store, with one spec: `Index.open` opens one, `close` or a `with` releases it."""

    store: Store
    options: IndexOptions
    device: str = "auto"
    trust_remote_code: bool = False
    _meter: Meter = field(default_factory=Meter)
    _encoder: Encoder | None = None

    @classmethod
    def open(cls, index: str | None = None, *, trust_remote_code: bool = False, **settings: Any) -> Index:
        """Open an index, or prepare one that the first `ingest` makes.

        Args:
            index: its name; "default" where none is given.
            trust_remote_code: let Python code in the model's folder run; no file and no variable can say so.
            settings: store, url, path; and what decides vectors: model, method, chunker, chunk_size, chunk_unit,
                chunk_overlap, max_tokens, dtype, dims, force_mean, pool_factor, skiplist; and device. What is left out
                comes from CTXINDEX_* variables, ctxindex.toml, the spec stored in the index, or the default, in this
                order.

        Raises:
            ConfigError: a setting cannot be used.
            StoreError: the store cannot be opened.
        """
        found = Settings({"index": index, **settings})
        store = open_store(
            found.get("store", DEFAULT_STORE),
            url=found.get("url"),
            index=found.get("index", DEFAULT_INDEX),
            path=Path(found.get("path", DEFAULT_PATH)).expanduser(),
        )
        options = IndexOptions(**{name: found.get(name) for name in IndexOptions.names()})
        return cls(store, options, found.get("device", "auto"), trust_remote_code)

    @property
    def spec(self) -> IndexSpec | None:
        """What decides the vectors of the index, or None where it does not exist yet."""
        stored = self.store.read_spec()
        return None if stored is None else IndexSpec.from_json(stored)

    def ingest(
        self,
        *paths: str | Path,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        root: str | Path | None = None,
        no_ignore: bool = False,
        max_chars: int | None = None,
        retry_failed: bool = False,
        dry_run: bool = False,
        progress: Progress | None = None,
    ) -> IngestReport:
        """Bring the index up to date with the files under `paths`; "-" reads JSONL from standard input.

        Documents that have not changed are left alone, one that cannot be read is recorded and does not stop the run,
        and nothing is ever deleted because its file is gone.

        Args:
            paths: files and folders.
            include: globs; of the files in folders, only those that match are taken.
            exclude: globs; those that match are left out.
            root: the folder that doc_ids are relative to, instead of the name of each path given.
            no_ignore: take also what .gitignore leaves out.
            max_chars: the most characters a document may have.
            retry_failed: try documents again that failed and have not changed since.
            dry_run: only say what would be done; no model is loaded and nothing is written.
            progress: told how far the run is.

        Raises:
            UsageError: a path does not exist, or two sources have one doc_id.
            MismatchError: the index was built with other settings than those asked for.
            ModelError: the model cannot be found or used.
            StoreError: the store cannot be reached or refuses.
        """
        began = time.perf_counter()
        self._meter.reset()
        limits = {} if max_chars is None else {"max_chars": max_chars}
        loading = LoadOptions(
            tuple(include), tuple(exclude), no_ignore=no_ignore, root=None if root is None else Path(root), **limits
        )
        with find_sources(paths, loading) as found:
            return self._ingest(found, loading, retry_failed, dry_run, progress or Quiet(), began)

    def _ingest(
        self, found: Found, loading: LoadOptions, retry_failed: bool, dry_run: bool, progress: Progress, began: float
    ) -> IngestReport:
        spec = self.spec
        records: dict[str, DocumentRecord] = {}
        if spec is not None:
            require_agreement(spec, self.options, LOADER_VERSION, trust_remote_code=self.trust_remote_code)
            if not dry_run:
                self.store.recover()
            records = {record.doc_id: record for record in self.store.records()}
        with self._meter.time("load"):
            plan = make_plan(found, records, hash_source, retry_failed=retry_failed)
        if dry_run or not (plan.work or plan.failures):
            self._forget(found, records, plan.failures, dry_run)
            outcome = Outcome(
                new=len(plan.new) if dry_run else 0,
                changed=len(plan.changed) if dry_run else 0,
                skipped=plan.skipped,
                failures=list(plan.failures),
            )
            return self._report(plan, outcome, began, dry_run)
        spec = spec or self._create(with_model=bool(plan.work))
        self._meter.on_tokens = progress.advance
        run = Ingest(self.store, records, spec.fingerprint, self._meter, progress)
        outcome = run.run(plan, partial(load_source, options=loading), partial(self._tools, spec))
        self._forget(found, records, outcome.failures, dry_run)
        if plan.work:
            self.store.maintain()
        return self._report(plan, outcome, began, dry_run)

    def search(self, query: str, k: int = 5, where: Where = None) -> list[Hit]:
        """The `k` chunks nearest to `query`, best first, of those that `where` allows.

        Raises:
            IndexNotFoundError: nothing was ever ingested.
            MismatchError: the model found is not the one that built the index.
            UsageError: an empty query or an unreadable condition.
        """
        return self.searcher().search(query, k, as_filter(where))

    def searcher(self) -> Searcher:
        """The index's search, with the encoder that built it."""
        spec = self._existing()
        return Searcher(self.store, self._encoder_of(spec), spec.encoder.dim)

    def as_retriever(self, similarity_top_k: int = 5, **options: Any) -> CtxIndexRetriever:
        """A LlamaIndex retriever over this index; `options` as of `CtxIndexRetriever`."""
        from ctxindex.integrations.llama_index import CtxIndexRetriever

        return CtxIndexRetriever(self.searcher(), similarity_top_k=similarity_top_k, **options)

    def records(self) -> list[DocumentRecord]:
        """What the index knows of each document, by doc_id; IndexNotFoundError where there is no index."""
        self._existing()
        return sorted(self.store.records(), key=lambda record: record.doc_id)

    def chunks(self, doc_id: str, *, vectors: bool = False) -> list[StoredChunk]:
        """The stored chunks of a document in the order of its text, with their vectors if asked; none if unknown."""
        self._existing()
        return self.store.chunks(doc_id, vectors=vectors)

    def status(self) -> IndexStatus:
        """What is in the index.

        Raises:
            IndexNotFoundError: there is none.
        """
        spec = self._existing()
        counts = self.store.counts()
        failed = [
            FailedDocument(record.doc_id, record.error or "", record.source_hash)
            for record in self.store.records()
            if record.status == "failed"
        ]
        failed.sort(key=lambda failure: failure.doc_id)
        return IndexStatus(self.store.location, counts.documents, counts.chunks, tuple(failed), spec)

    def close(self) -> None:
        """Release the store."""
        self.store.close()

    def __enter__(self) -> Index:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _existing(self) -> IndexSpec:
        spec = self.spec
        if spec is None:
            raise IndexNotFoundError(f"there is no index at {self.store.location}: make one with ctxindex ingest PATH")
        return spec

    def _create(self, *, with_model: bool) -> IndexSpec:
        """Make the index, but only once everything that could refuse to work has been tried."""
        options = self.options.encoder_options(self.device, trust_remote_code=self.trust_remote_code)
        encoder = load_encoder(self.options.model_name, options, self._meter)
        spec = IndexSpec(LOADER_VERSION, self.options.chunker_spec(), encoder.spec)
        load_chunker(spec.chunker, encoder.tokenizer)
        if with_model:
            encoder.load()
        self.store.create(spec.to_json(), VectorLayout(spec.encoder.dim, spec.encoder.multivector))
        self._encoder = encoder
        return spec

    def _encoder_of(self, spec: IndexSpec) -> Encoder:
        if self._encoder is None:
            self._encoder = restore_encoder(
                spec.encoder,
                model=self.options.model,
                device=self.device,
                trust_remote_code=self.trust_remote_code,
                meter=self._meter,
            )
        return self._encoder

    def _tools(self, spec: IndexSpec) -> tuple[Encoder, Chunker]:
        encoder = self._encoder_of(spec)
        return encoder, load_chunker(spec.chunker, encoder.tokenizer)

    def _forget(
        self, found: Found, records: Mapping[str, DocumentRecord], failures: Sequence[FailedDocument], dry_run: bool
    ) -> None:
        stale = stale_failures(found, records, {failure.doc_id for failure in failures})
        if stale and not dry_run:
            self.store.delete(stale)

    def _report(self, plan: Plan, outcome: Outcome, began: float, dry_run: bool) -> IngestReport:
        seconds: dict[str, float] = {stage: self._meter.seconds.get(stage, 0.0) for stage in STAGES}
        return IngestReport(
            new=outcome.new,
            changed=outcome.changed,
            unchanged=plan.unchanged,
            skipped=outcome.skipped,
            failures=tuple(outcome.failures),
            chunks=outcome.chunks,
            tokens=outcome.tokens,
            seconds={"total": time.perf_counter() - began, **seconds},
            idle=self._meter.idle,
            dry_run=dry_run,
        )


def as_filter(where: Where) -> Filter | None:
    """Any of the forms of `Where` as a filter."""
    if where is None or isinstance(where, Filter):
        return where
    if isinstance(where, Mapping):
        return AllOf(tuple(Condition(key, "eq", value) for key, value in where.items()))
    return parse_conditions([where] if isinstance(where, str) else where)
