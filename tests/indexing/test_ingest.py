"""`Index.ingest` on real files, a real model and a real store: what is planned, written, kept and told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ctxindex import Document, FailedDocument, Index, load_documents
from ctxindex.encoding import local
from ctxindex.errors import ConfigError, MismatchError, StoreError, UsageError
from ctxindex.types import StoredChunk

STORES = ("lancedb", "qdrant")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three small documents."""
    place = tmp_path / "docs"
    place.mkdir()
    for name in ("one", "two", "three"):
        lines = [f"{name} clause {number}: the party of part {number} shall pay." for number in range(40)]
        (place / f"{name}.txt").write_text("\n\n".join(lines), encoding="utf-8")
    return place


@pytest.fixture(params=STORES)
def index(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Index]:
    with Index.open("test", store=request.param, path=tmp_path / "db", method="late", device="cpu") as opened:
        yield opened


def everything(index: Index) -> dict[str, list[StoredChunk]]:
    return {record.doc_id: index.chunks(record.doc_id, vectors=True) for record in index.records()}


def test_new_changed_unchanged(index: Index, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = index.ingest(folder)
    assert (first.new, first.changed, first.unchanged, first.failures) == (3, 0, 0, ())
    before = everything(index)
    assert sorted(before) == ["docs/one.txt", "docs/three.txt", "docs/two.txt"]
    assert sum(map(len, before.values())) == first.chunks == index.status().chunks

    (folder / "two.txt").write_text("Something else entirely, and short.", encoding="utf-8")
    (folder / "four.txt").write_text("A fourth document.", encoding="utf-8")
    second = index.ingest(folder)
    assert (second.new, second.changed, second.unchanged) == (1, 1, 2)
    after = everything(index)
    assert [chunk.text for chunk in after["docs/two.txt"]] == ["Something else entirely, and short."]
    assert [chunk.chunk_id for chunk in after["docs/one.txt"]] == [chunk.chunk_id for chunk in before["docs/one.txt"]]

    def nothing(*_: object, **__: object) -> None:
        raise AssertionError("an unchanged run loads no model and writes nothing")

    monkeypatch.setattr(local, "TransformerBackbone", nothing)
    for method in ("replace", "put_records", "delete", "create", "maintain"):
        monkeypatch.setattr(index.store, method, nothing)
    index._tools._encoder = None
    third = index.ingest(folder)
    assert (third.new, third.changed, third.unchanged, third.chunks) == (0, 0, 4, 0)


def test_what_is_stored_is_what_was_loaded_and_encoded(index: Index, folder: Path) -> None:
    index.ingest(folder)
    stored = everything(index)
    for document in load_documents(folder):
        assert isinstance(document, Document)
        chunks = stored[document.doc_id]
        assert [chunk.ordinal for chunk in chunks] == list(range(len(chunks)))
        for chunk in chunks:
            assert chunk.text == document.text[chunk.start : chunk.end]
            assert chunk.vector is not None
            assert np.linalg.norm(chunk.vector) == pytest.approx(1.0, abs=1e-6)
        assert chunks[0].metadata["file_name"] == document.metadata["file_name"]


def test_a_bad_file_stops_nothing_and_is_recorded(index: Index, folder: Path) -> None:
    (folder / "empty.txt").write_bytes(b"")
    (folder / "broken.pdf").write_bytes(b"%PDF-1.7 and then nothing")
    (folder / "invisible.txt").write_text("\u200b\u200b", encoding="utf-8")
    (folder / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    first = index.ingest(folder)
    assert first.new == 3
    assert first.skipped == 1
    names = sorted(failure.doc_id for failure in first.failures)
    assert names == ["docs/broken.pdf", "docs/empty.txt", "docs/invisible.txt"]
    assert [failure.doc_id for failure in index.status().failed] == names
    assert index.status().documents == 3

    again = index.ingest(folder)
    assert sorted(failure.doc_id for failure in again.failures) == names, "told again, until it is mended"
    assert (again.new, again.unchanged, again.chunks) == (0, 3, 0)
    (folder / "empty.txt").write_text("no longer empty", encoding="utf-8")
    assert index.ingest(folder).new == 1
    assert len(index.status().failed) == 2


def test_a_document_that_cannot_be_read_any_more_keeps_its_chunks(index: Index, folder: Path) -> None:
    index.ingest(folder)
    before = everything(index)
    (folder / "one.txt").write_bytes(b"\xff\xfe\x00\x00\x81 broken \x00\x00\x01\x02")
    report = index.ingest(folder)
    assert [failure.doc_id for failure in report.failures] == ["docs/one.txt"]
    after = everything(index)
    assert [chunk.chunk_id for chunk in after["docs/one.txt"]] == [chunk.chunk_id for chunk in before["docs/one.txt"]]
    (record,) = index.store.records(["docs/one.txt"])
    assert record.status == "failed"
    assert record.error
    assert "docs/one.txt" in {hit.doc_id for hit in index.search("one clause 3", k=3)}


def test_a_document_whose_file_is_gone_stays(index: Index, folder: Path) -> None:
    index.ingest(folder)
    (folder / "one.txt").unlink()
    index.ingest(folder)
    assert len(everything(index)) == 3


def test_a_dry_run_writes_nothing_and_says_what_would_be_done(index: Index, folder: Path) -> None:
    plan = index.ingest(folder, dry_run=True)
    assert (plan.new, plan.chunks, plan.dry_run) == (3, 0, True)
    assert index.spec is None


def test_other_settings_are_refused_with_the_fields(index: Index, folder: Path, tmp_path: Path) -> None:
    index.ingest(folder)
    index.close()
    store = "lancedb" if "lancedb" in index.store.location else "qdrant"
    with Index.open("test", store=store, path=tmp_path / "db", chunk_size=64, method="independent") as other:
        with pytest.raises(MismatchError, match="chunk_size: index 128, asked for 64") as error:
            other.ingest(folder)
        assert "method: index 'late', asked for 'independent'" in str(error.value)
    with Index.open("test", store=store, path=tmp_path / "db") as same:
        assert same.ingest(folder).unchanged == 3, "what is left out comes from the index"


def test_jsonl_documents_and_their_bad_lines(index: Index, tmp_path: Path) -> None:
    file = tmp_path / "more.jsonl"
    good = [{"doc_id": f"d{number}", "text": f"document {number}", "metadata": {"year": number}} for number in range(3)]
    lines = [json.dumps(line) for line in good]
    file.write_text("\n".join([*lines, '{"doc_id": "x"']), encoding="utf-8")
    report = index.ingest(file)
    assert report.new == 3
    assert [failure.doc_id for failure in report.failures] == ["more.jsonl#4"]
    assert [hit.doc_id for hit in index.search("document", where={"year": 2})] == ["d2"]
    assert {hit.doc_id for hit in index.search("document", where=["year>=1"])} == {"d1", "d2"}

    file.write_text("\n".join(lines), encoding="utf-8")
    assert index.ingest(file).unchanged == 3
    assert index.status().failed == (), "the bad line is gone, and so is its failure"


def test_one_id_from_two_sources_is_refused(index: Index, folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere" / "docs"
    other.mkdir(parents=True)
    (other / "one.txt").write_text("another one", encoding="utf-8")
    with pytest.raises(UsageError, match=r"docs/one\.txt"):
        index.ingest(folder, other)
    assert index.spec is None


def test_failures_can_be_tried_again(index: Index, folder: Path) -> None:
    (folder / "empty.txt").write_bytes(b"")
    index.ingest(folder)
    again = index.ingest(folder, retry_failed=True)
    assert [type(failure) for failure in again.failures] == [FailedDocument]


def test_globs_may_be_a_single_string(index: Index, folder: Path) -> None:
    (folder / "note.md").write_text("# A note", encoding="utf-8")
    assert index.ingest(folder, include="*.md").new == 1
    assert index.ingest(folder, exclude="one.*").new == 2


def test_binary_data_of_no_known_kind_is_remembered(
    index: Index, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "blob.dat").write_bytes(np.random.default_rng(1).bytes(20_000))
    first = index.ingest(folder)
    assert (first.new, first.skipped, first.failures) == (3, 1, ())

    def nothing(*_: object) -> None:
        raise AssertionError("nothing has changed")

    monkeypatch.setattr(index._tools, "of", nothing)
    monkeypatch.setattr(index.store, "put_records", nothing)
    again = index.ingest(folder)
    assert (again.new, again.unchanged, again.skipped) == (0, 3, 1)
    assert index.status().documents == 3


def test_other_bytes_of_the_same_text_are_not_encoded_again(index: Index, folder: Path) -> None:
    index.ingest(folder)
    (before,) = index.store.records(["docs/one.txt"])
    file = folder / "one.txt"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    report = index.ingest(folder)
    assert (report.changed, report.unchanged, report.chunks) == (0, 3, 0)
    (after,) = index.store.records(["docs/one.txt"])
    assert after.revision == before.revision
    assert after.source_hash != before.source_hash
    assert index.ingest(folder).unchanged == 3


def test_a_document_whose_file_is_no_text_any_more_keeps_its_chunks_and_says_so(index: Index, folder: Path) -> None:
    index.ingest(folder)
    (folder / "one.txt").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    report = index.ingest(folder)
    assert [failure.doc_id for failure in report.failures] == ["docs/one.txt"]
    assert "no document any more" in index.status().failed[0].reason
    assert index.chunks("docs/one.txt")


def test_two_runs_at_once_are_one_and_a_refusal(index: Index, folder: Path, tmp_path: Path) -> None:
    index.ingest(folder)
    store = "lancedb" if "lancedb" in index.store.location else "qdrant"
    (folder / "one.txt").write_text("changed", encoding="utf-8")
    with (
        index.store.writing(),
        pytest.raises(StoreError, match="another"),
        Index.open("test", store=store, path=tmp_path / "db", device="cpu") as other,
    ):
        other.ingest(folder)
    assert index.ingest(folder).changed == 1


def test_settings_are_checked_for_their_type(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--chunk-size: .* must be a whole number"):
        Index.open("test", path=tmp_path, chunk_size="many")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="http://localhost:6333"):
        Index.open("test", store="qdrant", url="localhost:6333")
    with pytest.raises(ConfigError, match="__"):
        Index.open("test__docs", path=tmp_path)
    with pytest.raises(StoreError, match="--store qdrant"):
        Index.open("test", url="http://localhost:6333")


def test_a_query_without_a_word_is_refused(index: Index, folder: Path) -> None:
    index.ingest(folder)
    for query in ("", "  ", "\u200b"):
        with pytest.raises(UsageError, match="query"):
            index.search(query)
