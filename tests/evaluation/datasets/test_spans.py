from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest

from ctxindex.evaluation import GoldSpan, cut
from ctxindex.evaluation.dataset import DatasetError
from ctxindex.evaluation.datasets import open_dataset
from tests.evaluation.datasets.files import TEXT, asked, document, write_jsonl, write_spans


def test_several_rows_of_a_query_are_several_spans_in_any_documents(tmp_path: Path) -> None:
    queries = [
        asked("q"),
        asked("other", 0, 3),
        asked("q", 31, 39, doc_id="b"),
        asked("q"),  # said twice, counts once
    ]
    dataset = open_dataset(str(write_spans(tmp_path / "set", [document(), document("b")], queries)))
    assert dataset.name == "set"
    assert dataset.level == "chunk"
    assert [query.query_id for query in dataset.queries] == ["q", "other"]
    assert dataset.queries[0].spans == (GoldSpan("a", 12, 27), GoldSpan("b", 31, 39))
    assert dataset.units is None


@pytest.mark.parametrize("text", ["a\r\nb", " \ufeffx", "e\u0301", "🙂 b", "\x00 z", "tab\tand\u2028more", "x\n"])
def test_texts_stay_as_they_are(tmp_path: Path, text: str) -> None:
    queries = [asked(start=len(text) - 1, end=len(text))]
    dataset = open_dataset(str(write_spans(tmp_path, [document(text=text)], queries)))
    assert dataset.documents[0].text == text


def test_titles_and_metadata_are_kept_and_numbers_are_names(tmp_path: Path) -> None:
    documents = [document(title=" A\n title "), {"doc_id": 7, "text": "b", "metadata": {"year": 3}, "licence": "MIT"}]
    dataset = open_dataset(str(write_spans(tmp_path, documents, [asked(), asked("r", 0, 1, doc_id=7)])))
    assert [one.title for one in dataset.documents] == ["A title", None]
    assert dataset.documents[1].doc_id == "7"
    assert dataset.documents[1].metadata == {"year": 3}
    assert dataset.queries[1].doc_ids == {"7"}


def test_packed_files_and_the_folder_one_is_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_jsonl(tmp_path / "documents.jsonl.gz", [document()])
    write_jsonl(tmp_path / "queries.jsonl.gz", [asked()])
    monkeypatch.chdir(tmp_path)
    assert open_dataset(".").name == tmp_path.name


def test_a_set_of_whole_documents(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"query_id": "q", "query": "Which?", "doc_id": "a"},
        {"query_id": "q", "query": "Which?", "doc_id": "b", "grade": 2},
        {"query_id": "r", "query": "What?", "doc_id": "b", "relevance": 3},
    ]
    dataset = open_dataset(str(write_spans(tmp_path, [document(), document("b")], rows)))
    assert dataset.level == "document"
    assert [dict(query.grades) for query in dataset.queries] == [{"a": 1, "b": 2}, {"b": 3}]


def test_paragraphs_are_units(tmp_path: Path) -> None:
    queries = [asked(paragraph=1), asked("r", 31, 34, paragraph=3)]
    dataset = open_dataset(str(write_spans(tmp_path, queries=queries)))
    assert dataset.units == {"a": ((0, 10), (12, 27), (31, 39))}  # the empty one counts, and is no chunk
    assert not dataset.given
    assert cut(dataset, None).gold == ({1: 1}, {2: 1})


def test_sections_are_units_and_so_is_what_stands_between_them(tmp_path: Path) -> None:
    queries = [asked("q", 31, 39, section=2), asked("r", 31, 39, section=2), asked("s", 4, 9, section=0)]
    dataset = open_dataset(str(write_spans(tmp_path, [document(), document("b", " x ")], queries)))
    assert dataset.units == {"a": ((0, 3), (4, 9), (9, 27), (31, 39)), "b": ((1, 2),)}


def test_chunks_of_the_documents_are_units(tmp_path: Path) -> None:
    documents = [document(chunks=[[0, 10], [5, 27], [31, 39]])]
    dataset = open_dataset(str(write_spans(tmp_path, documents, [asked(paragraph=1)])))
    assert dataset.units == {"a": ((0, 10), (5, 27), (31, 39))}
    assert dataset.given


@pytest.mark.parametrize(
    ("queries", "reason"),
    [
        ([asked(paragraph=0)], r"line 1: the span \[12, 27\) is not within paragraph 0 of 'a', which is \[0, 10\)"),
        ([asked(), asked("r", paragraph=4)], r"line 2: names paragraph 4 of 'a', which has 4 of them, from 0"),
        ([asked(paragraph=-1)], "names paragraph -1"),
        ([asked(paragraph="1")], '"paragraph" is a string, not a number'),
        ([asked(paragraph=True)], '"paragraph" is true or false, not a number'),
        ([asked(section=1.5)], '"section" is not whole'),
        ([asked(section=1), asked("r", 0, 14, section=0)], "two sections of 'a' overlap at character 12"),
        ([asked(section=1), asked("r", 0, 9, section=1)], r"line 2: section 1 of 'a' is \[0, 9\), in an earlier row"),
    ],
)
def test_units_that_make_no_sense_are_an_error_only_to_who_asks_for_them(
    tmp_path: Path, queries: list[Any], reason: str
) -> None:
    dataset = open_dataset(str(write_spans(tmp_path, queries=queries)))
    assert dataset.units is None
    with pytest.raises(DatasetError, match=f"no chunks of its own .*{reason}"):
        cut(dataset, None)


