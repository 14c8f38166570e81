from __future__ import annotations

import logging
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from ctxindex.evaluation import Dataset, GoldSpan, cut
from ctxindex.evaluation.dataset import DatasetError
from ctxindex.evaluation.datasets import open_dataset
from tests.evaluation.datasets.files import write_jsonl

CHUNKS = [
    {"chunk_id": "my_doc_0", "chunk": "Zoë came.", "og_chunk": "Zoë came."},
    {"chunk_id": "my_doc_1", "chunk": "She left.", "og_chunk": "Zoë left."},
    {"chunk_id": "b_0", "chunk": "Other."},
]
QUERIES = [{"query": "Who left?", "chunk_id": "my_doc_1"}, {"query": "What else?", "chunk_id": "b_0"}]


def write_parquet(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.Table.from_pylist(list(rows)), path)


def write_conteb(
    folder: Path,
    chunks: Sequence[Mapping[str, Any]] = CHUNKS,
    queries: Sequence[Mapping[str, Any]] = QUERIES,
    *,
    split: str = "test",
) -> Path:
    write_parquet(folder / "documents" / f"{split}-00000-of-00001.parquet", chunks)
    write_parquet(folder / "queries" / f"{split}-00000-of-00001.parquet", queries)
    return folder


def require_samples(dataset: Dataset) -> None:
    assert [document.doc_id for document in dataset.documents] == ["my_doc", "b"]
    assert dataset.documents[0].text == "Zoë came.\n\nShe left."
    assert dataset.units == {"my_doc": ((0, 9), (11, 20)), "b": ((0, 6),)}
    assert dataset.given
    assert [query.spans for query in dataset.queries] == [(GoldSpan("my_doc", 11, 20),), (GoldSpan("b", 0, 6),)]
    corpus = cut(dataset, None)
    assert corpus.gold == ({1: 1}, {2: 1})
    assert corpus.chunk_names[1] == "my_doc_1"


def test_a_folder_as_the_hub_has_it(tmp_path: Path) -> None:
    dataset = open_dataset(str(write_conteb(tmp_path / "geography")))
    assert dataset.name == "geography"
    assert [query.query_id for query in dataset.queries] == ["1", "2"]
    require_samples(dataset)


@pytest.mark.parametrize(
    ("documents", "queries"),
    [
        ("documents/test.jsonl", "queries/test.jsonl.gz"),
        ("documents.jsonl.gz", "queries.jsonl"),
        ("data/documents-test-00000-of-00001.parquet", "data/queries-test-00000-of-00001.parquet"),
        ("data/documents/test-00000-of-00001.parquet", "data/queries/test-00000-of-00001.parquet"),
        ("documents/validation/0000.parquet", "queries/validation/0000.parquet"),
        ("documents/data/test.parquet", "queries_test.jsonl"),
        ("documents.parquet", "queries/test.parquet"),
    ],
)
def test_names_of_folders_and_files(tmp_path: Path, documents: str, queries: str) -> None:
    for name, rows in ((documents, CHUNKS), (queries, QUERIES)):
        if name.endswith(".parquet"):
            write_parquet(tmp_path / name, rows)
        else:
            write_jsonl(tmp_path / name, rows)
    require_samples(open_dataset(str(tmp_path)))


def test_the_split_test_comes_first_and_other_tables_and_copies_are_not_read(tmp_path: Path) -> None:
    write_conteb(tmp_path, CHUNKS[2:], QUERIES[1:], split="train")
    write_conteb(tmp_path)
    write_parquet(tmp_path / "queries_synthetic" / "test.parquet", QUERIES[:1])
    write_parquet(tmp_path / ".cache" / "documents" / "test.parquet", QUERIES[:1])
    write_jsonl(tmp_path / "documents" / "test.jsonl", CHUNKS)
    require_samples(open_dataset(str(tmp_path)))


