from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ctxindex import Index, load_documents
from ctxindex.errors import IndexNotFoundError
from ctxindex.evaluation import GoldSpan, cut
from ctxindex.evaluation.dataset import DatasetError
from ctxindex.evaluation.datasets import open_dataset, open_index_questions, open_questions
from ctxindex.types import Document, DocumentRecord, FailedDocument, StoredChunk
from tests.evaluation.datasets.files import write_jsonl


def question(text: str = "What?", doc_id: str = "a", start: int = 0, end: int = 2) -> dict[str, Any]:
    return {"query": text, "doc_id": doc_id, "start": start, "end": end}


def test_the_bundled_questions(samples: Path) -> None:
    dataset = open_questions(samples / "questions.jsonl", load_documents(samples, include=["*.txt"]), "contracts")
    assert (len(dataset.documents), len(dataset.queries)) == (14, 20)
    assert dataset.units is None
    answer = dataset.queries[0].spans[0]
    assert answer.doc_id.startswith("contracts/cuad-LEGACY")


def test_a_folder_with_questions_in_it(samples: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "ctxindex"):
        dataset = open_dataset(str(samples), questions=str(samples / "questions.jsonl"))
    assert dataset.name == "contracts"
    assert len(dataset.documents) == 15  # with the README, as an ingest of the folder has it
    assert len(dataset.queries) == 20
    assert not caplog.text


