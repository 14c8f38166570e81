"""Documents held out, and sets written to disk."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxindex.errors import ConfigError, UsageError
from ctxindex.evaluation.datasets import open_dataset, open_questions
from ctxindex.training.pairs import Pair, PairOptions, Split, draw, holds_pairs, split, write_pairs, write_set
from ctxindex.types import Document
from tests.training.pairs.documents import corpus, lease


@given(
    texts=st.lists(st.text(max_size=3), min_size=2, max_size=20),
    asked=st.sets(st.integers(0, 19)),
    share=st.floats(0.01, 0.99),
    seed=st.integers(0, 3),
)
def test_the_split_is_by_document(texts: list[str], asked: set[int], share: float, seed: int) -> None:
    documents = [Document(str(number), text) for number, text in enumerate(texts)]
    pairs = [
        Pair(f"{number} {letter}", str(number), 0, 1, "cloze")
        for number in sorted(asked)
        if number < len(texts)
        for letter in "ab"
    ]
    try:
        train, held_out = split(documents, pairs, share, seed)
    except UsageError:
        assert len({" ".join(documents[int(pair.doc_id)].text.split()).casefold() for pair in pairs}) < 2
        return
    for side, other in ((train, held_out), (held_out, train)):
        own = {document.doc_id for document in side.documents}
        assert side.pairs
        assert {pair.doc_id for pair in side.pairs} <= own
        assert not own & {document.doc_id for document in other.documents}
        assert not {d.text for d in side.documents} & {d.text for d in other.documents}, "copies stay together"
    assert len(train.documents) + len(held_out.documents) == len(documents)
    assert len(train.pairs) + len(held_out.pairs) == len(pairs)
    assert split(documents, pairs, share, seed) == (train, held_out)


def test_the_seed_decides_which_documents_are_held_out() -> None:
    documents = [Document(str(number), f"text {number}") for number in range(40)]
    pairs = [Pair("query", document.doc_id, 0, 1, "cloze") for document in documents]
    sides = [split(documents, pairs, 0.1, seed)[1] for seed in (0, 1)]
    assert [len(side.documents) for side in sides] == [4, 4]
    assert sides[0] != sides[1]
    backwards = split(documents[::-1], pairs, 0.1, 0)[1]
    assert set(map(id, backwards.documents)) == set(map(id, sides[0].documents)), "whatever their order"


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0, float("nan")])
def test_a_share_lies_between_nothing_and_all(share: float) -> None:
    with pytest.raises(ConfigError):
        split([], [], share)


def test_one_document_cannot_be_split() -> None:
    with pytest.raises(UsageError, match="at least two"):
        split([lease()], draw([lease()]).pairs, 0.5)


@pytest.mark.parametrize("remove", [False, True])
def test_a_set_is_read_as_it_was_written(tmp_path: Path, remove: bool) -> None:
    documents = corpus()
    drawn = draw(documents, PairOptions(remove_sentences=remove))
    write_set(tmp_path / "set", Split(tuple(documents), drawn.pairs))
    read = open_dataset(str(tmp_path / "set"))
    texts = {document.doc_id: document.text for document in read.documents}
    assert [(one.doc_id, one.title) for one in read.documents] == [(one.doc_id, one.title) for one in documents]
    assert [query.text for query in read.queries] == [pair.query for pair in drawn.pairs]
    for query, pair in zip(read.queries, drawn.pairs, strict=True):
        (gold,) = query.spans
        whole = next(one.text for one in documents if one.doc_id == pair.doc_id)
        if pair.remove is None:
            assert texts[pair.doc_id][gold.start : gold.end] == whole[pair.start : pair.end]
        else:
            start, end = pair.remove
            assert texts[pair.doc_id][gold.start : gold.end] == whole[pair.start : start] + whole[end : pair.end]
            assert whole[start:end] not in texts[pair.doc_id]
    if not remove:
        assert list(texts.values()) == [document.text for document in documents]


def test_a_file_of_pairs_says_what_to_remove(tmp_path: Path) -> None:
    drawn = draw([lease()], PairOptions(remove_sentences=True))
    write_pairs(tmp_path / "folder" / "pairs.jsonl", Split((lease(),), drawn.pairs))
    rows = [json.loads(line) for line in (tmp_path / "folder" / "pairs.jsonl").read_text("utf-8").splitlines()]
    assert len(rows) == len(drawn.pairs)
    assert {tuple(row) for row in rows if row["kind"] != "cloze"} == {
        ("query_id", "query", "doc_id", "start", "end", "kind", "evidence")
    }
    assert all(row["evidence"] == lease().text[row["start"] : row["end"]] for row in rows)
    assert all(len(row["remove"]) == 2 for row in rows if row["kind"] == "cloze")
    assert not list((tmp_path / "folder").glob(".*")), "nothing is left beside it"


def test_what_was_there_and_said_something_else_is_kept(tmp_path: Path) -> None:
    file, side = tmp_path / "pairs.jsonl", Split((lease(),), draw([lease()], PairOptions()).pairs)
    assert write_pairs(file, side) == []
    assert write_pairs(file, side) == [], "the same again"
    mended = []
    for number in range(2):
        mended.append(f"mended by hand, {number}\n")
        file.write_text(mended[-1], encoding="utf-8")
        assert write_pairs(file, side) == [tmp_path / f".pairs.jsonl.before{number or ''}"]
    assert [kept.read_text("utf-8") for kept in sorted(tmp_path.glob(".*.before*"))] == mended
    write_set(tmp_path / "set", side)
    (tmp_path / "set" / "queries.jsonl").write_text("mine\n", encoding="utf-8")
    (kept,) = write_set(tmp_path / "set", side)
    assert (kept.name, kept.read_text("utf-8")) == (".queries.jsonl.before", "mine\n")


def test_what_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot write"):
        write_pairs(tmp_path / "file" / "pairs.jsonl", Split((), ()))


def test_a_span_that_cuts_a_word_is_written_with_the_rest_of_it(tmp_path: Path) -> None:
    document = Document("a", "A rent of 1000 euros.")
    pairs = (Pair("What?", "a", 2, 13, "generated"), Pair("Which?", "a", 2, 14, "generated"))
    write_pairs(tmp_path / "pairs.jsonl", Split((document,), pairs))
    cut, whole = (json.loads(line) for line in (tmp_path / "pairs.jsonl").read_text("utf-8").splitlines())
    assert (cut["evidence"], cut["around"]) == ("rent of 100", ["", "0"])
    assert (whole["evidence"], "around" in whole) == ("rent of 1000", False)
    read = open_questions(tmp_path / "pairs.jsonl", [document], "set")
    assert [(query.spans[0].start, query.spans[0].end) for query in read.queries] == [(2, 13), (2, 14)]


def test_a_set_that_was_written_is_told_from_others(tmp_path: Path) -> None:
    write_set(tmp_path / "set", Split((lease(),), draw([lease()]).pairs))
    assert holds_pairs(tmp_path / "set")
    own = tmp_path / "own"
    own.mkdir()
    for name in ("documents.jsonl", "queries.jsonl"):
        (own / name).write_text('{"query_id": "1", "query": "Made by hand?", "doc_id": "a", "start": 0, "end": 1}\n')
    assert not holds_pairs(own)
    assert not holds_pairs(tmp_path / "nowhere")