def test_a_snapshot_in_the_cache_of_the_hub_is_made_of_links(tmp_path: Path) -> None:
    for table, rows in (("documents", CHUNKS), ("queries", QUERIES)):
        write_parquet(tmp_path / "blobs" / table, rows)
        link = tmp_path / ".cache" / "snapshots" / "0123abc" / table / "test-00000-of-00001.parquet"
        link.parent.mkdir(parents=True)
        link.symlink_to(tmp_path / "blobs" / table)
    require_samples(open_dataset(str(tmp_path / ".cache" / "snapshots" / "0123abc")))


def test_shards_are_read_in_order(tmp_path: Path) -> None:
    for number in range(2):
        write_parquet(tmp_path / "documents" / f"test-0000{number}-of-00002.parquet", CHUNKS[number::2])
        write_parquet(tmp_path / "queries" / f"test-0000{number}-of-00002.parquet", [QUERIES[number]])
    dataset = open_dataset(str(tmp_path))
    assert [query.query_id for query in dataset.queries] == ["1", "2"]
    assert dataset.documents[0].text == "Zoë came.\n\nShe left."


README = """---
license: mit
configs:
- config_name: queries
  data_files:
  - split: train
    path: q/train-*
  - split: test
    path: ["./q/test-*"]
- config_name: documents
  data_files: "d/*.parquet"
- broken
---
# A set
"""


def test_the_readme_says_where_the_tables_are(tmp_path: Path) -> None:
    write_parquet(tmp_path / "d" / "x.parquet", CHUNKS)
    write_parquet(tmp_path / "q" / "test-0.parquet", QUERIES)
    write_parquet(tmp_path / "q" / "train-0.parquet", QUERIES[:1])
    (tmp_path / "README.md").write_text(README, encoding="utf-8")
    require_samples(open_dataset(str(tmp_path)))


@pytest.mark.parametrize("text", ["# no front matter", "---\n[]\n---\n", "---\nconfigs: 3\n---", "---\n---\n", ""])
def test_a_readme_that_says_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "README.md").write_text(text, encoding="utf-8")
    require_samples(open_dataset(str(write_conteb(tmp_path))))


def test_a_readme_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("---\nconfigs: [\n---\n", encoding="utf-8")
    with pytest.raises(DatasetError, match=r"README\.md: the front matter can't be read"):
        open_dataset(str(write_conteb(tmp_path)))


def test_several_chunks_of_a_query_and_its_own_name(tmp_path: Path) -> None:
    queries = [
        {"query_id": "x", "query": "Who?", "chunk_ids": ["my_doc_0", "b_0"]},
        {"query_id": "y", "query": "Who?", "chunk_ids": ["my_doc_1"]},
    ]
    dataset = open_dataset(str(write_conteb(tmp_path, queries=queries)))
    assert [query.query_id for query in dataset.queries] == ["x", "y"]
    assert dataset.queries[0].spans == (GoldSpan("my_doc", 0, 9), GoldSpan("b", 0, 6))


def test_numbers_count_and_not_the_order_of_rows(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "ctxindex"):
        dataset = open_dataset(str(write_conteb(tmp_path / "set", [CHUNKS[1], CHUNKS[2], CHUNKS[0]])))
    require_samples(dataset)
    assert "set: the rows of 1 documents are not in the order" in caplog.text


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.text(st.sampled_from("a_0 1é\n"), min_size=1).filter(str.strip), min_size=1, max_size=4, unique=True),
    st.integers(1, 12),
    st.randoms(use_true_random=False),
)
def test_any_ids_with_underscores(doc_ids: list[str], n_chunks: int, chance: random.Random) -> None:
    chunks = [
        {"chunk_id": f"{doc_id}_{number}", "chunk": f"{doc_id}|{number}"}
        for doc_id in doc_ids
        for number in range(n_chunks)
    ]
    chance.shuffle(chunks)
    queries = [{"query": "q", "chunk_id": chunk["chunk_id"], "id": number} for number, chunk in enumerate(chunks)]
    with TemporaryDirectory() as folder:
        write_jsonl(Path(folder, "documents", "test.jsonl"), chunks)
        write_jsonl(Path(folder, "queries", "test.jsonl"), queries)
        dataset = open_dataset(folder)
    texts = {document.doc_id: document.text for document in dataset.documents}
    assert set(texts) == set(doc_ids)
    for query, chunk in zip(dataset.queries, chunks, strict=True):
        (span,) = query.spans
        assert texts[span.doc_id][span.start : span.end] == chunk["chunk"]
    corpus = cut(dataset, None)
    assert [corpus.chunk_names[number] for gold in corpus.gold for number in gold] == [
        one["chunk_id"] for one in chunks
    ]


