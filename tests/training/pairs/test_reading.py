"""Pairs read back: spans, chunks by number, what is removed, and lines that make no sense."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ctxindex.encoding.local import LocalEncoder
from ctxindex.evaluation import Corpus
from ctxindex.evaluation.dataset import DatasetError, GoldSpan
from ctxindex.training.pairs import PairOptions, Split, draw, write_pairs
from ctxindex.training.pairs.reading import open_pairs
from ctxindex.types import Chunker, Document, FailedDocument
from tests.training.pairs.documents import corpus as documents
from tests.training.sets import SPEC, chunker, pair, text_of, write_jsonl

ARLES, BERGEN = (Document(place, text_of(place), place) for place in ("Arles", "Bergen"))


@pytest.fixture(scope="module")
def cutter(minilm_independent: LocalEncoder) -> Chunker:
    return chunker(minilm_independent.tokenizer)


def read(folder: Path, rows: list[dict[str, Any]], cutter: Chunker, *more: Document | FailedDocument) -> Corpus:
    return open_pairs(write_jsonl(folder / "p.jsonl", rows), [ARLES, BERGEN, *more], "towns", cutter, SPEC)


def answers(corpus: Corpus) -> list[tuple[str, list[str]]]:
    """Each query with the texts of its gold chunks."""
    found = []
    for query, gold in zip(corpus.queries, corpus.gold, strict=True):
        found.append((query.text, [corpus.chunk(number)[1].text for number in sorted(gold)]))
    return found


def test_spans_chunks_and_their_names_say_the_same(tmp_path: Path, cutter: Chunker) -> None:
    spans = read(tmp_path, [pair("Arles", 1, "piers?"), pair("Bergen", 2, "market?")], cutter)
    by_number = [
        {"query": "piers?", "doc_id": "Arles", "chunk": 1},
        {"query": "market?", "doc_id": "Bergen", "chunk": 2},
    ]
    by_name = [{"query": "piers?", "chunk_id": "Arles_1"}, {"query": "market?", "chunk_id": "Bergen_2"}]
    expected = [("piers?", [text_of("Arles").split("\n\n")[1]]), ("market?", [text_of("Bergen").split("\n\n")[2]])]
    for corpus in (spans, read(tmp_path, by_number, cutter), read(tmp_path, by_name, cutter)):
        assert corpus.n_chunks == 6
        assert answers(corpus) == expected
        assert [span for query in corpus.queries for span in query.spans] == [
            span for query in spans.queries for span in query.spans
        ]


def test_a_chunk_by_number_is_gold_alone_though_chunks_overlap(
    tmp_path: Path, minilm_independent: LocalEncoder
) -> None:
    from dataclasses import replace

    from ctxindex.chunking import load_chunker

    spec = replace(SPEC, size=60, overlap=20)
    overlapping = load_chunker(spec, minilm_independent.tokenizer)
    file = write_jsonl(tmp_path / "p.jsonl", [{"query": "piers?", "doc_id": "Arles", "chunk": 1}])
    corpus = open_pairs(file, [ARLES], "towns", overlapping, spec)
    (first, second, *_) = corpus.documents[0].chunks
    assert second.start < first.end, "the chunks do overlap"
    assert corpus.gold == ({1: 1},)


def test_rows_of_one_query_are_several_answers(tmp_path: Path, cutter: Chunker) -> None:
    rows = [pair("Arles", 0, "where?", query_id="a"), pair("Bergen", 0, "where?", query_id="a"), pair("Arles", 1)]
    corpus = read(tmp_path, rows, cutter)
    assert [sorted(gold) for gold in corpus.gold] == [[0, 3], [1]]
    rows = [{"query": "where?", "query_id": "a", "chunk_id": f"{place}_0"} for place in ("Arles", "Bergen")]
    assert [sorted(gold) for gold in read(tmp_path, rows, cutter).gold] == [[0, 3]]


def test_what_a_pair_removes_is_cut_for_all_pairs_of_the_document(tmp_path: Path, cutter: Chunker) -> None:
    first, second = pair("Arles", 0), pair("Arles", 1)
    whole = {"query": "around", "doc_id": "Arles", "start": first["start"], "end": second["end"]}
    rows = [{**whole, "remove": [first["start"], first["end"]]}, pair("Arles", 2, "market?"), pair("Arles", 0, "gone")]
    corpus = read(tmp_path, rows, cutter)
    assert "sailors" not in corpus.documents[0].document.text
    assert corpus.documents[1].document == BERGEN
    sentences = text_of("Arles").split("\n\n")
    assert answers(corpus) == [("around", [sentences[1]]), ("market?", [sentences[2]])]


def test_pairs_that_were_written_are_read_as_they_were(tmp_path: Path, cutter: Chunker) -> None:
    texts = documents()
    drawn = draw(texts, PairOptions(per_document=6, kinds=("cloze", "headings"), remove_sentences=True))
    removed = [one for one in drawn.pairs if one.remove is not None]
    assert removed
    write_pairs(tmp_path / "pairs.jsonl", Split(tuple(texts), drawn.pairs))
    corpus = open_pairs(tmp_path / "pairs.jsonl", texts, "mixed", cutter, SPEC)
    held = {one.document.doc_id: one.document.text for one in corpus.documents}
    originals = {one.doc_id: one.text for one in texts}
    for one in removed:
        start, end = one.remove or (0, 0)
        assert originals[one.doc_id][start:end] not in held[one.doc_id]
    assert len(corpus.queries) == len(drawn.pairs)
    assert corpus.unanswerable == 0


def test_pairs_are_found_again_in_documents_that_changed(
    tmp_path: Path, cutter: Chunker, caplog: pytest.LogCaptureFixture
) -> None:
    texts = documents()
    drawn = draw(texts, PairOptions(per_document=6, remove_sentences=True))
    assert any(one.remove is not None for one in drawn.pairs)
    file = tmp_path / "pairs.jsonl"
    write_pairs(file, Split(tuple(texts), drawn.pairs))
    before = open_pairs(file, texts, "mixed", cutter, SPEC)
    assert not caplog.text
    changed = [Document(one.doc_id, f"Of {one.doc_id}\n\nMore is said.\n\n{one.text}", one.title) for one in texts]
    after = open_pairs(file, changed, "mixed", cutter, SPEC)
    assert [[said(before, span) for span in query.spans] for query in before.queries] == [
        [said(after, span) for span in query.spans] for query in after.queries
    ]
    held = {one.document.doc_id: one.document.text for one in after.documents}
    for one in drawn.pairs:
        if one.remove is not None:
            text = next(document.text for document in texts if document.doc_id == one.doc_id)
            assert text[slice(*one.remove)] not in held[one.doc_id]
    assert f"{len(drawn.pairs)} answers have moved" in caplog.text


def said(corpus: Corpus, span: GoldSpan) -> str:
    texts = {one.document.doc_id: one.document.text for one in corpus.documents}
    return texts[span.doc_id][span.start : span.end]


def test_documents_that_cannot_be_read_leave_queries_without_an_answer(tmp_path: Path, cutter: Chunker) -> None:
    rows = [{"query": "piers?", "chunk_id": "Arles_1"}, {"query": "lost?", "chunk_id": "Oslo_0"}]
    corpus = read(tmp_path, rows, cutter, FailedDocument("Oslo", "empty"))
    assert corpus.unreadable == {"Oslo": "empty"}
    assert [len(gold) for gold in corpus.gold] == [1, 0]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"query": "q", "doc_id": "Arles", "chunk": 3}], "line 1: names chunk 3 of 'Arles', which has 3"),
        ([{"query": "q", "doc_id": "Arles", "chunk": -1}], "names chunk -1"),
        ([{"query": "q", "chunk_id": "Arles"}], "no doc_id"),
        ([{"query": "q", "chunk_id": "Arles_x"}], "no doc_id"),
        (
            [{"query": "q", "chunk_id": "arles_0"}],
            "line 1: is about the document .* does not have: did you mean 'Arles'",
        ),
        ([{"query": "q", "chunk_id": "Arles_0"}, {**pair("Arles", 0)}], "line 2: does not say where the answer is as"),
        ([{"query": "q", "doc_id": "Arles"}], "not where: each line needs"),
        ([{**pair("Arles", 0), "remove": [5]}], '"remove" is'),
        ([{**pair("Arles", 0), "remove": [3, 9999]}], '"remove" is outside of the'),
        ([{"query": "q", "doc_id": "Nowhere", "start": 0, "end": 3}], "which the set does not have"),
        ([{"query": " ", "doc_id": "Arles", "chunk": 0}], "p.jsonl, line 1: asks nothing"),
        ([{**pair("Arles", 0), "evidence": "words that nobody wrote"}], "make the pairs again"),
    ],
)
def test_a_line_that_makes_no_sense_is_refused(
    tmp_path: Path, cutter: Chunker, rows: list[dict[str, Any]], message: str
) -> None:
    with pytest.raises(DatasetError, match=message):
        read(tmp_path, rows, cutter)
