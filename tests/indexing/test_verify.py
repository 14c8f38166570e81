"""`Index.verify` on real files, a real model and real stores: what agrees, what differs, what was not compared."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ctxindex import Index, VerifyReport
from ctxindex.encoding.local import LocalEncoder
from ctxindex.errors import IndexNotFoundError, MismatchError, UsageError
from ctxindex.indexing import IndexOptions
from ctxindex.indexing.verify import _why_no_context, sources_by_name
from ctxindex.loading import load
from ctxindex.stores.memory import MemoryStore
from ctxindex.stores.protocol import StoreLocation
from ctxindex.types import DocumentRevision, FailedDocument, StoredChunk
from tests.encoding.test_colbert import PYLATE, pylate

TEXTS = {
    "napoleon.txt": "Napoleon was born in Corsica.\n\nHe became emperor in 1804.\n\nHe died in exile, on an island.",
    "lease.txt": "The lease may be ended by either party.\n\nIt is governed by the law of Delaware, and no other.",
    "short.txt": "One chunk, and nothing around it.",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "texts"
    place.mkdir()
    for name, text in TEXTS.items():
        (place / name).write_text(text, encoding="utf-8")
    return place


Open = Callable[..., Index]


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, minilm_late: LocalEncoder) -> Open:
    """An index in memory that uses the model which is loaded anyway; chunks of 16 tokens."""
    MemoryStore.forget()
    monkeypatch.setattr("ctxindex.indexing.tools.load_encoder", lambda *_: minilm_late)

    def make(**options: Any) -> Index:
        store = MemoryStore.connect(StoreLocation("test", tmp_path))
        return Index(store, IndexOptions(method="late", chunk_size=16, **options), "cpu")

    return make


def verdicts(report: VerifyReport) -> dict[str, str]:
    return {check.doc_id.rpartition("/")[2]: check.verdict for check in report.checks}


def tamper(index: Index, doc_id: str, change: Callable[[list[StoredChunk]], list[StoredChunk]]) -> None:
    """Put other chunks under the same record."""
    (record,) = index.store.records([doc_id])
    chunks = change(index.chunks(doc_id, vectors=True))
    index.store.delete([doc_id])
    index.store.replace([DocumentRevision(replace(record, n_chunks=len(chunks)), tuple(chunks))])


def mirrored(chunks: list[StoredChunk]) -> list[StoredChunk]:
    """The second chunk with its vectors reversed: as long as before, and another."""
    vector = np.asarray(chunks[1].vector)
    return [chunks[0], replace(chunks[1], vector=vector[..., ::-1].copy()), *chunks[2:]]


@pytest.mark.parametrize("store", ["lancedb", "qdrant"])
def test_a_tampered_vector_is_found_in_every_store(store: str, folder: Path, tmp_path: Path) -> None:
    with Index.open(
        "test", store=store, path=tmp_path / "db", method="late", chunk_size=16, device="cpu", blend=0.2, anchor=8
    ) as index:
        index.ingest(folder)
        before = index.records()
        report = index.verify(folder)
        assert verdicts(report) == dict.fromkeys(TEXTS, "agrees")
        assert report.min_cosine is not None
        assert report.min_cosine > 0.9999
        assert (report.documents, report.compared, report.missing, report.agrees) == (3, 3, (), True)
        assert report.vectors == index.status().chunks
        tamper(index, "texts/lease.txt", mirrored)
        worse = index.verify(folder)
        assert verdicts(worse) == {**dict.fromkeys(TEXTS, "agrees"), "lease.txt": "differs"}
        (wrong,) = worse.of("differs")
        assert (wrong.worst_chunk, worse.agrees) == (1, False)
        assert wrong.cosine is not None
        assert wrong.cosine < 0.5
        assert str(wrong.reason).startswith("chunk 1 [41:93] is stored with another vector than the model gives")
        assert worse.min_cosine == wrong.cosine
        assert index.records() == before, "verifying writes nothing"


def test_context_is_measured_where_there_can_be_any(opened: Open, folder: Path) -> None:
    with opened() as index:
        index.ingest(folder)
        context = index.verify(folder).context
        assert context.cosine is not None
        assert 0.3 < context.cosine < 0.98
        assert context.chunks == index.status().chunks - 1, "the document of one chunk is left out"
        assert not context.lost

        def alone(chunks: list[StoredChunk]) -> list[StoredChunk]:
            encoder = index.searcher().encoder
            return [replace(chunk, vector=encoder.encode_queries([chunk.text])[0]) for chunk in chunks]

        for name in ("napoleon.txt", "lease.txt"):
            tamper(index, f"texts/{name}", alone)
        # Queries are the mean of the whole row, CLS and separator included: near to the isolated view, and not it.
        lost = index.verify(folder)
        assert lost.context.cosine is not None
        assert lost.context.cosine > 0.95 > context.cosine
        assert len(lost.of("differs")) == 2


def test_the_context_is_that_of_the_encoder_itself(opened: Open, folder: Path, minilm_late: LocalEncoder) -> None:
    """Vectors made of each chunk in a document of its own have a cosine of one with the isolated view."""
    with opened() as index:
        (folder / "short.txt").unlink()
        index.ingest(folder)
        for record in index.records():
            index.store.replace([_isolated(index, record.doc_id, minilm_late)])
        context = index.verify(folder).context
        assert context.cosine == pytest.approx(1.0, abs=1e-6)
        assert context.lost


def _isolated(index: Index, doc_id: str, encoder: LocalEncoder) -> DocumentRevision:
    from tests.encoding.stand_in import chunked

    (record,) = index.store.records([doc_id])
    chunks = index.chunks(doc_id)
    encoded = [next(iter(encoder.encode_documents([chunked("x", [chunk.text])]))) for chunk in chunks]
    assert not any(isinstance(each, FailedDocument) for each in encoded)
    vectors = [each.vectors[0] for each in encoded if not isinstance(each, FailedDocument)]
    return DocumentRevision(
        record, tuple(replace(chunk, vector=vector) for chunk, vector in zip(chunks, vectors, strict=True))
    )


def test_one_chunk_documents_have_no_context_to_lose(opened: Open, folder: Path) -> None:
    with opened() as index:
        index.ingest(folder / "short.txt")
        report = index.verify(folder / "short.txt")
        assert (report.compared, report.context.cosine, report.context.chunks) == (1, None, 0)
        assert report.context.note == "no document with more than one chunk was compared"
        assert not report.context.lost


def test_independent_vectors_agree_and_take_no_context(folder: Path, tmp_path: Path) -> None:
    with Index.open("test", path=tmp_path / "db", method="independent", chunk_size=16, device="cpu") as index:
        index.ingest(folder)
        report = index.verify(folder)
        assert report.compared == 3
        assert report.agrees
        assert report.context.cosine is None
        assert "independent" in str(report.context.note)


def test_windows_of_one_chunk_take_no_context(minilm_late: LocalEncoder) -> None:
    assert _why_no_context(minilm_late.spec) is None
    alone = replace(minilm_late.spec, windows="chunk")
    note = _why_no_context(replace(alone, method="cde", context="null"))
    assert note == "with --windows chunk, every chunk is read in the context of its corpus alone"
    note = _why_no_context(replace(alone, method="late-interaction", multivector=True, pooling="inclusive"))
    assert note == "with --windows chunk, every chunk is embedded alone"


def test_sources_that_changed_or_are_gone_are_no_failures_of_vectors(opened: Open, folder: Path) -> None:
    with opened() as index:
        index.ingest(folder)
        (folder / "lease.txt").write_text("Another text.", encoding="utf-8")
        (folder / "napoleon.txt").unlink()
        report = index.verify(folder)
        assert verdicts(report) == {"lease.txt": "changed", "short.txt": "agrees"}
        assert report.missing == ("texts/napoleon.txt",)
        assert (report.documents, report.compared, report.agrees) == (3, 1, True)
        (folder / "lease.txt").write_bytes(b"")
        (changed,) = index.verify(folder).of("changed")
        assert str(changed.reason).endswith("cannot be indexed now: empty")
        (folder / "lease.txt").unlink()
        (folder / "short.txt").unlink()
        nothing = index.verify(folder)
        assert (nothing.compared, nothing.checks, len(nothing.missing), nothing.min_cosine) == (0, (), 3, None)


def test_a_source_that_is_no_document_any_more_has_changed(opened: Open, folder: Path) -> None:
    (folder / "notes").write_text("Notes without a suffix.", encoding="utf-8")
    with opened() as index:
        index.ingest(folder)
        (folder / "notes").write_bytes(b"\x89PNG\r\n\x1a\n\x00\x00")
        report = index.verify(folder)
        assert (report.compared, report.missing) == (3, ())
        (changed,) = report.of("changed")
        assert str(changed.reason).startswith("no document any more: ")


def test_a_source_that_gives_no_vectors_any_more_failed(
    opened: Open, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened() as index:
        index.ingest(folder)
        monkeypatch.setattr(load, "_parse", lambda *_: 1 / 0)
        report = index.verify(folder / "lease.txt", root=folder.parent)
        assert [(check.verdict, check.reason) for check in report.checks] == [
            ("failed", "ZeroDivisionError: division by zero")
        ]
        assert report.agrees


def test_a_document_that_cannot_be_encoded_failed(
    opened: Open, folder: Path, monkeypatch: pytest.MonkeyPatch, minilm_late: LocalEncoder
) -> None:
    with opened() as index:
        index.ingest(folder)
        monkeypatch.setattr(minilm_late._rows, "make", lambda *_: ([], 0))
        report = index.verify(folder)
        assert verdicts(report) == dict.fromkeys(TEXTS, "failed")
        assert report.of("failed")[0].reason == "a chunk has no tokens that the model can read"
        assert (report.compared, report.vectors, report.context.cosine) == (0, 0, None)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda chunks: chunks[:-1], "the index has 1 of its chunks, and the source gives 2"),
        (lambda chunks: [replace(chunks[0], start=1), *chunks[1:]], "chunk 0 is [1:39] in the index, and [0:39] now"),
        (lambda chunks: [replace(chunks[0], text="?"), *chunks[1:]], "chunk 0 [0:39] has another text in the index"),
    ],
)
def test_chunks_that_differ_are_named(opened: Open, folder: Path, change: Any, reason: str) -> None:
    with opened() as index:
        index.ingest(folder)
        tamper(index, "texts/lease.txt", change)
        (wrong,) = index.verify(folder).of("differs")
        assert str(wrong.reason).startswith(reason)
        assert (wrong.cosine, wrong.worst_chunk) == (None, None)


def test_the_sample_is_drawn_of_what_was_found(opened: Open, folder: Path) -> None:
    for number in range(6):
        (folder / f"more{number}.txt").write_text(f"A document with the number {number}.", encoding="utf-8")
    with opened() as index:
        index.ingest(folder)
        drawn = index.verify(folder, sample=2)
        assert len(drawn.checks) == 2
        assert verdicts(index.verify(folder, sample=2, seed=drawn.seed)) == verdicts(drawn)
        assert len({tuple(verdicts(index.verify(folder, sample=1, seed=seed))) for seed in range(9)}) > 1
        assert len(index.verify(folder, sample=100).checks) == 9
        assert list(verdicts(index.verify(folder, include="lease*"))) == ["lease.txt"]
        with pytest.raises(UsageError, match="a sample of 0"):
            index.verify(folder, sample=0)
        with pytest.raises(UsageError, match="no such file or folder"):
            index.verify(folder / "nowhere")


def test_without_paths_documents_are_found_by_their_doc_ids(
    opened: Open, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened() as index:
        index.ingest(folder)
        (folder.parent / "line.jsonl").write_text('{"doc_id": "../memo", "text": "A memo."}\n', encoding="utf-8")
        index.ingest(folder.parent / "line.jsonl")
        assert index.verify(root=folder.parent).compared == 3
        monkeypatch.chdir(folder.parent)
        report = index.verify()
        assert report.compared == 3
        assert report.missing == ("../memo",)
        assert verdicts(index.verify("line.jsonl")) == {"memo": "agrees"}
        monkeypatch.chdir(folder)
        assert len(index.verify().missing) == 4


def test_nothing_outside_of_the_folder_is_looked_at(tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    (tmp_path / "secret.txt").write_text("?", encoding="utf-8")
    (tmp_path / "inside" / "a.txt").write_text("?", encoding="utf-8")
    names = ["a.txt", "../secret.txt", str(tmp_path / "secret.txt"), "a\0b", "", "b.txt"]
    assert sources_by_name(names, tmp_path / "inside") == [os.path.join(tmp_path, "inside", "a.txt")]


def test_what_cannot_be_verified_is_refused(opened: Open, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened() as index:
        with pytest.raises(IndexNotFoundError, match="ctxindex ingest"):
            index.verify(folder)
        index.ingest(folder)
        monkeypatch.setattr("ctxindex.index.LOADER_VERSION", 99)
        with pytest.raises(MismatchError, match="loader: index version 1, this ctxindex has version 99"):
            index.verify(folder)


@pytest.mark.parametrize("store", ["lancedb", "qdrant?quantization=int8"])
def test_multivectors_are_compared_token_by_token(store: str, folder: Path, tmp_path: Path) -> None:
    model = pylate(tmp_path / "colbert", PYLATE)
    settings: dict[str, Any] = {"store": store, "path": tmp_path / "db", "model": str(model), "device": "cpu"}
    with Index.open("all", chunk_size=16, **settings) as index:
        report = index.ingest(folder)
        assert report.failures == ()
        found = index.verify(folder)
        assert found.agrees
        assert found.compared == 3
        assert found.vectors == sum(record.n_tokens for record in index.records())
        assert found.min_cosine is not None
        assert found.min_cosine > 0.9999
        assert found.context.cosine is not None
        assert not found.context.lost
        tamper(index, "texts/lease.txt", mirrored)
        (wrong,) = index.verify(folder).of("differs")
        assert wrong.worst_chunk == 1
    with Index.open("pooled", chunk_size=16, pool_factor=2, **settings) as index:
        index.ingest(folder)
        found = index.verify(folder)
        assert found.agrees
        assert found.context.cosine is None
        assert "--pool-factor" in str(found.context.note)