@pytest.mark.parametrize(
    ("queries", "reason"),
    [
        ([asked(), asked(query="Another?")], "line 2: the query 'q' has another text"),
        ([asked(), {**asked("r"), "start": None, "end": None}], 'line 2: has no "start", unlike the rows before'),
        ([{**asked(), "start": None}], 'line 1: has no "start"'),
        ([asked(end=None)], 'line 1: has no "end"'),
        ([asked(end=40)], r"queries\.jsonl, line 1: has the span \[12, 40\), outside of the 39 characters of 'a'"),
        ([asked(), asked(start=27)], r"line 2: has the span \[27, 27\), which is empty"),
        ([asked(), asked(start=28)], r"line 2: has the span \[28, 27\), which ends before it begins"),
        ([asked(start=-1)], "outside of"),
        ([asked(doc_id="z")], "queries.jsonl, line 1: is about the document 'z', which the set does not have"),
        ([asked(query=" ")], "line 1: asks nothing"),
        ([asked(query=3)], 'line 1: "query" is a number, not a string'),
        (["", '{"query_id": "q"}'], 'line 2: has no "query"'),
        ([asked(), "{"], "queries.jsonl, line 2: broken JSON at character 1"),
        ([asked(), "[1]"], "line 2: not a JSON object"),
        (['{"query_id": NaN}'], "line 1: unusable JSON: NaN is not JSON"),
        ([asked(start=float("inf"))], "Infinity is not JSON"),
        (['{"query_id": "q", "query": "\\ud800"}'], r'line 1: "query" holds a lone surrogate \(\\ud800\)'),
        (['{"query_id": " ", "query": "q"}'], 'line 1: "query_id" is empty'),
        (["\ud800"], "broken UTF-8"),
        ([], "there are no queries"),
        ([{"query_id": "q", "query": "Q?", "doc_id": "a", "grade": 0}], "line 1: has no relevant document"),
        ([{"query_id": "q", "query": "Q?", "doc_id": "a", "grade": -1}], '"grade" is -1: grades begin at 0'),
        (2 * [{"query_id": "q", "query": "Q?", "doc_id": "a"}] + [asked("r")], "line 3: has a"),
    ],
)
def test_queries_that_make_no_sense(tmp_path: Path, queries: list[Any], reason: str) -> None:
    with pytest.raises(DatasetError, match=reason):
        open_dataset(str(write_spans(tmp_path, queries=queries)))


@pytest.mark.parametrize(
    ("documents", "reason"),
    [
        ([document(), '{"text": "b"}'], 'documents.jsonl, line 2: has no "doc_id"'),
        (['{"doc_id": "b"}'], 'line 1: has no "text"'),
        ([document(text=3)], '"text" is a number'),
        (['{"doc_id": "a", "text": "\\udc00"}'], "line 1: .*lone surrogate"),
        ([document(), document()], "the doc_id 'a' occurs twice"),
        ([document(chunks=3)], '"chunks" is no list'),
        ([document(chunks=[])], '"chunks" is empty'),
        ([document(chunks=[[0]])], r'"chunks" has \[0\]: each chunk is \[start, end\]'),
        ([document(chunks=[[0, True]])], '"chunks" has'),
        ([document(chunks=[[0, 40]])], r"has \[0, 40\], outside of the 39 characters"),
        ([document(chunks=[[12, 27], [0, 10]])], "not in the order of the text"),
        ([document(chunks=[[0, 39]]), document("b")], "the document 'b' has no \"chunks\", others have"),
        ([], "there are no documents"),
    ],
)
def test_documents_that_make_no_sense(tmp_path: Path, documents: list[Any], reason: str) -> None:
    with pytest.raises(DatasetError, match=reason):
        open_dataset(str(write_spans(tmp_path, documents)))


@pytest.mark.parametrize(
    "data",
    [
        gzip.compress(b'{"doc_id": "a", "text": "t"}\n' * 50)[:-9],
        gzip.compress(b"{}\n")[:12] + b"?" * 30,
        b"no gzip",
    ],
    ids=["cut", "damaged", "none"],
)
def test_broken_gzip(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "documents.jsonl.gz").write_bytes(data)
    write_jsonl(tmp_path / "queries.jsonl", [asked()])
    with pytest.raises(DatasetError, match=r"documents.jsonl.gz: broken gzip file"):
        open_dataset(str(tmp_path))


def test_squad_in_paragraphs(shared_data: Path) -> None:
    dataset = open_dataset(str(shared_data / "squad-eval"))
    assert (dataset.name, len(dataset.documents), len(dataset.queries)) == ("squad-eval", 16, 2906)
    corpus = cut(dataset, None)
    assert corpus.n_chunks == 646
    assert all(len(gold) == 1 for gold in corpus.gold)


def test_health_pages_in_sections(shared_data: Path) -> None:
    dataset = open_dataset(str(shared_data / "medquad-eval-masked"))
    assert (len(dataset.documents), len(dataset.queries)) == (191, 955)
    corpus = cut(dataset, None)
    assert corpus.n_chunks == 955
    for query, gold in zip(corpus.queries, corpus.gold, strict=True):
        ((document, chunk),) = [corpus.chunk(number) for number in gold]
        assert query.spans == (GoldSpan(document.doc_id, chunk.start, chunk.end),)


def test_contracts_have_several_spans_and_no_units(contracts: Path) -> None:
    dataset = open_dataset(str(contracts))
    assert sum(len(query.spans) for query in dataset.queries) == 744
    assert len(dataset.queries) == 461
    assert dataset.units is None


def test_the_paragraphs_of_the_sample() -> None:
    assert [TEXT[start:end] for start, end in [(0, 10), (12, 27), (29, 29), (31, 39)]] == TEXT.split("\n\n")
