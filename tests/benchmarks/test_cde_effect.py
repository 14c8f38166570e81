"""benchmarks/cde_effect.py: vectors and findings in one context beside those in another."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.cde_effect import View, compare, cosine
from benchmarks.corpus_context import ANOTHER, NONE, OWN
from ctxindex.encoding.pooling import unit_rows
from tests.evaluation.builders import people


def view(corpus_chunks: int, queries: int, seed: int) -> View:
    random = np.random.default_rng(seed)
    return View(
        unit_rows(random.normal(size=(queries, 8)).astype(np.float32)),
        unit_rows(random.normal(size=(corpus_chunks, 8)).astype(np.float32)),
    )


def test_a_view_beside_itself_shows_no_difference_and_beside_another_one_does() -> None:
    corpus = people()
    own = view(corpus.n_chunks, len(corpus.queries), 0)
    found = compare(corpus, {OWN: own, NONE: own, ANOTHER: view(corpus.n_chunks, len(corpus.queries), 1)})
    same, other = found["against"][NONE], found["against"][ANOTHER]
    assert same["cosine of chunks"] == pytest.approx(1)
    assert same["other first chunk"] == 0
    assert same["difference"] == {"mean": 0, "low": 0, "high": 0}
    assert other["cosine of chunks"] < 0.9
    assert found["queries"] == len(corpus.queries)


def test_what_all_chunks_share_is_taken_away_from_questions_too() -> None:
    shared = np.array([10.0, 0, 0], dtype=np.float32)
    chunks = unit_rows(np.array([[0, 1, 0], [0, -1, 0]], dtype=np.float32) + shared)
    centred = View(unit_rows(np.array([[0, 1, 0]], dtype=np.float32) + shared), chunks).centred()
    assert centred.chunks == pytest.approx(np.array([[0, 1, 0], [0, -1, 0]]), abs=1e-5)
    assert (centred.queries @ centred.chunks.T)[0] == pytest.approx([1, -1], abs=0.1)


def test_cosines_are_means_over_rows() -> None:
    one = np.array([[1, 0], [0, 1]], dtype=np.float32)
    assert cosine(one, np.array([[1, 0], [1, 0]], dtype=np.float32)) == 0.5
