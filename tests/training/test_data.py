"""What a user names, read, cut and split: by document, without copies on both sides, and told what was left out."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxindex.encoding.local import LocalEncoder
from ctxindex.errors import ConfigError, UsageError
from ctxindex.evaluation import Corpus
from ctxindex.evaluation.dataset import DatasetError
from ctxindex.loading import LoadOptions
from ctxindex.training.data import Data, DataOptions, _names, read_data
from ctxindex.training.parts import NO_TOKENS, part
from ctxindex.training.sources import training_documents
from ctxindex.types import Chunker
from tests.evaluation.builders import PEOPLE, QUESTIONS, corpus_of
from tests.training.sets import (
    PLACES,
    SPEC,
    chunker,
    pair,
    text_of,
    write_beir,
    write_documents,
    write_jsonl,
    write_set,
)


@pytest.fixture(scope="module")
def cutter(minilm_independent: LocalEncoder) -> Chunker:
    return chunker(minilm_independent.tokenizer)


def names(corpus: Corpus) -> set[str]:
    return set(corpus.document_names)


def texts(data: Data) -> tuple[set[str], set[str]]:
    """Of all that is trained on, and of all that is measured on."""
    trained = {
        one.document.text for corpus in (*data.sources.values(), *data.replay.values()) for one in corpus.documents
    }
    return trained, {one.document.text for corpus in data.held.values() for one in corpus.documents}


def test_documents_are_held_out_with_their_queries(tmp_path: Path, cutter: Chunker) -> None:
    options = DataOptions((str(write_set(tmp_path / "towns")),), held_out=0.25)
    data = read_data(options, cutter, SPEC)
    (train,), (held,) = data.sources.values(), data.held.values()
    assert list(data.sources) == list(data.held) == [train.name] == [held.name] == ["towns"]
    assert (len(train.documents), len(held.documents)) == (9, 3)
    assert (len(train.queries), len(held.queries)) == (18, 6)
    assert names(train) | names(held) == set(PLACES)
    for side in (train, held):
        for number, query in enumerate(side.queries):
            ((document, chunk),) = [side.chunk(gold) for gold in side.gold[number]]
            assert document.doc_id in query.text
            assert [(span.start, span.end) for span in query.spans] == [(chunk.start, chunk.end)]
    again = read_data(options, cutter, SPEC)
    assert names(again.held["towns"]) == names(held)
    other = read_data(DataOptions(options.data, held_out=0.25, seed=1), cutter, SPEC)
    assert names(other.held["towns"]) != names(held)


def test_a_tenth_is_held_out_unless_something_else_is_said(tmp_path: Path, cutter: Chunker) -> None:
    folder = str(write_set(tmp_path / "towns"))
    data = read_data(DataOptions((folder,)), cutter, SPEC)
    assert len(data.held["towns"].documents) == 1
    assert read_data(DataOptions((folder,), held_out=0), cutter, SPEC).held == {}
    write_set(tmp_path / "other", PLACES[:2])
    data = read_data(DataOptions((folder,), validation=(str(tmp_path / "other"),)), cutter, SPEC)
    assert list(data.held) == ["other"]


def test_what_is_measured_on_is_trained_on_nowhere(
    tmp_path: Path, cutter: Chunker, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_set(tmp_path / "towns")
    copies = write_beir(tmp_path / "copies", PLACES[:6])
    with caplog.at_level(logging.WARNING, "ctxindex"):
        data = read_data(
            DataOptions(
                (str(folder),), validation=(str(write_set(tmp_path / "own", PLACES[:4])),), replay=(str(copies),)
            ),
            cutter,
            SPEC,
        )
    trained, held = texts(data)
    assert not trained & held
    assert (len(data.sources["towns"].documents), len(data.replay["copies"].documents)) == (8, 2)
    assert "towns: 4 documents are not trained on, because their texts are held out" in caplog.text
    split = read_data(DataOptions((str(folder),), held_out=0.5, replay=(str(copies),)), cutter, SPEC)
    trained, held = texts(split)
    assert held
    assert not trained & held


def test_a_document_that_something_was_removed_from_is_known_by_its_whole_text(
    tmp_path: Path, cutter: Chunker, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_documents(tmp_path / "docs", PLACES[:6])
    removed = [0, text_of(PLACES[0]).index("\n\n")]
    rows = [{**pair(place, 1), "doc_id": f"docs/{place}.txt", "remove": removed} for place in PLACES[:6]]
    file = write_jsonl(tmp_path / "asked.jsonl", rows)
    measured = str(write_set(tmp_path / "own", PLACES[:2]))
    with caplog.at_level(logging.WARNING, "ctxindex"):
        options = DataOptions((str(folder),), pairs=str(file), validation=(measured,))
        data = read_data(options, cutter, SPEC)
    assert names(data.sources["asked"]) == {f"docs/{place}.txt" for place in PLACES[2:6]}
    assert "asked: 2 documents are not trained on, because their texts are held out" in caplog.text
    cut_out = tmp_path / "cut"  # the same sentences are gone there
    write_jsonl(
        cut_out / "documents.jsonl", [{"doc_id": place, "text": text_of(place)[removed[1] :]} for place in PLACES[:1]]
    )
    gold = {"query_id": "1", "query": "piers?", "doc_id": PLACES[0], "start": 5, "end": 9}
    write_jsonl(cut_out / "queries.jsonl", [gold])
    both = read_data(DataOptions((str(folder),), pairs=str(file), validation=(str(cut_out),)), cutter, SPEC)
    assert names(both.sources["asked"]) == {f"docs/{place}.txt" for place in PLACES[1:6]}
    replayed = str(write_beir(tmp_path / "again", PLACES[:6]))
    split = read_data(DataOptions((str(folder),), pairs=str(file), held_out=0.4, replay=(replayed,)), cutter, SPEC)
    held = {Path(name).stem for name in names(split.held["asked"])}
    assert held
    assert names(split.replay["again"]) == set(PLACES[:6]) - held


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_a_query_about_several_documents_is_asked_on_both_sides(drawn: st.DataObject) -> None:
    questions = [*QUESTIONS, ("Who was born where?", [("napoleon", 0), ("curie", 0), ("napoleon", 2)])]
    corpus = corpus_of(PEOPLE, questions)
    inside = drawn.draw(st.sets(st.integers(0, len(PEOPLE) - 1), min_size=1))
    kept = part(corpus, inside)
    assert kept.document_names == tuple(name for number, name in enumerate(PEOPLE) if number in inside)
    expected = {
        (text, doc_id, piece)
        for text, gold in questions
        for doc_id, piece in gold
        if list(PEOPLE).index(doc_id) in inside
    }
    found = {
        (query.text, document.doc_id, chunk.ordinal)
        for query, gold in zip(kept.queries, kept.gold, strict=True)
        for document, chunk in map(kept.chunk, gold)
    }
    assert found == expected
    assert {span.doc_id for query in kept.queries for span in query.spans} <= set(kept.document_names)


def test_sets_that_rank_documents_are_for_replay(tmp_path: Path, cutter: Chunker) -> None:
    beir, towns = str(write_beir(tmp_path / "beir", PLACES[:5])), str(write_set(tmp_path / "towns", PLACES[5:]))
    with pytest.raises(DatasetError, match=r"beir says which documents answer, and not where in them.*--replay"):
        read_data(DataOptions((beir,)), cutter, SPEC)
    data = read_data(DataOptions((towns,), replay=(beir,)), cutter, SPEC)
    practised = training_documents(data.replay["beir"])
    assert [one.questions[0].golds for one in practised] == [(0, 1, 2)] * 5
    measured = read_data(DataOptions((towns,), validation=(beir,)), cutter, SPEC)
    assert measured.held["beir"].level == "document"


def test_pairs_are_about_files_of_documents(tmp_path: Path, cutter: Chunker, caplog: pytest.LogCaptureFixture) -> None:
    folder = write_documents(tmp_path / "docs", PLACES[:4])
    (folder / "empty.txt").write_text(" ", encoding="utf-8")
    rows = [{**pair(place, 1), "doc_id": f"docs/{place}.txt"} for place in PLACES[:4]]
    rows.append({"query": "nothing?", "doc_id": "docs/empty.txt", "start": 0, "end": 1})
    file = write_jsonl(folder / "asked.jsonl", rows)
    with caplog.at_level(logging.WARNING, "ctxindex"):
        options = DataOptions(
            (str(folder),), pairs=str(file), held_out=0.25, loading=LoadOptions(exclude=("/asked.jsonl",))
        )
        data = read_data(options, cutter, SPEC)
    assert list(data.sources) == ["asked"]
    assert (len(data.sources["asked"].documents), len(data.held["asked"].documents)) == (3, 1)
    assert data.sources["asked"].unreadable == {"docs/empty.txt": "empty"}
    assert "1 documents left out (docs/empty.txt: empty)" in caplog.text
    assert "no chunk answers 1 of the queries" in caplog.text


def test_too_little_is_told_with_what_to_do(tmp_path: Path, cutter: Chunker) -> None:
    one = str(write_set(tmp_path / "one", PLACES[:1]))
    with pytest.raises(UsageError, match=r"at least two different ones of a source.*--held-out 0"):
        read_data(DataOptions((one,)), cutter, SPEC)
    data = read_data(DataOptions((one,), held_out=0), cutter, SPEC)
    data.require(1)
    with pytest.raises(
        UsageError, match=r"one has 1 document with questions.*fewer than a batch of 4.*\(--documents 1\)"
    ):
        data.require(4)
    copy = str(write_set(tmp_path / "copy", PLACES[:1]))
    with pytest.raises(UsageError, match="one has no document to train on: the texts of all that have questions"):
        read_data(DataOptions((one,), validation=(copy,)), cutter, SPEC)


def test_a_source_of_one_document_is_trained_on_as_it_is(tmp_path: Path, cutter: Chunker) -> None:
    one, many = write_set(tmp_path / "one", PLACES[:1]), write_set(tmp_path / "many", PLACES[1:])
    data = read_data(DataOptions((str(one), str(many)), held_out=0.2), cutter, SPEC)
    assert (list(data.sources), list(data.held)) == (["one", "many"], ["many"])


def test_documents_without_questions_are_measured_among_but_not_trained_on(tmp_path: Path, cutter: Chunker) -> None:
    folder = write_set(tmp_path / "towns", PLACES[:4])
    rows = [{"doc_id": place, "title": place, "text": text_of(place)} for place in PLACES]
    write_jsonl(folder / "documents.jsonl", rows)
    data = read_data(DataOptions((str(folder),), held_out=0.5), cutter, SPEC)
    assert len(data.sources["towns"].documents) == 2
    assert len(data.held["towns"].documents) == 6


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(ConfigError, match="--held-out"):
        DataOptions(("x",), held_out=share)


def test_two_ways_to_measure_are_refused() -> None:
    with pytest.raises(ConfigError, match="--validation"):
        DataOptions(("x",), held_out=0.1, validation=("y",))


def test_sources_are_told_apart_by_as_much_of_their_paths_as_it_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a/train", "b/train", "c"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert _names(["c", "a/train"]) == ["c", "train"]
    assert _names(["a/train", "b/train/"]) == ["a/train", "b/train"]
    assert _names(["illuin-conteb/covid-qa", "c"]) == ["illuin-conteb/covid-qa", "c"]
    assert _names([str(tmp_path / "c")]) == ["c"]
    assert _names(["c", "a/train", "b/train"]) == ["c", "a/train", "b/train"]
    with pytest.raises(UsageError, match="given twice"):
        _names(["c", "./c"])


def test_no_name_is_a_place_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x.jsonl").touch()
    monkeypatch.chdir(tmp_path)
    assert _names(["x", "x.jsonl"]) == ["x", "x.jsonl"]
    assert _names(["x.jsonl"]) == ["x"]
    whole = str(tmp_path / "x").strip("/")  # as if a set on the hub had this name
    found = _names(["x", whole])
    assert found == ["x", whole]
    assert _names(["x", "owner/x"]) == ["x", "owner/x"]
    (tmp_path / "bin").mkdir()
    own = f"{tmp_path.name}/bin"
    assert _names(["/usr/bin", "bin", "usr/bin"]) == ["usr/bin (0)", own, "usr/bin (2)"], "the last is of the hub"


def test_a_set_to_measure_on_never_has_the_name_of_a_source(
    tmp_path: Path, cutter: Chunker, caplog: pytest.LogCaptureFixture
) -> None:
    train = str(write_set(tmp_path / "a" / "towns", PLACES[:6]))
    measured = str(write_set(tmp_path / "b" / "towns", PLACES[6:]))
    data = read_data(DataOptions((train,), validation=(measured,)), cutter, SPEC)
    assert (list(data.sources), list(data.held)) == (["a/towns"], ["b/towns"])
    assert data.published == frozenset()
    assert "measured on" not in caplog.text
    small = str(write_set(tmp_path / "c" / "towns", PLACES[8:]))
    with caplog.at_level(logging.WARNING, "ctxindex"):
        read_data(DataOptions((train,), validation=(small,)), cutter, SPEC)
    assert "c/towns: what is measured on 4 documents with questions is mostly chance" in caplog.text


def test_what_the_model_cannot_read_is_left_out_on_both_sides(
    tmp_path: Path, cutter: Chunker, minilm_independent: LocalEncoder, caplog: pytest.LogCaptureFixture
) -> None:
    tokenizer = minilm_independent.tokenizer
    texts = [text_of(place) + "\n\n\u200b\u200b" * (place in PLACES[:3]) for place in PLACES]
    spans = [[[0, 20], [21, len(text)]] for text in map(text_of, PLACES)]
    documents = [
        {"doc_id": place, "text": text, "chunks": [*own, [len(text) - 2, len(text)]] if len(text) > own[1][1] else own}
        for place, text, own in zip(PLACES, texts, spans, strict=True)
    ]
    queries = [{"query_id": place, **pair(place, 0)} for place in PLACES]
    queries += [{"query_id": f"{place} again", **pair(place, 0, "\u200b")} for place in PLACES[2:7]]
    write_jsonl(tmp_path / "towns" / "documents.jsonl", documents)
    write_jsonl(tmp_path / "towns" / "queries.jsonl", queries)
    with caplog.at_level(logging.WARNING, "ctxindex"):
        data = read_data(DataOptions((str(tmp_path / "towns"),), held_out=0.4), cutter, SPEC, tokenizer)
    train, held = data.sources["towns"], data.held["towns"]
    assert names(train) | names(held) == set(PLACES[3:])
    assert len(train.queries) + len(held.queries) == len(PLACES) - 3
    assert train.unreadable == held.unreadable == dict.fromkeys(PLACES[:3], NO_TOKENS)
    assert "towns: 3 documents left out (a chunk has no tokens that the model can read)" in caplog.text
    assert "towns: 5 queries left out" in caplog.text
    for one in (*train.documents, *held.documents):
        assert minilm_independent.document_rows(one)
    minilm_independent.query_rows([query.text for query in (*train.queries, *held.queries)])
    write_jsonl(tmp_path / "towns" / "queries.jsonl", queries[len(PLACES) :])
    with pytest.raises(DatasetError, match="towns: no query holds text that the model can read"):
        read_data(DataOptions((str(tmp_path / "towns"),)), cutter, SPEC, tokenizer)
