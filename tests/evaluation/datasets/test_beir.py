from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

import pytest

from ctxindex.evaluation import cut
from ctxindex.evaluation.dataset import DatasetError
from ctxindex.evaluation.datasets import open_dataset
from tests.evaluation.datasets.files import Values, write_jsonl

CORPUS: list[Values] = [
    {"_id": "1", "title": "One", "text": "The first."},
    {"_id": "2", "title": "", "text": "The second.", "metadata": {"url": "x"}},
    {"_id": "3", "title": "Only a title", "text": ""},
    {"_id": "4", "title": "", "text": " "},
]
QUERIES: list[Values] = [
    {"_id": "q1", "text": "Which?"},
    {"_id": "q2", "text": "What?"},
    {"_id": "q3", "text": "Never asked?"},
]
HEADER = "query-id\tcorpus-id\tscore\n"
QRELS = HEADER + "q1\t1\t2\nq1\t2\t1\nq1\t3\t0\n\nq2\t4\t1\nq3\t1\t0\nq3\t2\t-1\n"


def write_beir(
    folder: Path,
    corpus: Iterable[Values | str] = CORPUS,
    queries: Iterable[Values | str] = QUERIES,
    **qrels: str,
) -> Path:
    write_jsonl(folder / "corpus.jsonl", corpus)
    write_jsonl(folder / "queries.jsonl.gz", queries)
    (folder / "qrels").mkdir()
    for split, text in (qrels or {"test": QRELS}).items():
        (folder / "qrels" / f"{split}.tsv").write_bytes(text.encode("utf-8", "surrogateescape"))
    return folder


def test_a_folder(tmp_path: Path) -> None:
    dataset = open_dataset(str(write_beir(tmp_path / "scifact", test=QRELS, train="not read")))
    assert (dataset.name, dataset.level, dataset.given) == ("scifact", "document", False)
    assert [(one.title, one.text) for one in dataset.documents] == [
        ("One", "The first."),
        (None, "The second."),
        (None, "Only a title"),
        (None, " "),
    ]
    assert {query.query_id: dict(query.grades) for query in dataset.queries} == {"q1": {"1": 2, "2": 1}, "q2": {"4": 1}}
    assert dataset.units is not None
    assert dataset.units["1"] == ((0, 10),)


def test_a_document_without_text_is_left_out_of_the_ranking_and_what_it_answers_is_not_answered(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "ctxindex"):
        corpus = cut(open_dataset(str(write_beir(tmp_path / "set"))), None)
    assert corpus.document_names == ("1", "2", "3")
    assert corpus.gold == ({0: 2, 1: 1}, {})
    assert "set: 1 documents left out (4: has no chunks)" in caplog.text


@pytest.mark.parametrize("given", [("dev", "train"), ("validation", "train"), ("train",)])
def test_other_splits(tmp_path: Path, given: tuple[str, ...]) -> None:
    splits = {split: HEADER + f"q{number}\t1\t1\n" for number, split in enumerate(given, start=1)}
    assert [query.query_id for query in open_dataset(str(write_beir(tmp_path, **splits))).queries] == ["q1"]


def test_judgments_about_what_is_not_there_are_dropped_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    qrels = "q1\t1\t1\r\nq1\tx\t1\nq2\ty\t1\nz\t1\t1\n"  # no header, as some sets have it
    with caplog.at_level(logging.WARNING, "ctxindex"):
        dataset = open_dataset(str(write_beir(tmp_path, test=qrels)))
    assert [(query.query_id, dict(query.grades)) for query in dataset.queries] == [("q1", {"1": 1})]
    assert "test.tsv: 2 judgments about documents that the set does not have were dropped" in caplog.text
    assert "test.tsv: 1 judgments about queries that the set does not have were dropped" in caplog.text


@pytest.mark.parametrize(
    ("qrels", "reason"),
    [
        (HEADER + "q1\tx\t1\n", "no judgment is about queries and documents that the set has"),
        (HEADER + "q1\t1\t0\n", "no judgment is positive"),
        ("", "no judgment is positive"),
        (HEADER + "q1 1 1\n", r"test.tsv, line 2: expected query-id, corpus-id and score with tabs"),
        (HEADER + "q1\t1\t0.5\n", "line 2: the score is '0.5', not a whole number"),
        (HEADER + "q1\t1\tnan\n", "the score is 'nan'"),
        (HEADER + HEADER, "line 2: the score is 'score'"),
        (HEADER + "q1\t1\t1\nq1\t1\t2\n", "line 3: '1' has another score for 'q1'"),
        (HEADER + "q1\t\udcff\t1\n", "line 2: broken UTF-8 at byte 3"),
    ],
)
def test_judgments_that_make_no_sense(tmp_path: Path, qrels: str, reason: str) -> None:
    with pytest.raises(DatasetError, match=reason):
        open_dataset(str(write_beir(tmp_path, test=qrels)))


@pytest.mark.parametrize(
    ("corpus", "queries", "reason"),
    [
        ([*CORPUS, CORPUS[0]], QUERIES, "the doc_id '1' occurs twice"),
        ([{"_id": "1"}], QUERIES, r'corpus.jsonl, line 1: has no "text"'),
        ([{"text": "1"}], QUERIES, 'has no "_id"'),
        (["{"], QUERIES, "broken JSON"),
        (
            CORPUS,
            [*QUERIES, {"_id": "q1", "text": "Another?"}],
            r"queries.jsonl.gz, line 4: the query 'q1' has another",
        ),
        (CORPUS, [{"_id": "q1", "text": ""}], "query 'q1' asks nothing"),
    ],
)
def test_files_that_make_no_sense(
    tmp_path: Path, corpus: list[Values | str], queries: list[Values | str], reason: str
) -> None:
    with pytest.raises(DatasetError, match=reason):
        open_dataset(str(write_beir(tmp_path, corpus, queries)))


@pytest.mark.parametrize("name", ["queries.jsonl.gz", "qrels/test.tsv"])
def test_a_file_that_is_missing(tmp_path: Path, name: str) -> None:
    (write_beir(tmp_path) / name).unlink()
    with pytest.raises(DatasetError, match=f"but no {name.removesuffix('.gz')}"):
        open_dataset(str(tmp_path))
