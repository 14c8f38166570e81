"""Scores of encoders: numpy by hand, MaxSim by its definition, and nothing lost between cache, parts and blocks."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxindex.encoding import Encoder
from ctxindex.encoding.local import LocalEncoder
from ctxindex.encoding.maxsim import max_sim
from ctxindex.errors import CtxIndexError
from ctxindex.evaluation.cache import DiskCache, MemoryCache
from ctxindex.evaluation.corpus import Corpus
from ctxindex.evaluation.prefixes import put_before, title_before
from ctxindex.evaluation.scoring import Encoded, Matrix, Multimatrix, Scorer
from ctxindex.types import EncodedDocument
from tests.evaluation.builders import PEOPLE, QUESTIONS, FakeEncoder, corpus_of, length_of, people, vectors_of

if TYPE_CHECKING:
    from ctxindex.types import FloatArray

ASKED = [text for text, _ in QUESTIONS]


def scores_of(scorer: Scorer, queries: Sequence[str] = ASKED) -> FloatArray:
    return np.concatenate(list(scorer.score(queries)))


def expected(corpus: Corpus, encoder: FakeEncoder, queries: Sequence[str] = ASKED) -> FloatArray:
    """Every query's words with every chunk's words, one at a time; of single vectors there is one each."""
    texts = [chunk.text for one in corpus.documents for chunk in one.chunks]
    rows = [
        [(encoder.vectors(query) @ encoder.vectors(text).T).max(axis=1).sum() for text in texts] for query in queries
    ]
    return np.array(rows, dtype=np.float32)


@pytest.mark.parametrize("method", ["minilm_independent", "minilm_late"])
def test_scores_of_a_real_model_are_cosines(method: str, request: pytest.FixtureRequest) -> None:
    encoder: LocalEncoder = request.getfixturevalue(method)
    corpus = people()
    scorer = Encoded(encoder, MemoryCache())
    cost = scorer.index(corpus)
    done = {
        one.document.doc_id: one.vectors.astype(np.float64)
        for one in encoder.encode_documents(corpus.documents)
        if isinstance(one, EncodedDocument)
    }
    matrix = np.concatenate([done[name] for name in corpus.document_names])
    queries = np.asarray(encoder.encode_queries(ASKED)).astype(np.float64)
    found = scores_of(scorer)
    np.testing.assert_allclose(found, queries @ matrix.T, atol=2e-6)
    assert corpus.owners[found.argmax(axis=1)].tolist() == [0, 0, 1, 2, 3], "a chunk of the right document is first"
    assert (cost.cached, cost.failed) == (0, {})
    assert cost.seconds > 0


@pytest.mark.parametrize("multivector", [False, True])
def test_vectors_come_to_their_chunks_in_whatever_order_they_are_made(multivector: bool) -> None:
    corpus, encoder = people(), FakeEncoder(multivector=multivector)
    scorer = Encoded(encoder, MemoryCache())
    scorer.index(corpus)
    assert encoder.encoded == ["fee", "edo", "curie", "napoleon"]
    np.testing.assert_allclose(scores_of(scorer), expected(corpus, encoder), atol=1e-5)


@pytest.mark.parametrize("multivector", [False, True])
def test_documents_without_vectors_are_never_found(multivector: bool) -> None:
    corpus = people()
    encoder = FakeEncoder(multivector=multivector, failing=["napoleon", "edo"])
    told: list[tuple[str, str | None]] = []
    scorer = Encoded(encoder, MemoryCache(), done=lambda doc_id, failure: told.append((doc_id, failure)))
    assert scorer.index(corpus).failed == {"napoleon": "no luck", "edo": "no luck"}
    assert sorted(told, key=str) == [("curie", None), ("edo", "no luck"), ("fee", None), ("napoleon", "no luck")]
    found, lost = scores_of(scorer), np.isin(corpus.owners, [0, 2])
    assert (found[:, lost] == -np.inf).all()
    np.testing.assert_allclose(found[:, ~lost], expected(corpus, encoder)[:, ~lost], atol=1e-5)


@pytest.mark.parametrize("multivector", [False, True])
def test_a_corpus_without_any_vectors_is_refused(multivector: bool) -> None:
    scorer = Encoded(FakeEncoder(multivector=multivector, failing=list(PEOPLE)), MemoryCache())
    with pytest.raises(CtxIndexError, match=r"set: no document could be encoded \(fee: no luck\)"):
        scorer.index(people())


def test_there_is_nothing_to_score_before_a_corpus() -> None:
    with pytest.raises(ValueError, match="no corpus yet"):
        list(Encoded(FakeEncoder(), MemoryCache()).score(ASKED))


@pytest.mark.parametrize(
    ("multivector", "storage"), [(False, "float32"), (False, "float16"), (True, "float32"), (True, "float16")]
)
def test_vectors_from_the_cache_give_the_same_scores(tmp_path: Path, multivector: bool, storage: Any) -> None:
    corpus = people()
    encoder = FakeEncoder(multivector=multivector, storage=storage)
    first = Encoded(encoder, DiskCache(tmp_path, encoder.spec))
    assert first.index(corpus).cached == 0
    encoder.encoded.clear()
    second = Encoded(encoder, DiskCache(tmp_path, encoder.spec))
    cost = second.index(corpus)
    assert (cost.cached, encoder.encoded) == (corpus.n_chunks, [])
    np.testing.assert_array_equal(scores_of(first), scores_of(second))
    precise = np.allclose(scores_of(first), expected(corpus, encoder), atol=1e-6)
    assert precise == (storage == "float32")
    np.testing.assert_allclose(scores_of(first), expected(corpus, encoder), atol=0.02)


def test_vectors_from_the_cache_count_with_the_time_they_took() -> None:
    corpus, encoder, cache = people(), FakeEncoder(), MemoryCache()
    Encoded(encoder, cache).index(corpus)
    for key, one in list(cache._kept.items()):
        cache.keep(key, type(one)(one.vectors, one.lengths, 100.0))
    cost = Encoded(encoder, cache).index(corpus)
    assert 400 < cost.seconds < 401


def test_the_time_until_the_model_is_there_is_told_apart() -> None:
    encoder = FakeEncoder()
    answer, slow = encoder.encode_queries, [0.2]

    def load(queries: Sequence[str]) -> FloatArray | list[FloatArray]:
        time.sleep(slow.pop() if slow else 0)
        return answer(queries)

    encoder.encode_queries = load  # type: ignore[method-assign]
    cost = Encoded(encoder, MemoryCache()).index(people())
    assert cost.loading > 0.2
    assert 0 < cost.seconds < 0.2


def test_only_what_is_new_is_encoded_and_all_are_told() -> None:
    cache, encoder = MemoryCache(), FakeEncoder()
    told: list[str] = []
    Encoded(encoder, cache).index(corpus_of({"curie": PEOPLE["curie"]}, [("what", [("curie", 0)])]))
    encoder.encoded.clear()
    cost = Encoded(encoder, cache, done=lambda doc_id, failure: told.append(doc_id)).index(people())
    assert encoder.encoded == ["fee", "edo", "napoleon"]
    assert cost.cached == 3
    assert sorted(told) == sorted(PEOPLE)


@pytest.mark.parametrize("one_by_one", [False, True])
def test_documents_of_the_same_text_all_have_vectors(one_by_one: bool) -> None:
    texts = {"a": ["one", "two"], "b": ["one", "two"], "c": ["three"], "d": ["one", "two"]}
    corpus = corpus_of(texts, [("what", [("a", 0)])])
    told: list[str] = []
    encoder = FakeEncoder(one_by_one=one_by_one)
    scorer = Encoded(encoder, MemoryCache(), done=lambda doc_id, failure: told.append(doc_id))
    scorer.index(corpus)
    found = scores_of(scorer)
    np.testing.assert_array_equal(found[:, :2], found[:, 2:4])
    np.testing.assert_array_equal(found[:, :2], found[:, 5:])
    assert sorted(told) == ["a", "b", "c", "d"]


def test_a_prefix_changes_what_is_read_and_not_what_is_ranked() -> None:
    corpus, encoder, cache = people(titles={"curie": "Pioneers"}), FakeEncoder(), MemoryCache()
    plain, titled = Encoded(encoder, cache), Encoded(encoder, cache, lambda them: put_before(them, title_before))
    plain.index(corpus)
    assert titled.index(corpus).cached == corpus.n_chunks - 3, "only what has a title is read anew"
    texts = [f"Pioneers\n{text}" for text in PEOPLE["curie"]]
    read = np.concatenate([vectors_of(text, 1, 6) for text in texts])
    asked = np.concatenate([vectors_of(query, 1, 6) for query in ASKED])
    changed = corpus.owners == 1
    np.testing.assert_allclose(scores_of(titled)[:, changed], asked @ read.T, atol=1e-6)
    np.testing.assert_array_equal(scores_of(titled)[:, ~changed], scores_of(plain)[:, ~changed])


def test_another_corpus_takes_the_place_of_the_first() -> None:
    encoder = FakeEncoder(multivector=True)
    scorer = Encoded(encoder, MemoryCache())
    scorer.index(people())
    smaller = people().part([1, 3], [2, 4])
    scorer.index(smaller)
    np.testing.assert_allclose(scores_of(scorer), expected(smaller, encoder), atol=1e-5)


def test_the_fake_is_an_encoder() -> None:
    encoder: Encoder = FakeEncoder(multivector=True)
    assert encoder.spec.multivector
    assert length_of("two words") == 2


@settings(deadline=None, max_examples=80)
@given(data=st.data(), budget=st.sampled_from([1, 7, 40, 10_000]), block=st.sampled_from([1, 20, 10_000]))
def test_maxsim_of_ragged_vectors_in_any_parts(data: st.DataObject, budget: int, block: int) -> None:
    lengths = data.draw(st.lists(st.integers(0, 6), min_size=1, max_size=12).filter(any))
    asked = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=70))
    generator = np.random.default_rng(data.draw(st.integers(0, 9)))
    vectors = generator.normal(size=(sum(lengths), 3)).astype(data.draw(st.sampled_from([np.float16, np.float32])))
    queries = [generator.normal(size=(count, 3)).astype(np.float32) for count in asked]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ctxindex.evaluation.scoring._TOKEN_NUMBERS", budget)
        patch.setattr("ctxindex.evaluation.scoring.BLOCK_NUMBERS", block)
        blocks = list(Multimatrix(vectors, np.array(lengths)).score(queries))
    found = np.concatenate(blocks)
    assert all(len(each) <= max(1, block // len(lengths)) for each in blocks)
    padded = np.zeros((len(lengths), max(lengths), 3), dtype=np.float32)
    mask = np.arange(max(lengths))[None] < np.array(lengths)[:, None]
    padded[mask] = vectors
    for number, query in enumerate(queries):
        row = max_sim(query[None], padded, document_mask=mask)[0]
        np.testing.assert_allclose(found[number], np.where(mask.any(axis=1), row, -np.inf), rtol=1e-4, atol=1e-4)


def test_parts_of_maxsim_keep_to_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctxindex.evaluation.scoring._TOKEN_NUMBERS", 60)
    lengths = np.array([4, 0, 3, 5, 0, 0, 9, 1, 20, 2])
    parts = [part.tolist() for part in Multimatrix(np.zeros((44, 2)), lengths)._parts(tokens=6)]
    assert [number for part in parts for number in part] == np.flatnonzero(lengths).tolist()
    assert len(parts) > 2
    assert all(lengths[part].sum() < 10 + lengths[part].max() for part in parts)


@pytest.mark.parametrize("block", [1, 18, 27, 10_000])
def test_blocks_of_cosines_are_of_bounded_size(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr("ctxindex.evaluation.scoring.BLOCK_NUMBERS", block)
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=(9, 4)).astype(np.float32)
    vectors[3] = np.nan
    queries = generator.normal(size=(7, 4)).astype(np.float32)
    blocks = list(Matrix(vectors.copy()).score(queries))
    assert [len(each) for each in blocks[:-1]] == [max(1, block // 9)] * (len(blocks) - 1)
    found = np.concatenate(blocks)
    plain = [[float(query.astype(np.float64) @ vector) for vector in vectors] for query in queries]
    np.testing.assert_allclose(found, np.where(np.isnan(plain), -np.inf, plain), rtol=1e-5, atol=1e-6)
    assert found.dtype == np.float32


def test_chunks_with_equal_vectors_tie_wherever_they_stand() -> None:
    generator = np.random.default_rng(0)
    drawn = generator.normal(size=(1036, 384)).astype(np.float32)
    vectors, queries = np.split(drawn / np.linalg.norm(drawn, axis=1, keepdims=True), [1003])
    vectors[[400, 777, 1002]] = vectors[0]
    for asked in (queries, queries[:1]):
        (scores,) = Matrix(vectors.copy()).score(asked)
        assert (scores[:, [400, 777, 1002]] == scores[:, [0]]).all()
        np.testing.assert_allclose(scores, asked @ vectors.T, atol=1e-6)
