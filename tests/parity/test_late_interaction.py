"""Late interaction against independent computations: sentence-transformers 6, and the definition written in float64."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from ctxindex.encoding import EncoderOptions, load_encoder
from ctxindex.encoding.late_interaction import LateInteractionEncoder
from ctxindex.encoding.maxsim import max_sim
from ctxindex.types import ChunkedDocument, EncodedDocument
from tests.encoding.stand_in import chunked
from tests.encoding.test_colbert import PYLATE, native, pylate, stanford
from tests.encoding.tiny import HIDDEN, added, byte_level, fast, save_backbone

if TYPE_CHECKING:
    from ctxindex.types import FloatArray

TEXT = "Napoleon was born in Corsica, in the year 1769. He became emperor; he died in exile!"
QUERIES = [
    "who became emperor?",
    "Napoleon, emperor",
    "which law governs the agreement that may be terminated early by either party in the year 1804, and then in exile?",
]
NO_EXPANSION = {"query": "[Q] ", "document": "[D] "}
LAYOUTS: dict[str, Callable[[Path], Path]] = {
    "pylate": lambda folder: pylate(folder, PYLATE),
    "pylate that attends to its expansion": lambda folder: pylate(
        folder, {**PYLATE, "attend_to_expansion_tokens": True}
    ),
    "pylate without expansion": lambda folder: pylate(folder, {**PYLATE, "do_query_expansion": False}),
    "pylate with words for markers": lambda folder: pylate(
        folder, {**PYLATE, "query_prefix": "search query: ", "document_prefix": "search document: "}, markers=()
    ),
    "pylate on ModernBERT": lambda folder: modern(folder),
    "stanford": stanford,
    "native": lambda folder: native(folder, {"strategy": "fixed", "length": 20, "attend": True}, NO_EXPANSION),
    "native, min": lambda folder: native(folder, {"strategy": "min", "length": 16, "token": "[SEP]"}, NO_EXPANSION),
    "native, no expansion": lambda folder: native(folder, None, {"query": "[Q] ", "document": "search document: "}),
}


def modern(folder: Path) -> Path:
    """As GTE-ModernColBERT is saved: local and global attention, and positions that rotate."""
    import transformers

    tokenizer = added(fast(byte_level()), "[Q] ", "[D] ")
    config = transformers.ModernBertConfig(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN,
        intermediate_size=48,
        num_hidden_layers=4,
        num_attention_heads=2,
        max_position_embeddings=256,
        local_attention=16,
        pad_token_id=tokenizer.pad_token_id,
        cls_token_id=tokenizer.cls_token_id,
        sep_token_id=tokenizer.sep_token_id,
    )
    pylate(folder, PYLATE)
    return save_backbone(folder, config, tokenizer)


@pytest.fixture(scope="module", params=LAYOUTS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return LAYOUTS[request.param](tmp_path_factory.mktemp("model") / "model")


def oracle(folder: Path) -> Any:
    from sentence_transformers import MultiVectorEncoder

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return MultiVectorEncoder(str(folder), device="cpu")


def encoder(folder: Path, **options: Any) -> LateInteractionEncoder:
    loaded = load_encoder(str(folder), EncoderOptions(device="cpu", **options))
    assert isinstance(loaded, LateInteractionEncoder)
    return loaded


def encode(model: LateInteractionEncoder, document: ChunkedDocument) -> list[FloatArray]:
    (result,) = model.encode_documents([document])
    assert isinstance(result, EncodedDocument), result
    return result.chunk_vectors()


def test_queries_equal_sentence_transformers(folder: Path) -> None:
    expected = oracle(folder).encode_query(QUERIES)
    for ours, theirs in zip(encoder(folder).encode_queries(QUERIES), expected, strict=True):
        assert ours.dtype == np.float32
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_a_document_of_one_chunk_equals_sentence_transformers(folder: Path, factor: int) -> None:
    from sentence_transformers.multi_vector_encoder.modules import HierarchicalTokenPooling

    model = encoder(folder, pooling="inclusive", skiplist="model", pool_factor=factor)
    (ours,) = encode(model, chunked("a", [TEXT]))
    whole = torch.as_tensor(oracle(folder).encode_document([TEXT])[0])
    theirs = HierarchicalTokenPooling(float(factor)).pool_one(whole).numpy()
    assert ours.shape == theirs.shape
    if factor == 1:
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    # Clusters have no order of their own: every vector has its equal on the other side.
    np.testing.assert_allclose((ours @ np.asarray(theirs).T).max(axis=1), 1.0, atol=1e-5)
    np.testing.assert_allclose((ours @ np.asarray(theirs).T).max(axis=0), 1.0, atol=1e-5)


@pytest.mark.parametrize("factor", [1, 2])
def test_chunks_in_windows_of_their_own_equal_sentence_transformers(folder: Path, factor: int) -> None:
    from sentence_transformers.multi_vector_encoder.modules import HierarchicalTokenPooling

    chunks = [TEXT, "The agreement may be terminated early.", "exile"]
    model = encoder(folder, windows="chunk", skiplist="model", pool_factor=factor)
    titled = chunked("a", chunks)
    found = encode(model, replace(titled, document=replace(titled.document, title="a title that nobody reads")))
    for ours, whole in zip(found, oracle(folder).encode_document(chunks), strict=True):
        theirs = HierarchicalTokenPooling(float(factor)).pool_one(torch.as_tensor(whole)).numpy()
        assert ours.shape == theirs.shape
        np.testing.assert_allclose((ours @ np.asarray(theirs).T).max(axis=1), 1.0, atol=1e-5)
        if factor == 1:
            np.testing.assert_allclose(ours, theirs, atol=1e-5)
    again = EncoderOptions.of(model.spec, "cpu")
    assert load_encoder(str(folder), again).spec == model.spec


def test_policies_differ_in_special_tokens_alone(folder: Path) -> None:
    (whole,) = encode(encoder(folder, pooling="inclusive"), chunked("a", [TEXT]))
    (compat,) = encode(encoder(folder, pooling="authors-compat"), chunked("a", [TEXT]))
    model = encoder(folder)
    (strict,) = encode(model, chunked("a", [TEXT]))
    head = 1 + len(model._layout.document_marker.ids)
    np.testing.assert_array_equal(compat, whole[:-1])
    np.testing.assert_array_equal(strict, whole[head:-1])
    assert len(strict) == len(model.tokenizer.ids([model._layout.document_marker.lead + TEXT])[0])


def test_max_sim_equals_sentence_transformers(folder: Path) -> None:
    model, theirs = encoder(folder, pooling="inclusive", skiplist="model"), oracle(folder)
    texts = [TEXT, "The agreement may be terminated early.", "exile"]
    documents = [encode(model, chunked("a", [text]))[0] for text in texts]
    queries = model.encode_queries(QUERIES)
    expected = theirs.similarity(theirs.encode_query(QUERIES), theirs.encode_document(texts))
    ours = [[max_sim(query[None], document[None])[0, 0] for document in documents] for query in queries]
    np.testing.assert_allclose(ours, expected, atol=1e-4)


def plain_late_interaction(folder: Path, chunks: list[str], title: str = "") -> list[FloatArray]:
    """Late chunking of one window in float64: transformers, the Dense weights and the definition, nothing of ours.

    A title is read before the chunks.
    """
    from safetensors.torch import load_file
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    network = AutoModel.from_pretrained(folder, attn_implementation="eager").double().eval()
    ids, spans = [tokenizer.cls_token_id, tokenizer.convert_tokens_to_ids("[D] ")], []
    if title:
        ids += [*tokenizer(title, add_special_tokens=False)["input_ids"], tokenizer.sep_token_id]
    for chunk in chunks:
        content = tokenizer(chunk, add_special_tokens=False)["input_ids"]
        spans.append((len(ids), len(ids) + len(content)))
        ids += [*content, tokenizer.sep_token_id]
    weights = load_file(folder / "1_Dense" / "model.safetensors")
    with torch.no_grad():
        states = network(torch.tensor([ids])).last_hidden_state[0]
        states = states @ weights["linear.weight"].double().T + states @ weights["residual.weight"].double().T
        vectors = torch.nn.functional.normalize(states, dim=1)
    return [np.asarray(vectors[start:end], dtype=np.float64) for start, end in spans]


def test_late_chunking_equals_the_definition(tmp_path: Path) -> None:
    folder = pylate(tmp_path / "model", PYLATE)
    chunks = ["Napoleon was born in Corsica.", "He became emperor in 1804;", "and then he died.", "exile!"]
    found = encode(encoder(folder), chunked("a", chunks))
    for ours, expected in zip(found, plain_late_interaction(folder, chunks), strict=True):
        assert ours.shape == expected.shape
        np.testing.assert_allclose(ours, expected, atol=1e-5)


@pytest.mark.parametrize("blend", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("isolated", ["chunk", "title"])
def test_a_blend_equals_the_definition(tmp_path: Path, blend: float, isolated: str) -> None:
    folder, title = pylate(tmp_path / "model", PYLATE), "Early Exile"
    chunks = ["Napoleon was born in Corsica.", "He became emperor in 1804;", "and then he died.", "exile!"]
    model = encoder(folder, blend=blend, isolated=isolated, anchor_title=True)
    source = chunked("a", chunks)
    found = encode(model, replace(source, document=replace(source.document, title=title)))
    shown = title if isolated == "title" else ""
    alone = [plain_late_interaction(folder, [chunk], shown)[0] for chunk in chunks]
    apart = 0.0
    for ours, one, other in zip(found, plain_late_interaction(folder, chunks, title), alone, strict=True):
        mixed = (1 - blend) * one + blend * other
        np.testing.assert_allclose(ours, mixed / np.linalg.norm(mixed, axis=1, keepdims=True), atol=1e-5)
        apart = max(apart, float(np.abs(one - other).max()))
    assert apart > 1e-3


def test_context_reaches_the_tokens_of_a_chunk(tmp_path: Path) -> None:
    model = encoder(pylate(tmp_path / "model", PYLATE))
    ending = "He became emperor in 1804."
    one = encode(model, chunked("a", ["Napoleon was born in Corsica.", ending]))[1]
    other = encode(model, chunked("a", ["The law of Delaware governs.", ending]))[1]
    alone = encode(model, chunked("a", [ending]))[0]
    assert one.shape == other.shape == alone.shape
    assert np.abs(one - other).max() > 1e-3
    assert np.abs(one - alone).max() > 1e-3
