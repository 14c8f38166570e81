"""Answers found again where the documents of a file of questions have changed."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from ctxindex.evaluation.dataset import Dataset, DatasetError, GoldSpan
from ctxindex.evaluation.datasets import open_questions
from ctxindex.evaluation.datasets.evidence import around, found_again
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


@pytest.mark.parametrize(
    ("evidence", "changed"),
    [
        ("rent of 100", "rent of 1000 euros"),
        ("rent of 100", "rent of 100,000 euros"),
        ("rent of 100", "rent of 100.50 euros"),
        ("12 months", "after 112 months"),
        ("12 months", "after 2.12 months"),
        ("The plan is legal", "The plan is legally void"),
        ("The plan is legal", "The plan is legal_ly void"),
        ("the cafe", "the cafe\u0301 is open"),
        ("It costs 5.", "It costs 5.7 euros."),
    ],
)
def test_words_and_numbers_are_whole(evidence: str, changed: str, tmp_path: Path) -> None:
    for text in (changed, f"They say: {changed}"):
        with pytest.raises(DatasetError, match="make the pairs again"):
            asked(tmp_path, [row(evidence)], text)
    # What is only part of a word does not count as a second place either.
    assert answers(asked(tmp_path, [row(evidence)], f"{changed}. Or: {evidence} (once).")) == [evidence]


@pytest.mark.parametrize("evidence", ["the fee", "100", "(100)", "5.", "東京", "서울"])
def test_marks_and_scripts_without_blanks_end_no_word(evidence: str, tmp_path: Path) -> None:
    before, after = {"東京": ("我住在", "很久了"), "서울": ("", "에 산다")}.get(evidence, ("“", "”, they say, 7."))
    text = f"{before}{evidence}{after}"
    for start in (len(before), 0):
        assert answers(asked(tmp_path, [row(evidence, start)], text)) == [evidence]


@pytest.mark.parametrize(
    ("text", "span", "rest"),
    [
        ("A rent of 1000 euros", (2, 13), ("", "0")),
        ("A rent of 1,000.50 euros", (12, 18), ("1,", "")),
        ("The unlawful plan", (6, 9), ("un", "ful")),
        ("The plan", (0, 8), ("", "")),
        ("The plan. It", (4, 9), ("", "")),
    ],
)
def test_a_span_may_cut_words_that_are_said_with_it(
    text: str, span: tuple[int, int], rest: tuple[str, str], tmp_path: Path, log: pytest.LogCaptureFixture
) -> None:
    assert around(text, *span) == rest
    cut = text[slice(*span)]
    rows = [row(cut, span[0], around=list(rest)), row("They say", 30)]
    assert answers(asked(tmp_path, rows[:1], text)) == [cut]
    assert not log.text
    moved = asked(tmp_path, rows, f"They say: {text.replace(' ', '  ')}.").queries[0].spans[0]
    assert moved.start == len("They say: ") + len(text[: span[0]].replace(" ", "  "))
    assert moved.end - moved.start == len(cut.replace(" ", "  "))
    if any(rest):
        with pytest.raises(DatasetError, match="make the pairs again"):
            asked(tmp_path, rows[:1], text.replace(f"{rest[0]}{cut}{rest[1]}", f"{rest[0]}{cut}{rest[1]}ly"))


@pytest.mark.parametrize("wrong", ["x", ["x"], [1, 2], {"a": "b"}])
def test_words_that_are_cut_are_said_in_two_texts(wrong: Any, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r'q\.jsonl, line 1: "around" is .*, and no \[text before the span'):
        asked(tmp_path, [row(around=wrong)], TEXT)


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
