"""BM25 against the formula of Lucene's variant, written out in float64 with its tokens and stop words."""

from __future__ import annotations

import math
import re
import sys
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest

from ctxindex.errors import MissingDependencyError
from ctxindex.evaluation.bm25 import Bm25
from ctxindex.evaluation.prefixes import put_before, title_before
from tests.evaluation.builders import PEOPLE, QUESTIONS, corpus_of, people

STOP_WORDS = (
    "a an and are as at be but by for if in into is it no not of on or such that the their then there these they this "
    "to was will with"
)
"""Those of Lucene's EnglishAnalyzer."""

HARD = {
    "a": ["the fee fee FEE", "of the and to", "Fee, and notice; naïve café 東京 x 12", "a b c"],
    "b": ["notice notice of termination " * 5, "termination", "the_fee is under_scored"],
}
QUERIES = [
    "fee",
    "the notice of a fee",
    "NOTICE notice termination",
    "café 12 東京",
    "under_scored naïve",
    "unheard words alone",
    "fee unheard",
    "x b",
]


def words(text: str) -> list[str]:
    return [word for word in re.findall(r"\b\w\w+\b", text.lower()) if word not in STOP_WORDS.split()]


def by_formula(texts: Sequence[str], query: str) -> list[float]:
    """idf = ln(1 + (N - df + 0.5) / (df + 0.5)), times tf / (tf + k1 (1 - b + b dl / avgdl)); -inf where it is 0."""
    chunks = [words(text) for text in texts]
    average = sum(map(len, chunks)) / len(chunks)
    scores = []
    for chunk in chunks:
        score, counts = 0.0, Counter(chunk)
        for word in words(query):
            holding = sum(word in other for other in chunks)
            if counts[word]:
                idf = math.log(1 + (len(chunks) - holding + 0.5) / (holding + 0.5))
                score += idf * counts[word] / (counts[word] + 1.5 * (1 - 0.75 + 0.75 * len(chunk) / average))
        scores.append(score or -math.inf)
    return scores


@pytest.mark.parametrize("rows", [1, 3, 100])
def test_scores_are_those_of_the_formula(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    monkeypatch.setattr("ctxindex.evaluation.bm25.BLOCK_NUMBERS", 7 * rows)
    texts = [text for parts in HARD.values() for text in parts]
    scorer = Bm25()
    cost = scorer.index(corpus_of(HARD, [("what", [("a", 0)])]))
    blocks = list(scorer.score(QUERIES))
    assert [len(block) for block in blocks][:-1] == [rows] * (len(blocks) - 1)
    found = np.concatenate(blocks)
    expected = np.array([by_formula(texts, query) for query in QUERIES])
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert np.isfinite(expected).any(axis=1).tolist() == [True] * 5 + [False, True, False]
    assert found.dtype == np.float32
    assert (cost.cached, cost.failed) == (0, {})


def test_sets_of_real_sentences_too() -> None:
    texts = [text for parts in PEOPLE.values() for text in parts]
    scorer = Bm25()
    scorer.index(people())
    (found,) = scorer.score([text for text, _ in QUESTIONS])
    np.testing.assert_allclose(found, [by_formula(texts, query) for query, _ in QUESTIONS], rtol=1e-5)


@pytest.mark.parametrize("query", ["the of and", "?!", "unheard", "x"])
def test_a_query_of_no_known_word_finds_nothing(query: str) -> None:
    scorer = Bm25()
    scorer.index(people())
    (found,) = scorer.score([query, "Napoleon"])
    assert (found[0] == -np.inf).all()
    assert np.isfinite(found[1]).sum() == 1


def test_a_corpus_of_stop_words_finds_nothing() -> None:
    scorer = Bm25()
    scorer.index(corpus_of({"a": ["the of", "and", "?"]}, [("what", [("a", 0)])]))
    (found,) = scorer.score(["the of", "fee"])
    assert found.shape == (2, 3)
    assert (found == -np.inf).all()


def test_another_corpus_takes_the_place_of_the_first() -> None:
    scorer = Bm25()
    scorer.index(people())
    part = people().part([0, 3], [0, 4])
    scorer.index(part)
    texts = [chunk.text for one in part.documents for chunk in one.chunks]
    (found,) = scorer.score(["Napoleon born agreement"])
    np.testing.assert_allclose(found[0], by_formula(texts, "Napoleon born agreement"), rtol=1e-5)
    scorer.index(corpus_of({"a": ["the"]}, [("what", [("a", 0)])]))
    assert [block.tolist() for block in scorer.score(["Napoleon"])] == [[[-np.inf]]]


def test_a_prefix_is_read_and_every_document_is_told() -> None:
    told: list[str] = []
    scorer = Bm25(lambda them: put_before(them, title_before), lambda doc_id, failure: told.append(doc_id))
    scorer.index(people(titles={"curie": "Pioneers of physics"}))
    (found,) = scorer.score(["pioneers"])
    assert np.isfinite(found[0]).tolist() == [False] * 3 + [True] * 3 + [False] * 3
    assert told == list(PEOPLE)


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bm25s", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'ctxindex\[eval\]'"):
        Bm25().index(people())
