"""Held-out documents asked with words of their own chunks."""

from __future__ import annotations

from ctxindex.evaluation import Corpus, cut
from ctxindex.training.clozes import folded
from ctxindex.training.worded import WORDED, both_ways, by_words
from tests.evaluation.builders import dataset_of, people

SHARED = "Every signatory pays the annual registration fee in advance."
TEXTS = {
    "a": ["The harbour of Brest was dredged twice before the long winter.", SHARED],
    "b": [f"{SHARED.upper()} So it is.", "Ferries carry passengers, cattle and timber between both islands."],
    "c": ["No.", "Yes."],
}


def corpus(level: str = "chunk") -> Corpus:
    return cut(dataset_of(TEXTS, [("who pays", [("a", 1)])], level=level, given=True), None, None)


def test_every_chunk_that_holds_the_sentence_answers() -> None:
    found = by_words(corpus(), seed=3)
    assert found.name == f"set{WORDED}"
    assert found.documents == corpus().documents
    texts = [folded(text) for parts in TEXTS.values() for text in parts]
    answered = []
    for query, gold in zip(found.queries, found.gold, strict=True):
        words = query.text.casefold().split()
        assert 3 <= len(words) <= 9
        for chunk in gold:
            assert all(word in texts[chunk] for word in words), (query, chunk)
        answered.append(sorted(gold))
    assert sorted(answered) == [[0], [1, 2], [1, 2], [3]]  # chunks of no sentence ask nothing


def test_the_seed_decides_and_there_are_no_more_than_asked_for() -> None:
    assert by_words(corpus(), 1).queries == by_words(corpus(), 1).queries
    assert by_words(corpus(), 1).queries != by_words(corpus(), 2).queries
    assert len(by_words(corpus(), 1, most=2).queries) == 2


def test_where_documents_are_ranked_those_of_the_chunks_answer() -> None:
    found = by_words(corpus("document"), 0)
    assert sorted(sorted(gold) for gold in found.gold) == [[0], [0, 1], [0, 1], [1]]


def test_both_ways_are_measured_where_there_are_sentences() -> None:
    bare = cut(dataset_of({"c": TEXTS["c"]}, [("what", [("c", 0)])], name="bare", given=True), None, None)
    assert [one.name for one in both_ways([people(), bare], 0)] == [people().name, f"{people().name}{WORDED}", "bare"]
