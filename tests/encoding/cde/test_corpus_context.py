"""Samples that do not depend on the order of documents, contexts on disk, and how far a corpus has moved."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxindex.encoding.cde.corpus_context import CorpusContext, context_id, drift, sample_context
from ctxindex.errors import ConfigError, ModelError, UsageError
from ctxindex.spec import NULL_CONTEXT, SAMPLINGS, Sampling
from ctxindex.types import ChunkedDocument
from tests.encoding.stand_in import chunked

if TYPE_CHECKING:
    from ctxindex.types import FloatArray

CORPORA = st.lists(st.integers(1, 6), min_size=1, max_size=12)


def corpus(sizes: list[int]) -> list[ChunkedDocument]:
    return [
        chunked(f"d{number}", [f"text {number}-{chunk}" for chunk in range(size)]) for number, size in enumerate(sizes)
    ]


@pytest.mark.parametrize("policy", SAMPLINGS)
@given(sizes=CORPORA, size=st.integers(1, 30), seed=st.integers(0, 3), shuffle=st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=60)
def test_a_sample_is_without_repetition_and_of_no_order(
    policy: Sampling, sizes: list[int], size: int, seed: int, shuffle: random.Random
) -> None:
    documents = corpus(sizes)
    drawn = sample_context(documents, size, seed, policy)
    assert len(drawn) == len(set(drawn)) == min(size, sum(sizes))
    assert all(documents[int(one.doc_id[1:])].chunks[one.ordinal].text == one.text for one in drawn)
    shuffle.shuffle(documents)
    assert sample_context(iter(documents), size, seed, policy) == drawn


@given(sizes=CORPORA, size=st.integers(1, 30))
@settings(deadline=None, max_examples=60)
def test_no_document_gives_a_second_chunk_before_all_have_given_one(sizes: list[int], size: int) -> None:
    given_by = [0] * len(sizes)
    for one in sample_context(corpus(sizes), size):
        number = int(one.doc_id[1:])
        given_by[number] += 1
        had = given_by[number]
        assert all(count >= had - 1 or count == most for count, most in zip(given_by, sizes, strict=True))


def test_every_document_is_as_likely() -> None:
    documents = corpus([1] * 9 + [40])
    drawn = [sample_context(documents, 1, seed)[0].doc_id for seed in range(300)]
    assert all(10 <= drawn.count(f"d{number}") <= 55 for number in range(10))  # 30 each, were it even
    uniform = [sample_context(documents, 1, seed, "uniform-chunk")[0].doc_id for seed in range(100)]
    assert uniform.count("d9") > 60  # 40 of 49 chunks are its own


def test_a_new_document_takes_at_most_one_place() -> None:
    documents = corpus([3] * 40)
    before = set(sample_context(documents, 10))
    after = set(sample_context([*documents, *(chunked("new", ["something else"]),)], 10))
    assert len(before - after) <= 1


def test_chunks_of_blanks_are_passed_over() -> None:
    documents = [chunked("a", ["  ", "words", "\t"]), chunked("b", [" "])]
    assert [one.text for one in sample_context(documents, 5)] == ["words"]


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(ConfigError, match="1 text or more"):
        sample_context([], 0)
    with pytest.raises(ConfigError, match="by-document or uniform-chunk"):
        sample_context([], 1, policy="first")  # type: ignore[arg-type]
    assert sample_context([], 4) == []


def test_the_name_is_that_of_everything_it_is_made_of() -> None:
    name = context_id("model", ["a", "b"], "", dtype="float32")
    assert name == context_id("model", ["a", "b"], "", dtype="float32")
    others = [
        context_id("other", ["a", "b"], "", dtype="float32"),
        context_id("model", ["a", "c"], "", dtype="float32"),
        context_id("model", ["ab"], "", dtype="float32"),
        context_id("model", ["a", "b"], "passage: ", dtype="float32"),
        context_id("model", ["a", "b"], "", dtype="bfloat16"),
    ]
    assert len({name, *others}) == 6


@pytest.fixture
def context() -> CorpusContext:
    vectors = np.arange(6, dtype=np.float32).reshape(2, 3)
    layers = np.linspace(0, 1, 2 * 2 * 1 * 2 * 4, dtype=np.float32).reshape(2, 2, 1, 2, 4)
    return CorpusContext("name", "model", vectors, layers, "passage: ", ("one", "zwei 🙂"))


@pytest.mark.parametrize("whole", [True, False])
def test_a_context_comes_back_from_disk(context: CorpusContext, whole: bool, tmp_path: Path) -> None:
    if not whole:  # what layers make of it can be made again
        context = replace(context, layers=None)
    context.save(tmp_path / "deep" / "context")
    found = CorpusContext.load(tmp_path / "deep" / "context")
    assert (found.context_id, found.model, found.prefix, found.texts) == ("name", "model", "passage: ", context.texts)
    assert found.vectors.tobytes() == context.vectors.tobytes()
    assert found.size == 2
    assert not found.is_null
    if context.layers is None:
        assert found.layers is None
    else:
        assert found.layers is not None
        assert found.layers.tobytes() == context.layers.tobytes()


def test_damaged_contexts_are_told(context: CorpusContext, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot read"):
        CorpusContext.load(tmp_path)
    context.save(tmp_path)
    file = tmp_path / "context.json"
    values = json.loads(file.read_text())
    for wrong, said in (({"format": 1}, "another ctxindex"), ({"texts": ["a"]}, "belong"), ({"more": 1}, "damaged")):
        file.write_text(json.dumps(values | wrong))
        with pytest.raises(ModelError, match=said):
            CorpusContext.load(tmp_path)
    file.write_text(json.dumps(values))
    (tmp_path / "context.safetensors").write_bytes(b"none")
    with pytest.raises(ModelError, match="damaged"):
        CorpusContext.load(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match="cannot write"):
        context.save(tmp_path / "file")


@pytest.mark.parametrize("which", ["vectors", "layers"])
def test_arrays_that_are_not_those_of_the_manifest_are_told(context: CorpusContext, which: str, tmp_path: Path) -> None:
    context.save(tmp_path / "one")
    replace(context, **{which: getattr(context, which) + 1}).save(tmp_path / "other")
    (tmp_path / "other" / "context.safetensors").replace(tmp_path / "one" / "context.safetensors")
    with pytest.raises(ModelError, match="its two files do not belong together"):
        CorpusContext.load(tmp_path / "one")


def test_texts_that_a_context_is_not_named_after_are_told(context: CorpusContext, tmp_path: Path) -> None:
    reading = {"max_tokens": 512, "dtype": "float32"}
    name = context_id(context.model, context.texts, context.prefix, **reading)
    replace(context, context_id=name, reading=reading).save(tmp_path)
    assert CorpusContext.load(tmp_path).reading == reading
    file = tmp_path / "context.json"
    file.write_text(file.read_text(encoding="utf-8").replace('"one"', '"two"'), encoding="utf-8")
    with pytest.raises(ModelError, match="its texts are not those that it is named after"):
        CorpusContext.load(tmp_path)


def test_a_context_that_cannot_be_written_leaves_the_one_before(
    context: CorpusContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context.save(tmp_path)

    def full(*_: object, **__: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(ModelError, match="no space left"):
        replace(context, context_id="other", vectors=context.vectors + 1).save(tmp_path)
    found = CorpusContext.load(tmp_path)
    assert found.vectors.tobytes() == context.vectors.tobytes()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["context.json", "context.safetensors"]


def test_a_null_context_of_as_many_vectors_as_the_model_reads_comes_back(
    context: CorpusContext, tmp_path: Path
) -> None:
    replace(context, context_id=NULL_CONTEXT, texts=()).save(tmp_path)
    assert CorpusContext.load(tmp_path).is_null


def test_drift_is_about_one_for_the_same_corpus_and_large_for_another() -> None:
    random_numbers = np.random.default_rng(0)

    def drawn(count: int, centre: float) -> FloatArray:
        found: FloatArray = (random_numbers.normal(size=(count, 16)) + centre * np.eye(16)[0]).astype(np.float32)
        return found

    same = [drift(drawn(64, 3), drawn(32, 3)) for _ in range(40)]
    assert 0.8 < np.mean(same) < 1.2
    assert max(same) < 2
    assert drift(drawn(64, 3), drawn(32, -3)) > 5
    frozen = drawn(64, 3)
    assert drift(frozen, frozen) == 0
    assert drift(frozen, 7 * frozen) < 1e-6  # directions alone
    few = drawn(8, 3)
    assert drift(np.tile(few, (5, 1)), frozen) == drift(few, frozen)  # repetition makes no sample larger
    one = np.outer(np.arange(1, 4), np.ones(4)).astype(np.float32)
    assert drift(one, one) == 0
    assert drift(one, one * np.array([1, 1, 1, -1], dtype=np.float32)) == float("inf")
    with pytest.raises(UsageError, match="two texts"):
        drift(one[[0, 0, 0]], one)
    with pytest.raises(UsageError, match="not numbers"):
        drift(one * np.float32("nan"), one)
