"""What correct means (docs: one pass, batch invariance, no context by accident), on numbers and on the real model."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxindex.encoding import EncoderOptions, load_encoder
from ctxindex.encoding.local import LocalEncoder
from ctxindex.spec import Method
from ctxindex.types import ChunkedDocument, EncodedDocument, FailedDocument
from tests.encoding.stand_in import chunked, stand_in_encoder

if TYPE_CHECKING:
    from ctxindex.types import FloatArray

WORDS = [
    *("the", "party", "of", "first", "part", "shall", "indemnify"),
    *("any", "affiliate", "against", "claims", "arising", "from", "breach"),
]
CHUNKS = st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=60).map(" ".join), min_size=1, max_size=12)


def encode(encoder: LocalEncoder, *documents: ChunkedDocument) -> dict[str, EncodedDocument]:
    results = list(encoder.encode_documents(documents))
    assert all(isinstance(result, EncodedDocument) for result in results), results
    return {result.document.doc_id: result for result in results if isinstance(result, EncodedDocument)}


def unit(vector: FloatArray) -> FloatArray:
    return vector / np.linalg.norm(vector)


@pytest.mark.parametrize("max_tokens", [16, 24, 64, 512])
@settings(deadline=None, max_examples=25)
@given(chunks=CHUNKS)
def test_every_chunk_is_the_mean_of_its_own_tokens_however_it_is_windowed(max_tokens: int, chunks: list[str]) -> None:
    encoder, backbone = stand_in_encoder("late", max_tokens)
    result = encode(encoder, chunked("a", chunks))["a"]
    ids = encoder.tokenizer.ids(chunks)
    expected = np.array([unit(np.array([chunk.mean(), 1.0])) for chunk in ids])
    np.testing.assert_allclose(result.vectors, expected, rtol=1e-5)
    assert all(row.length <= max_tokens for row in backbone.rows)
    assert result.n_tokens == sum(map(len, ids))


@pytest.mark.parametrize("options", [{}, {"owner": "first", "anchor": 4}, {"windows": "token-window"}])
@settings(deadline=None, max_examples=25)
@given(chunks=CHUNKS, reach=st.integers(0, 40))
def test_chunks_of_the_raw_text_are_means_of_its_tokens_and_may_overlap(
    options: dict[str, Any], chunks: list[str], reach: int
) -> None:
    encoder, backbone = stand_in_encoder("late", 32, join="raw", **options)
    source = chunked("a", chunks)
    text = source.document.text
    longer = tuple(
        replace(chunk, end=end, text=text[chunk.start : end])
        for chunk in source.chunks
        for end in [min(len(text), chunk.end + reach)]
    )
    result = encode(encoder, replace(source, chunks=longer))["a"]
    ids = encoder.tokenizer.ids([text])[0]
    begins = [start for start, _ in encoder.tokenizer.offsets(text)]
    own = [ids[[chunk.start <= begin < chunk.end for begin in begins]] for chunk in longer]
    np.testing.assert_allclose(result.vectors, [unit(np.array([each.mean(), 1.0])) for each in own], rtol=1e-5)
    assert all(row.length <= 32 for row in backbone.rows)
    assert result.n_tokens == sum(map(len, own)) == sum(row.content for row in backbone.rows)


@settings(deadline=None, max_examples=25)
@given(chunks=CHUNKS)
def test_independent_rows_pool_the_whole_row(chunks: list[str]) -> None:
    encoder, _ = stand_in_encoder("independent", 512)
    result = encode(encoder, chunked("a", chunks))["a"]
    cls, sep = encoder.tokenizer.cls_id, encoder.tokenizer.sep_id
    rows = [np.array([cls, *ids, sep]) for ids in encoder.tokenizer.ids(chunks)]
    np.testing.assert_allclose(result.vectors, [unit(np.array([row.mean(), 1.0])) for row in rows], rtol=1e-5)


def test_a_window_reads_as_the_joined_text_would() -> None:
    encoder, backbone = stand_in_encoder("late", 512)
    texts = ["Napoleon was born in Corsica.", "He became emperor in 1804.", "He died in exile."]
    encode(encoder, chunked("a", texts))
    joined = encoder.tokenizer._tokenizer
    joined.encode_special_tokens = False
    try:
        expected = joined.encode("[SEP]".join(texts)).ids
    finally:
        joined.encode_special_tokens = True
    assert backbone.rows[0].ids.tolist() == expected


def test_literal_special_tokens_are_plain_text() -> None:
    encoder, backbone = stand_in_encoder("late", 512)
    result = encode(encoder, chunked("a", ["sign [SEP] here", "[CLS] [MASK] and [PAD] stay"]))["a"]
    assert len(result.vectors) == 2
    ids = backbone.rows[0].ids.tolist()
    assert ids.count(encoder.tokenizer.sep_id) == 2
    assert ids.count(encoder.tokenizer.cls_id) == 1


def test_literal_special_tokens_in_the_raw_text_are_plain_text() -> None:
    encoder, backbone = stand_in_encoder("late", 512, join="raw")
    result = encode(encoder, chunked("a", ["sign [SEP] here", "[CLS] [MASK] and [PAD] stay"]))["a"]
    assert len(result.vectors) == 2
    ids = backbone.rows[0].ids.tolist()
    assert [ids.count(special) for special in (encoder.tokenizer.sep_id, encoder.tokenizer.cls_id)] == [1, 1]


@pytest.mark.parametrize("join", ["sep", "raw"])
def test_a_chunk_without_tokens_fails_its_document_and_no_other(join: str) -> None:
    encoder, _ = stand_in_encoder("late", 64, join=join)
    results = list(encoder.encode_documents([chunked("bad", ["fine", "\u200b"]), chunked("good", ["fine"])]))
    assert [(type(result), getattr(result, "doc_id", "good")) for result in results] == [
        (FailedDocument, "bad"),
        (EncodedDocument, "good"),
    ]


def test_where_a_chunk_was_seen_is_told() -> None:
    encoder, backbone = stand_in_encoder("late", 64)
    result = encode(encoder, chunked("a", ["one two three four five six seven"] * 10))["a"]
    assert result.windows == tuple(sorted(result.windows))
    assert max(result.windows) + 1 == len(backbone.rows)
    assert all(0 < context <= 64 - 7 for context in result.context_tokens)


def corpus(seed: int) -> list[ChunkedDocument]:
    chance = random.Random(seed)
    lengths = [(chance.randint(1, 9), chance.randint(3, 120)) for _ in range(8)]
    return [
        chunked(f"doc{number}", [" ".join(chance.choices(WORDS, k=words)) for _ in range(chunks)])
        for number, (chunks, words) in enumerate(lengths)
    ]


@pytest.mark.parametrize("method", ["late", "independent"])
def test_vectors_do_not_depend_on_what_shares_a_batch(method: Method) -> None:
    documents = corpus(seed=7)
    together = encode(load_encoder("minilm", EncoderOptions(method=method, batch_tokens=4096)), *documents)
    encoder = load_encoder("minilm", EncoderOptions(method=method, batch_tokens=600))
    shuffled = encode(encoder, *documents[::-1])
    for document in documents:
        doc_id = document.document.doc_id
        alone = encode(encoder, document)[doc_id]
        np.testing.assert_allclose(alone.vectors, together[doc_id].vectors, atol=2e-6)
        np.testing.assert_allclose(alone.vectors, shuffled[doc_id].vectors, atol=2e-6)


def test_context_reaches_a_chunk_only_with_late(minilm_late: LocalEncoder, minilm_independent: LocalEncoder) -> None:
    ending = "He became emperor in 1804."
    one, other = chunked("one", ["Napoleon was Corsican.", ending]), chunked("other", ["Bokassa was African.", ending])
    late = encode(minilm_late, one, other)
    alone = encode(minilm_independent, one, other)
    assert late["one"].vectors[1] @ late["other"].vectors[1] < 0.99
    np.testing.assert_allclose(alone["one"].vectors[1], alone["other"].vectors[1], atol=1e-6)


def test_vectors_have_unit_length_and_queries_too(minilm_late: LocalEncoder) -> None:
    result = encode(minilm_late, *corpus(seed=3))
    for document in result.values():
        np.testing.assert_allclose(np.linalg.norm(document.vectors, axis=1), 1.0, atol=1e-6)
    queries = minilm_late.encode_queries(["who?", "a much longer question about the indemnity of an affiliate"])
    assert queries.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(queries, axis=1), 1.0, atol=1e-6)


def test_a_query_longer_than_the_window_is_cut_with_a_warning(
    minilm_late: LocalEncoder, caplog: pytest.LogCaptureFixture
) -> None:
    vectors = minilm_late.encode_queries(["breach " * 600, "breach " * 510])
    np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-6)
    assert "600 tokens was cut to the 510" in caplog.text


def test_no_documents_give_no_vectors_and_load_no_model() -> None:
    encoder = load_encoder("minilm")
    assert list(encoder.encode_documents([])) == []
    assert encoder._backbone is None
    assert encoder.encode_queries([]).shape == (0, 384)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_stays_close_to_float32(minilm_late: LocalEncoder, dtype: str) -> None:
    documents = corpus(seed=11)[: 8 if dtype == "bfloat16" else 2]  # a CPU is slow in float16
    low = encode(load_encoder("minilm", EncoderOptions(method="late", dtype=dtype, device="cpu")), *documents)
    exact = encode(minilm_late, *documents)
    for doc_id, document in exact.items():
        assert (document.vectors * low[doc_id].vectors).sum(axis=1).min() > 0.999
