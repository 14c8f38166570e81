"""Several golds of a question: which is drawn, what the filter takes for the best, and that none is a negative."""

from __future__ import annotations

import numpy as np
import torch

from ctxindex.training.contextual.filtering import FalseNegativeFilter, known_positives
from ctxindex.training.contextual.golds import Golds
from ctxindex.training.contextual.pairs import GoldTexts, pairs_of
from ctxindex.training.contextual.surrogate import PairFilter, PairTexts, vectors_of_pairs
from ctxindex.training.sampling import Question, TrainingDocument
from ctxindex.types import Chunk, ChunkedDocument, Document


def document(name: str, words: str, *questions: Question) -> TrainingDocument:
    """A chunk a letter."""
    chunks = tuple(Chunk(number, number, number + 1, letter) for number, letter in enumerate(words))
    return TrainingDocument(ChunkedDocument(Document(name, words, name), chunks), questions)


SOURCES = {
    "a": [
        document("one", "abc", Question("what?", (0, 2)), Question("who?", (1,))),
        document("two", "dbe", Question("What?", (0,)), Question("when?", (1, 2))),
    ]
}
PAIRS = pairs_of(SOURCES)


def numbers(*values: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array(values, dtype=np.int64)


def test_a_text_is_there_once_and_every_gold_is_found() -> None:
    texts = GoldTexts.of(SOURCES, PAIRS)
    assert texts.texts == ("a", "c", "b", "d", "e")
    golds = texts.golds
    assert [golds.of_pair(pair).tolist() for pair in range(4)] == [[0, 1], [2], [3], [2, 4]]
    assert golds.texts(numbers(0, 3), numbers(1, 0)).tolist() == [1, 2]
    titled = PairTexts.of(SOURCES, PAIRS)
    assert titled.documents == ("one\na", "one\nc", "one\nb", "two\nd", "two\nb", "two\ne")
    assert titled.queries == ("what?", "who?", "What?", "when?")


def test_golds_are_drawn_alike_and_by_the_generator_alone() -> None:
    _, golds = Golds.of([["a", "b", "c"], ["a"]])
    drawn = [golds.draw(numbers(1, 0, 1), np.random.default_rng(seed)).tolist() for seed in range(300)]
    assert all(one[0] == one[2] == 0 for one in drawn)
    assert all(70 < count < 130 for count in np.bincount([one[1] for one in drawn], minlength=3))
    assert drawn == [golds.draw(numbers(1, 0, 1), np.random.default_rng(seed)).tolist() for seed in range(300)]


def test_the_document_of_a_pair_is_the_mean_of_its_golds() -> None:
    _, golds = Golds.of([["a", "b"], ["b"]])
    vectors = np.array([[1, 0], [0, 1]], dtype=np.float32)
    assert vectors_of_pairs(vectors, golds).tolist() == [[0.5, 0.5], [0.0, 1.0]]


def unit(*angles: float) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    return np.array([[np.cos(one), np.sin(one)] for one in angles], dtype=np.float32)


def filtered(rule: FalseNegativeFilter, pairs: tuple[int, ...], places: tuple[int, ...]) -> list[list[bool]]:
    """Angles of the surrogate: all questions at 0, and documents as below."""
    texts = PairTexts.of(SOURCES, PAIRS)
    #                  one: a    c    b  two: d    b    e
    documents = unit(0.9, 0.1, 0.8, 0.5, 0.6, 0.7)
    removed = PairFilter(rule, texts, unit(0, 0, 0, 0), documents)(numbers(*pairs), numbers(*places))
    return [[bool(one) for one in row] for row in removed]


def test_what_is_liked_less_than_the_best_gold_stays_a_negative() -> None:
    # Drawn is a (0.9), which the surrogate likes less than e (0.7); but c (0.1) is a gold, too, and liked better.
    assert filtered(FalseNegativeFilter(), (0, 3), (0, 1)) == [[False, False], [False, False]]
    # Of a question whose only gold is b (0.8), what is liked as well may be an answer.
    assert filtered(FalseNegativeFilter(), (1, 3), (0, 1)) == [[False, True], [False, False]]


def test_no_gold_of_the_same_words_is_a_negative() -> None:
    none = FalseNegativeFilter("none")
    # "what?" has a gold in the other document, too, whose pair is not in the batch: "when?" has drawn another text.
    assert filtered(none, (0, 2), (0, 0)) == [[False, True], [True, False]]
    shared = {"a": [document("one", "ab", Question("who?", (0, 1)), Question("when?", (1,)), Question("why?", (0,)))]}
    texts = PairTexts.of(shared, pairs_of(shared))
    made = PairFilter(none, texts, unit(0, 0, 0), unit(0, 0))
    assert made(numbers(0, 1, 2), numbers(0, 0, 0)).tolist() == [
        [False, True, True],
        [False, False, False],
        [True, False, False],
    ]
    elsewhere = {"a": [document("one", "ab", Question("who?", (0,)), Question("Who?", (1,)), Question("why?", (1,)))]}
    texts = PairTexts.of(elsewhere, pairs_of(elsewhere))
    made = PairFilter(none, texts, unit(0, 0, 0), unit(0, 0))
    # The pair with "Who?" is not in the batch, and what it is answered by is known all the same.
    assert made(numbers(0, 2), numbers(0, 0)).tolist() == [[False, True], [False, False]]


def test_the_parts_know_of_several_golds_by_themselves() -> None:
    scores = torch.tensor([[0.2, 0.5], [0.1, 0.3]])
    assert FalseNegativeFilter().removed(scores).tolist() == [[False, True], [False, False]]
    assert not FalseNegativeFilter().removed(scores, best=torch.tensor([0.6, 0.3])).any()
    known = known_positives(["q", "r", "Q"], ["a", "b", "c"], [{"a", "b"}, {"b"}, {"c"}])
    assert known.tolist() == [[False, True, True], [False, False, False], [True, True, False]]
