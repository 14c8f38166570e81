"""Answers found again where the documents of a file of questions have changed."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from ctxindex.evaluation.dataset import Dataset, DatasetError, GoldSpan
from ctxindex.evaluation.datasets import open_questions
from ctxindex.evaluation.datasets.evidence import found_again
from ctxindex.evaluation.datasets.rows import Row
from ctxindex.types import Document
from tests.evaluation.datasets.files import write_jsonl

TEXT = "The fee is five euros a day.\n\nIt is due on Monday."
FEE, DUE = TEXT.split("\n\n")


def row(evidence: Any = FEE, start: int = 0, **more: Any) -> dict[str, Any]:
    end = start + len(str(evidence))
    return {"query": f"What is it, {start}?", "doc_id": "a", "start": start, "end": end, "evidence": evidence, **more}


def asked(folder: Path, rows: list[dict[str, Any]], text: str) -> Dataset:
    return open_questions(write_jsonl(folder / "q.jsonl", rows), [Document("a", text)], "set")


def answers(dataset: Dataset) -> list[str]:
    text = dataset.documents[0].text
    return [text[span.start : span.end] for query in dataset.queries for span in query.spans]


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.WARNING, "ctxindex")
    return caplog


def test_an_answer_goes_where_its_words_went(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    rows = [row(), row(DUE, TEXT.index(DUE))]
    assert answers(asked(tmp_path, rows, TEXT)) == [FEE, DUE]
    assert not log.text
    changed = f"A new paragraph.\n\n{FEE}\n\nAnother one.\n\n{DUE}"
    assert answers(asked(tmp_path, rows, changed)) == [FEE, DUE]
    (record,) = log.records
    assert f"{tmp_path / 'q.jsonl'}: 2 answers have moved" in record.getMessage()
    assert "left out" not in record.getMessage()


def test_what_is_gone_or_there_twice_is_left_out(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    rows = [row(), row(DUE, TEXT.index(DUE)), row("are", 9)]
    changed = f"The fee is six euros.\n\n{DUE}\n\nThey are what they are."
    assert answers(asked(tmp_path, rows, changed)) == [DUE]
    (record,) = log.records
    assert "1 answer has moved" in record.getMessage()
    assert "2 left out: their documents say something else now; make the pairs again" in record.getMessage()


def test_nothing_left_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"q\.jsonl: no answer stands in its document.* make the pairs again"):
        asked(tmp_path, [row(), row(DUE, 30)], "Another text altogether.")


def test_white_space_is_no_change(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    """An index holds no white space between chunks, so that of its documents is another."""
    assert answers(asked(tmp_path, [row(TEXT)], TEXT.replace("\n", " "))) == [TEXT.replace("\n", " ")]
    assert not log.text
    assert answers(asked(tmp_path, [row(TEXT)], f"First.\n{TEXT.replace(' ', '   ')}\n")) == [TEXT.replace(" ", "   ")]


def test_rows_without_evidence_stay_as_they_are(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    rows: list[dict[str, Any]] = [{"query": "Where?", "doc_id": "a", "start": 1, "end": 4}, row(["a list"], 0)]
    assert answers(asked(tmp_path, rows, TEXT))[0] == TEXT[1:4]
    assert not log.text
    elsewhere = Row({**row(), "doc_id": "b"}, "q.jsonl, line 1", 1)
    assert found_again([elsewhere], [Document("a", TEXT)], "q.jsonl") == [elsewhere]


@pytest.mark.parametrize(
    ("remove", "expected"),
    [([0, 28], FEE), ([30, 50], DUE), ([30, 37], "It is d"), ([0, 51], None), ([3], None), ("x", None)],
)
def test_what_is_removed_goes_with_its_answer(remove: Any, expected: str | None) -> None:
    rows = [Row(values, "q.jsonl, line 1", 1) for values in (row(TEXT, remove=remove), row("First."))]
    changed = f"First.\n\n{TEXT.replace(' ', '  ')}"
    found = found_again(rows, [Document("a", changed)], "q.jsonl")
    assert len(found) == (2 if expected else 1)
    if expected:
        start, end = found[0].values["remove"]
        assert changed[start:end].split() == expected.split()


def test_the_answers_of_one_query_are_told_apart(tmp_path: Path) -> None:
    rows = [row(query_id="q", query="What?"), row("gone", 3, query_id="q", query="What?")]
    dataset = asked(tmp_path, rows, f"1. {FEE}")
    assert dataset.queries[0].spans == (GoldSpan("a", 3, 3 + len(FEE)),)