def test_questions_are_left_out_whatever_they_are_called(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.md").write_text("# Title\n\ntext\n", encoding="utf-8")
    file = write_jsonl(tmp_path / "docs" / "in [a] *" / "q!? #1.jsonl", [question(doc_id="docs/a.md")])
    dataset = open_dataset(str(tmp_path / "docs"), questions=str(file))
    assert [document.doc_id for document in dataset.documents] == ["docs/a.md"]
    assert dataset.documents[0].sections[0].path == ("Title",)


def test_a_single_file(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text", encoding="utf-8")
    file = write_jsonl(tmp_path / "questions.jsonl", [question(doc_id="a.txt")])
    dataset = open_dataset(str(tmp_path / "a.txt"), questions=str(file))
    assert (dataset.name, len(dataset.documents)) == ("a.txt", 1)


def test_questions_without_a_name_have_their_line_s(tmp_path: Path) -> None:
    rows: list[Any] = ["", question("One?"), {**question("Two?"), "query_id": "two"}, question("One?", start=1)]
    dataset = open_questions(write_jsonl(tmp_path / "q.jsonl", rows), [Document("a", "text")], "x")
    assert [query.query_id for query in dataset.queries] == ["2", "two", "4"]


def test_a_sentence_that_a_question_was_made_of_is_cut_out(tmp_path: Path) -> None:
    text = "One is first. Two is told. Three is last."
    start, end = text.index("Two"), text.index("Three")
    rows = [
        {**question("told Two", end=len(text)), "remove": [start, end]},
        question("last?", start=end, end=len(text)),
    ]
    dataset = open_questions(write_jsonl(tmp_path / "q.jsonl", rows), [Document("a", text)], "x")
    (document,) = dataset.documents
    assert document.text == "One is first. Three is last."
    assert [document.text[span.start : span.end] for query in dataset.queries for span in query.spans] == [
        "One is first. Three is last.",
        "Three is last.",
    ]
    whole = write_jsonl(tmp_path / "whole.jsonl", [{"query": "a?", "doc_id": "a", "remove": [start, end]}])
    assert len(open_questions(whole, [Document("a", text)], "x").queries) == 1, "it asks for a document"
    gone = write_jsonl(tmp_path / "gone.jsonl", [{**question(end=3), "remove": [0, 3]}])
    with pytest.raises(DatasetError, match="all that answers its questions is to be removed"):
        open_questions(gone, [Document("a", text)], "x")
    wrong = write_jsonl(tmp_path / "wrong.jsonl", [{**question(), "remove": [0, 99]}])
    with pytest.raises(DatasetError, match=r'"remove" is outside of the 4 characters'):
        open_questions(wrong, [Document("a", "text")], "x")


def test_an_index_holds_what_a_question_was_made_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store: Any = FakeStore(stored(0, "abc"))
    file = write_jsonl(tmp_path / "q.jsonl", [{**question(), "remove": [0, 1]}, question()])
    with caplog.at_level(logging.WARNING, "ctxindex"):
        dataset, _ = open_index_questions(file, store, "fake")
    assert dataset.documents[0].text == "abc"
    assert "fake: sentences that questions were made of and that are to be removed: 1." in caplog.text


def test_documents_that_failed_are_named_and_asked_about(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "q.jsonl", [question(), {**question(), "doc_id": "b"}])
    dataset = open_questions(file, [Document("a", "text"), FailedDocument("b", "is empty")], "set")
    assert (len(dataset.documents), len(dataset.queries)) == (1, 2)
    assert dataset.unreadable == {"b": "is empty"}


def test_questions_that_cannot_be_asked(tmp_path: Path, samples: Path) -> None:
    with pytest.raises(DatasetError, match="no file or folder '/missing' to ask the questions"):
        open_dataset("/missing", questions="q.jsonl")
    with pytest.raises(DatasetError, match=r"q\.jsonl: there is no such file"):
        open_dataset(str(samples), questions=str(tmp_path / "q.jsonl"))
    file = write_jsonl(tmp_path / "q.jsonl", [question(doc_id="elsewhere")])
    with pytest.raises(
        DatasetError, match=r"q\.jsonl, line 1: is about the document 'elsewhere', which the set does not have"
    ):
        open_dataset(str(samples), questions=str(file))


@pytest.fixture
def two(samples: Path, tmp_path: Path) -> Path:
    """A folder of two contracts and a page with headings."""
    folder = tmp_path / "contracts"
    folder.mkdir()
    for name in sorted(path.name for path in samples.glob("cuad-[LS]*.txt"))[:2]:
        (folder / name).write_bytes((samples / name).read_bytes())
    page = "# Fees\n\nFive euros a day.\n\n## Late fees\n\nTen euros.\n\n# Terms\n\n- one day\n- two days\n"
    (folder / "page.md").write_text(page, encoding="utf-8")
    return folder


@pytest.mark.parametrize("store", ["lancedb", "qdrant"])
@pytest.mark.parametrize("overlap", [0, 24])
def test_an_index(store: str, overlap: int, two: Path, samples: Path, tmp_path: Path) -> None:
    ids = {f"contracts/{path.name}" for path in two.iterdir()}
    rows = (samples / "questions.jsonl").read_text(encoding="utf-8").splitlines()
    file = write_jsonl(tmp_path / "q.jsonl", [row for row in rows if any(f'"{doc_id}"' in row for doc_id in ids)])
    with Index.open("i", store=store, path=tmp_path / "db", chunk_overlap=overlap, device="cpu") as index:
        (two / "empty.txt").write_bytes(b"")
        report = index.ingest(two)
        assert (report.new, len(report.failures)) == (3, 1)
        dataset, vectors = open_index_questions(file, index.store, "i")
        stored = {document.doc_id: index.chunks(document.doc_id, vectors=True) for document in dataset.documents}
    assert (dataset.name, dataset.given) == ("i", True)
    assert set(stored) == ids
    loaded = {one.doc_id: one for one in load_documents(two) if isinstance(one, Document)}
    for document, own in zip(dataset.documents, vectors.vectors, strict=True):
        source = loaded[document.doc_id]
        assert document.text.split() == source.text.split()
        assert (document.title, document.metadata) == (source.title, source.metadata)
        for chunk, vector in zip(stored[document.doc_id], own, strict=True):
            assert document.text[chunk.start : chunk.end] == chunk.text == source.text[chunk.start : chunk.end]
            assert chunk.vector is not None
            np.testing.assert_array_equal(vector, chunk.vector)
    assert vectors.lengths is None
    assert {one.dtype for one in vectors.vectors} == {np.dtype(np.float32)}
    corpus = cut(dataset, None)
    assert corpus.n_chunks == sum(len(own) for own in vectors.vectors)
    assert all(corpus.gold)
    headings = [chunk.metadata.get("headings") for one in corpus.documents for chunk in one.chunks]
    assert headings == [chunk.metadata.get("headings") for chunks in stored.values() for chunk in chunks]


class FakeStore:
    """What is read of a store."""

    def __init__(self, *chunks: StoredChunk) -> None:
        self.held = chunks

    def records(self) -> Iterator[DocumentRecord]:
        for doc_id in ("gone", *dict.fromkeys(chunk.doc_id for chunk in self.held)):
            yield DocumentRecord(doc_id, "" if doc_id == "gone" else "r", "h", 1, 1)

    def chunks(self, doc_id: str, *, vectors: bool = False) -> list[StoredChunk]:
        assert vectors
        return [chunk for chunk in self.held if chunk.doc_id == doc_id]


def stored(start: int, text: str, vector: Any = (1.0, 0.0), doc_id: str = "a") -> StoredChunk:
    made = StoredChunk("id", doc_id, "r", 0, start, start + len(text), text, None, {}, 0, 0)
    return replace(made, vector=np.asarray(vector, np.float32))


def ask_fake(tmp_path: Path, *chunks: StoredChunk) -> Any:
    store: Any = FakeStore(*chunks)
    return open_index_questions(write_jsonl(tmp_path / "q.jsonl", [question()]), store, "fake")


def test_chunks_that_overlap_and_gaps(tmp_path: Path) -> None:
    chunks = (
        stored(1, "abc"),
        stored(3, "cde"),
        stored(4, "d"),
        stored(8, "fg"),
        stored(10, "  "),
        stored(0, "x", doc_id="0"),
    )
    dataset, vectors = ask_fake(tmp_path, *chunks)
    assert [document.text for document in dataset.documents] == ["x", " abcde  fg"]
    assert dataset.units == {"0": ((0, 1),), "a": ((1, 4), (3, 6), (4, 5), (8, 10))}
    assert [one.shape for one in vectors.vectors] == [(1, 2), (4, 2)]


def test_answers_in_an_index_are_found_by_their_words(tmp_path: Path) -> None:
    store: Any = FakeStore(stored(0, "New words."), stored(12, "The fee is"), stored(24, "five euros."))
    rows = [{**question(start=0, end=22), "evidence": "The fee is\nfive euros."}]
    dataset, _ = open_index_questions(write_jsonl(tmp_path / "q.jsonl", rows), store, "fake")
    assert dataset.queries[0].spans == (GoldSpan("a", 12, 35),)


def test_multivectors(tmp_path: Path) -> None:
    chunks = stored(0, "ab", [[1, 0], [0, 1]]), stored(3, "c", [[0, 1]]), stored(0, "x", [[1, 0]], "b")
    dataset, vectors = ask_fake(tmp_path, *chunks)
    assert [document.doc_id for document in dataset.documents] == ["a", "b"]
    assert vectors.lengths == ((2, 1), (1,))
    np.testing.assert_array_equal(vectors.vectors[0], [[1, 0], [0, 1], [0, 1]])
    assert dataset.queries[0].spans == (GoldSpan("a", 0, 2),)


@pytest.mark.parametrize(
    "second", [stored(1, "xyz"), replace(stored(3, "xyz"), end=5)], ids=["contradiction", "length"]
)
def test_chunks_that_cannot_be_of_one_text(tmp_path: Path, second: StoredChunk) -> None:
    with pytest.raises(DatasetError, match=r"of 'a' does not fit the others"):
        ask_fake(tmp_path, stored(0, "abc"), second)


def test_no_index(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "q.jsonl", [question()])
    with Index.open("i", path=tmp_path / "db") as index, pytest.raises(IndexNotFoundError):
        open_index_questions(file, index.store, "i")
