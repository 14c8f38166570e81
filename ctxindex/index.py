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
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ctxindex.config import DEFAULT_INDEX, DEFAULT_PATH, DEFAULT_STORE, Settings
from ctxindex.errors import IndexNotFoundError, UsageError
from ctxindex.indexing import (
    DEFAULT_SAMPLE,
    IndexOptions,
    Ingest,
    Plan,
    Progress,
    Quiet,
    Tools,
    Totals,
    Verify,
    VerifyReport,
    make_plan,
    require_agreement,
    settled_records,
    stale_failures,
)
from ctxindex.indexing.freezing import Load
from ctxindex.loading import LOADER_VERSION, Found, LoadOptions, find_sources, hash_source, load_source
from ctxindex.metering import STAGES, Meter
from ctxindex.reports import IndexStatus, IngestReport
from ctxindex.retrieval import Searcher, Where, as_filter
from ctxindex.spec import IndexSpec
from ctxindex.stores import Store, open_store
from ctxindex.types import DocumentRecord, FailedDocument, Hit, StoredChunk, VectorLayout

if TYPE_CHECKING:
    from ctxindex.integrations.llama_index import CtxIndexRetriever


_NOT_SETTINGS = ("cls", "path", "trust_remote_code")


class Index:
    """A named set of documents in a store, with one spec: `Index.open` opens one, `close` or a `with` releases it."""

    def __init__(
        self,
        store: Store,
        options: IndexOptions,
        device: str = "auto",
        *,
        threads: int | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        self.store = store
        self.options = options
        self._meter = Meter()
        self._tools = Tools(
            options, self._meter, store.read_context, device, threads=threads, trust_remote_code=trust_remote_code
        )

    def __repr__(self) -> str:
        return f"Index({self.store.location})"

    @classmethod
    def open(
        cls,
        index: str | None = None,
        *,
        store: str | None = None,
        url: str | None = None,
        path: str | Path | None = None,
        model: str | None = None,
        method: str | None = None,
        chunker: str | None = None,
        chunk_size: int | None = None,
        chunk_unit: str | None = None,
        chunk_overlap: int | None = None,
        max_tokens: int | str | None = None,
        join: str | None = None,
        pooling: str | None = None,
        windows: str | None = None,
        window_overlap: int | None = None,
        owner: str | None = None,
        anchor: int | None = None,
        anchor_title: bool | None = None,
        blend: float | None = None,
        isolated: str | None = None,
        dims: int | None = None,
        force_mean: bool | None = None,
        dtype: str | None = None,
        pool_factor: int | None = None,
        skiplist: str | None = None,
        context: str | None = None,
        context_seed: int | None = None,
        context_sampling: str | None = None,
        device: str | None = None,
        threads: int | None = None,
        trust_remote_code: bool = False,
    ) -> Index:
        """Open an index, or prepare one that the first `ingest` makes.

        What is left out comes from CTXINDEX_* variables, ctxindex.toml, the spec stored in the index, or the default,
        in this order.

        Args:
            index: its name.
            store: lancedb, qdrant, or a URI such as qdrant+https://host.
            url: address of a served store.
            path: folder of a local store.
            model: minilm, minilm-insent, a model folder, or owner/name on the hub; by default minilm-insent where this
                installation has it, else minilm.
            method: late, late-interaction, cde or independent.
            chunker: markdown, recursive or tokens.
            chunk_size: the most a chunk may have, overlap included, in `chunk_unit`s.
            chunk_unit: tokens or chars.
            chunk_overlap: what a chunk repeats of the one before, in `chunk_unit`s.
            max_tokens: size of a window in tokens, special tokens included; "model" for what it was trained with.
            join: what chunks are to the model: texts joined by separators (sep), or spans of the document (raw).
            pooling: the tokens a chunk is pooled from: strict, inclusive or authors-compat.
            windows: how long documents are read: window, token-window, full, or with cde each chunk alone (chunk).
            window_overlap: tokens that a window reads beyond its chunks, on each side.
            owner: the window that a chunk in several is taken from: centre, first, or the mean of all.
            anchor: how many of the document's first tokens every later window begins with.
            anchor_title: begin every window with the document's title.
            blend: weight of the vector of the chunk alone, or of each of its tokens, from 0 to less than 1.
            isolated: what that vector is made of: chunk, title (and chunk), or opening (title, else the first tokens).
            dims: how many numbers of a vector to keep.
            force_mean: take means of a model that was not trained for them.
            dtype: of the forward pass: float32, bfloat16 or float16; auto for the fastest that keeps the quality here.
            pool_factor: late interaction: by what the number of a chunk's vectors is divided.
            skiplist: late interaction: leave out no tokens (none), or those that the model's files name (model).
            context: method cde: read in the context of the documents themselves (corpus), or in none (null).
            context_seed: what the sample of the documents is drawn by.
            context_sampling: a chunk of each document before a second of any (by-document), or any (uniform-chunk).
            device: auto, cpu, cuda or mps.
            threads: of the CPU; by default as many as there are processors for this process.
            trust_remote_code: let Python code in the model's folder run; no file and no variable can say so.

        Raises:
            ConfigError: a setting cannot be used.
            StoreError: the store cannot be opened.
        """
        given = {name: value for name, value in locals().items() if name not in _NOT_SETTINGS}
        found = Settings({**given, "path": None if path is None else str(path)})
        opened = open_store(
            found.get("store", DEFAULT_STORE),
            url=found.get("url"),
            index=found.get("index", DEFAULT_INDEX),
            path=Path(found.get("path", found.beside_file(DEFAULT_PATH))).expanduser(),
        )
        options = IndexOptions(**{name: found.get(name) for name in IndexOptions.names()})
        device, threads = found.get("device", "auto"), found.get("threads")
        return cls(opened, options, device, threads=threads, trust_remote_code=trust_remote_code)

    @property
    def spec(self) -> IndexSpec | None:
        """What decides the vectors of the index, or None where it does not exist yet."""
        stored = self.store.read_spec()
        return None if stored is None else IndexSpec.from_json(stored)

    def ingest(
        self,
        *paths: str | Path | Sequence[str | Path],
        include: str | Sequence[str] = (),
        exclude: str | Sequence[str] = (),
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
            paths: files and folders, one by one or in a list.
            include: globs; of the files in folders, only those that match are taken.
            exclude: globs; those that match are left out.
            root: the folder that doc_ids are relative to, instead of the name of each path given.
            no_ignore: take also what .gitignore leaves out.
            max_chars: the most characters a document may have.
            retry_failed: try documents again that failed and have not changed since.
            dry_run: only say what would be done; no model is loaded and nothing is written.
            progress: told how far the run is.

        Raises:
            UsageError: no path, one that does not exist, or two sources with one doc_id.
            MismatchError: the index was built with other settings than those asked for.
            ModelError: the model cannot be found or used.
            StoreError: the store cannot be reached or refuses.
        """
        began = time.perf_counter()
        given = _paths(paths)
        if not given:
            raise UsageError("there is nothing to ingest: give files or folders")
        self._meter.reset()
        loading = LoadOptions.of(include, exclude, root, no_ignore=no_ignore, max_chars=max_chars)
        with find_sources(given, loading) as found:
            return self._ingest(found, loading, retry_failed, dry_run, progress or Quiet(), began)

    def _ingest(
        self, found: Found, loading: LoadOptions, retry_failed: bool, dry_run: bool, progress: Progress, began: float
    ) -> IngestReport:
        spec = self.spec
        records: dict[str, DocumentRecord] = {}
        if spec is not None:
            self._tools.require_agreement(spec)
            records = settled_records(self.store, dry_run=dry_run)
        with self._meter.time("load"):
            plan = make_plan(found, records, hash_source, retry_failed=retry_failed)
        if dry_run or not (plan.work or plan.failures):
            totals = Totals(unchanged=plan.unchanged, skips=list(plan.skips), failures=list(plan.failures))
            if dry_run:
                totals.new, totals.changed = len(plan.new), len(plan.changed)
        else:
            load = partial(load_source, options=loading)
            with self.store.writing():
                spec = spec or self._create(plan, load)
                self._meter.on_tokens = progress.advance
                run = Ingest(self.store, records, spec.fingerprint, self._meter, progress)
                totals = run.run(plan, load, partial(self._tools.of, spec))
        stale = stale_failures(found, records, {failure.doc_id for failure in totals.failures})
        if stale and not dry_run:
            self.store.delete(stale)
        if totals.chunks:
            self.store.maintain()
        return self._report(totals, began, dry_run)

    def verify(
        self,
        *paths: str | Path | Sequence[str | Path],
        sample: int = DEFAULT_SAMPLE,
        seed: int | None = None,
        include: str | Sequence[str] = (),
        exclude: str | Sequence[str] = (),
        root: str | Path | None = None,
        no_ignore: bool = False,
        max_chars: int | None = None,
        progress: Progress | None = None,
    ) -> VerifyReport:
        """Encode a sample of the documents again and compare with what is stored. Writes nothing.

        Args:
            paths: the files and folders that were ingested, as `ingest` takes them; without any, the doc_ids are
                looked for as files in `root`, or the current folder.
            sample: how many documents to compare, of those that were found.
            seed: draws the same sample again; drawn itself if None.
            include: as of `ingest`.
            exclude: as of `ingest`.
            root: as of `ingest`.
            no_ignore: as of `ingest`.
            max_chars: as of `ingest`.
            progress: told as of an ingest that encodes the sample.

        Raises:
            IndexNotFoundError: there is none.
            UsageError: a path that does not exist, or a sample of nothing.
            MismatchError: the model found is not the one that built the index, or another loader read the sources.
            ModelError: the model cannot be found or used.
        """
        began = time.perf_counter()
        if sample < 1:
            raise UsageError(f"a sample of {sample}: at least one document has to be compared")
        spec = self._existing()
        require_agreement(spec, IndexOptions(), LOADER_VERSION)  # the loader's version is part of a source's hash
        self._meter.reset()
        loading = LoadOptions.of(include, exclude, root, no_ignore=no_ignore, max_chars=max_chars)
        run = Verify(self.store, spec, self._meter, progress or Quiet())
        found = run.run(_paths(paths), loading, partial(self._tools.of, spec), sample, seed)
        return replace(found, seconds=self._seconds(began))

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
        return Searcher(self.store, self._tools.encoder(spec), spec.encoder.dim)

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

    def delete(self, doc_ids: Iterable[str]) -> None:
        """Remove documents, with their chunks and records; ids that are not in the index are ignored."""
        self._existing()
        self.store.delete(set(doc_ids))

    def status(self, *, drift: bool = False) -> IndexStatus:
        """What is in the index; with `drift` also how far the corpus has moved from its context, which takes the model.

        Raises:
            IndexNotFoundError: there is none.
            MismatchError: the store does not hold the corpus context that the index names.
            UsageError: the drift was asked for, and the index has no corpus context.
            ModelError: the model cannot be found or used.
        """
        spec = self._existing()
        counts = self.store.counts()
        records = list(self.store.records())
        failed = [
            FailedDocument(record.doc_id, record.error or "", record.source_hash)
            for record in records
            if record.status == "failed"
        ]
        failed.sort(key=lambda failure: failure.doc_id)
        context = self._tools.context_status(spec, self.store, records, drift=drift)
        return IndexStatus(self.store.location, counts.documents, counts.chunks, tuple(failed), spec, context)

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

    def _create(self, plan: Plan, load: Load) -> IndexSpec:
        """Make the index, but only once everything that could refuse to work has been tried."""
        made = self.spec
        if made is not None:  # by another process, while we looked at the files
            self._tools.require_agreement(made)
            return made
        self._meter.on_tokens = None
        spec, frozen = self._tools.make(plan.work, load, plan.failures)
        layout = VectorLayout(spec.encoder.dim, spec.encoder.multivector)
        context = () if frozen is None else (frozen.to_bytes(),)
        self.store.create(spec.to_json(), layout, *context)
        return spec

    def _report(self, totals: Totals, began: float, dry_run: bool) -> IngestReport:
        return IngestReport(
            new=totals.new,
            changed=totals.changed,
            unchanged=totals.unchanged,
            skips=tuple(totals.skips),
            failures=tuple(totals.failures),
            chunks=totals.chunks,
            tokens=totals.tokens,
            seconds=self._seconds(began),
            idle=self._meter.idle,
            dry_run=dry_run,
        )

    def _seconds(self, began: float) -> Mapping[str, float]:
        stages: dict[str, float] = {stage: self._meter.seconds.get(stage, 0.0) for stage in STAGES}
        return {"total": time.perf_counter() - began, **stages}


def _paths(given: Sequence[str | Path | Sequence[str | Path]]) -> list[str | Path]:
    return [one for path in given for one in ([path] if isinstance(path, str | Path) else path)]
