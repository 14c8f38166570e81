"""Our vectors against independent computations: sentence-transformers, and late chunking written out in float64."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from ctxindex.chunking import load_chunker
from ctxindex.encoding.checkpoint import open_checkpoint
from ctxindex.encoding.local import LocalEncoder
from ctxindex.loading import load_documents
from ctxindex.spec import ChunkerSpec
from ctxindex.types import ChunkedDocument, Document, EncodedDocument

if TYPE_CHECKING:
    from ctxindex.types import FloatArray

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def folder() -> Path:
    return open_checkpoint("minilm").folder


@pytest.fixture(scope="module")
def document(samples: Path, minilm_late: LocalEncoder) -> ChunkedDocument:
    """The beginning of a real contract, about one and a half windows long."""
    loaded = next(iter(load_documents(samples, include=["*.txt"])))
    assert isinstance(loaded, Document)
    short = Document(loaded.doc_id, loaded.text[:3500])
    chunker = load_chunker(ChunkerSpec("recursive", 128, "tokens", 0), minilm_late.tokenizer)
    return ChunkedDocument(short, chunker.chunk(short))


def encode(encoder: LocalEncoder, document: ChunkedDocument) -> EncodedDocument:
    (result,) = encoder.encode_documents([document])
    assert isinstance(result, EncodedDocument)
    return result


def test_independent_equals_sentence_transformers(
    document: ChunkedDocument, minilm_independent: LocalEncoder, folder: Path
) -> None:
    from sentence_transformers import SentenceTransformer

    oracle = SentenceTransformer(str(folder), device="cpu")
    expected = oracle.encode([chunk.text for chunk in document.chunks])
    np.testing.assert_allclose(encode(minilm_independent, document).vectors, expected, atol=TOLERANCE)
    queries = ["Who may terminate the agreement?", "which law governs"]
    np.testing.assert_allclose(minilm_independent.encode_queries(queries), oracle.encode(queries), atol=TOLERANCE)


def plain_late_chunking(folder: Path, chunks: list[str]) -> FloatArray:
    """Late chunking of one window, in float64, from nothing but transformers and the definition."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder, attn_implementation="eager").double().eval()
    ids, spans = [tokenizer.cls_token_id], []
    for chunk in chunks:
        content = tokenizer(chunk, add_special_tokens=False)["input_ids"]
        spans.append((len(ids), len(ids) + len(content)))
        ids += [*content, tokenizer.sep_token_id]
    with torch.no_grad():
        states = model(torch.tensor([ids])).last_hidden_state[0]
    means = torch.stack([states[start:end].mean(dim=0) for start, end in spans])
    return np.asarray(torch.nn.functional.normalize(means, dim=1), dtype=np.float32)


def test_late_equals_the_definition_in_one_window(
    document: ChunkedDocument, minilm_late: LocalEncoder, folder: Path
) -> None:
    few = ChunkedDocument(document.document, document.chunks[:3])
    expected = plain_late_chunking(folder, [chunk.text for chunk in few.chunks])
    np.testing.assert_allclose(encode(minilm_late, few).vectors, expected, atol=TOLERANCE)


def test_late_over_windows_is_what_each_window_gives_alone(
    document: ChunkedDocument, minilm_late: LocalEncoder, folder: Path
) -> None:
    """Windows are stretches of the joined text, whose ids and chunks come from transformers and not from our code."""
    result = encode(minilm_late, document)
    assert max(result.windows) >= 1
    tokenizer = AutoTokenizer.from_pretrained(folder)
    stream: list[int] = []
    spans: list[tuple[int, int]] = []
    for chunk in document.chunks:
        content = tokenizer(chunk.text, add_special_tokens=False)["input_ids"]
        spans.append((len(stream), len(stream) + len(content)))
        stream += [*content, tokenizer.sep_token_id]
    model = AutoModel.from_pretrained(folder, attn_implementation="eager").double().eval()
    rows, _ = minilm_late._rows.make(document, minilm_late._frame(""))
    for number, row in enumerate(rows):
        cls, *inside, sep = row.ids.tolist()
        assert (cls, sep) == (tokenizer.cls_token_id, tokenizer.sep_token_id)
        (start,) = [at for at in range(len(stream)) if stream[at : at + len(inside)] == inside]
        with torch.no_grad():
            states = model(torch.tensor([[cls, *inside, sep]])).last_hidden_state[0]
        for chunk_number in [at for at, window in enumerate(result.windows) if window == number]:
            first, last = (1 - start + edge for edge in spans[chunk_number])
            mean = torch.nn.functional.normalize(states[first:last].mean(dim=0), dim=0)
            np.testing.assert_allclose(result.vectors[chunk_number], mean.numpy(), atol=TOLERANCE)