@pytest.mark.parametrize(
    ("chunks", "queries", "reason"),
    [
        (CHUNKS, [{"query": "q", "chunk_id": "z_0"}], r"parquet, row 1: names the chunk 'z_0', which the set does not"),
        (CHUNKS, [{"query": "q", "chunk_ids": []}], '"chunk_ids" is empty'),
        (CHUNKS, [{"query": "q"}], 'row 1: has no "chunk_id"'),
        (CHUNKS, [{"query": "q", "chunk_id": None}], 'has no "chunk_id"'),
        (CHUNKS, [{"query": 3, "chunk_id": "b_0"}], '"query" is a number'),
        (CHUNKS, [{"text": "q", "chunk_id": "b_0"}], 'has no "query"'),
        ([{"chunk_id": "a", "chunk": "c"}], QUERIES, "row 1: \"chunk_id\" is 'a': expected the document and a number"),
        ([{"chunk_id": "a_x", "chunk": "c"}], QUERIES, "expected the document and a number"),
        ([{"chunk_id": "_1", "chunk": "c"}], QUERIES, "expected the document and a number"),
        ([{"chunk_id": "a_" + 5000 * "1", "chunk": "c"}], QUERIES, "expected the document and a number"),
        ([*CHUNKS, CHUNKS[0]], QUERIES, "row 4: the chunk 'my_doc_0' occurs twice"),
        ([{"chunk": "c"}], QUERIES, 'row 1: has no "chunk_id"'),
        ([{"other": "c"}], QUERIES, 'row 1: has no "chunk_id"'),
        ([*CHUNKS, {"chunk_id": "c_0"}], QUERIES, 'row 4: has no "chunk"'),
        ([{"chunk_id": "a_0", "chunk": ""}], [{"query": "q", "chunk_id": "a_0"}], "'a_0', which is empty"),
    ],
)
def test_tables_that_make_no_sense(
    tmp_path: Path, chunks: list[dict[str, Any]], queries: list[dict[str, Any]], reason: str
) -> None:
    with pytest.raises(DatasetError, match=reason):
        open_dataset(str(write_conteb(tmp_path, chunks, queries)))


@pytest.mark.parametrize("keep", [0, 4, 100, -8])
def test_broken_parquet(tmp_path: Path, keep: int) -> None:
    file = write_conteb(tmp_path) / "documents" / "test-00000-of-00001.parquet"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(DatasetError, match=r"00001\.parquet: broken parquet file: "):
        open_dataset(str(tmp_path))


def test_damaged_pages(tmp_path: Path) -> None:
    file = write_conteb(tmp_path) / "documents" / "test-00000-of-00001.parquet"
    data = bytearray(file.read_bytes())
    data[4:60] = b"\xff" * 56
    file.write_bytes(data)
    with pytest.raises(DatasetError, match="broken parquet file"):
        open_dataset(str(tmp_path))


def test_splits_that_do_not_meet(tmp_path: Path) -> None:
    write_parquet(tmp_path / "documents" / "test.parquet", CHUNKS)
    write_parquet(tmp_path / "documents" / "train.parquet", CHUNKS)
    write_parquet(tmp_path / "queries" / "validation.parquet", QUERIES)
    with pytest.raises(DatasetError, match="queries in the split 'validation', and documents in test, train"):
        open_dataset(str(tmp_path))


def test_a_split_of_another_name(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(
        "---\nconfigs:\n- config_name: queries\n  data_files:\n  - split: held_out\n    path: queries/*\n---\n",
        encoding="utf-8",
    )
    with pytest.raises(DatasetError, match="has the splits held_out; expected one of test, validation"):
        open_dataset(str(write_conteb(tmp_path)))
