"""Every dense layout and backbone, as tiny random models saved to disk: `independent` equals sentence-transformers."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from ctxindex.encoding import EncoderOptions, load_encoder
from ctxindex.types import EncodedDocument
from tests.encoding.stand_in import chunked
from tests.encoding.tiny import HIDDEN, TEXTS, save_sentence_transformer, write_json

if TYPE_CHECKING:
    from ctxindex.types import FloatArray

TOLERANCE = 1e-5
QUERIES = ["Who may terminate?", "which law governs the agreement"]
BACKBONES = [
    *("bert", "roberta", "xlm-roberta", "mpnet", "distilbert", "modernbert", "nomic_bert", "eurobert", "qwen3"),
    *("qwen3-causal", "qwen3-open"),
]
CHUNKS = [*TEXTS, " ".join(TEXTS)[:90], "x", "  begins and ends with blanks  "]


def ours(folder: Path, **options: Any) -> tuple[FloatArray, FloatArray]:
    """The vectors of the chunks and of the queries."""
    encoder = load_encoder(str(folder), EncoderOptions(method="independent", device="cpu", **options))
    (result,) = encoder.encode_documents([chunked("a", CHUNKS)])
    assert isinstance(result, EncodedDocument), result
    return result.vectors, encoder.encode_queries(QUERIES)


def oracle(folder: Path) -> Any:
    from sentence_transformers import SentenceTransformer

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return SentenceTransformer(str(folder), device="cpu")


def require_same(folder: Path, dims: int | None = None, **options: Any) -> None:
    model = oracle(folder)
    documents, queries = ours(folder, dims=dims, **options)
    settings: dict[str, Any] = {"normalize_embeddings": True, "truncate_dim": dims}
    np.testing.assert_allclose(documents, model.encode_document(CHUNKS, **settings), atol=TOLERANCE)
    np.testing.assert_allclose(queries, model.encode_query(QUERIES, **settings), atol=TOLERANCE)


@pytest.mark.parametrize("kind", BACKBONES)
def test_every_backbone(tmp_path: Path, kind: str) -> None:
    require_same(save_sentence_transformer(tmp_path / "model", kind))


@pytest.mark.parametrize("kind", ["bert", "modernbert", "xlm-roberta", "qwen3"])
@pytest.mark.parametrize("include_prompt", [True, False])
def test_prompts_with_every_kind_of_tokenizer(tmp_path: Path, kind: str, include_prompt: bool) -> None:
    # Without a blank, SentencePiece would join the last word of the prompt and the first of the text.
    ending = ": " if kind == "xlm-roberta" else ":"
    prompts = {"query": "search query: ", "document": f"search document{ending}"}
    folder = save_sentence_transformer(tmp_path / "model", kind, prompts=prompts, include_prompt=include_prompt)
    require_same(folder)


@pytest.mark.parametrize("pooling", ["cls", "lasttoken"])
@pytest.mark.parametrize("kind", ["bert", "modernbert", "qwen3-causal"])
def test_models_that_pool_one_token(tmp_path: Path, kind: str, pooling: str) -> None:
    require_same(save_sentence_transformer(tmp_path / "model", kind, pooling, prompts={"query": "ask: "}))


def test_modules_behind_the_pooling_and_truncation(tmp_path: Path) -> None:
    from sentence_transformers.base.modules import Dense, Normalize
    from sentence_transformers.sentence_transformer.modules import LayerNorm

    norm = LayerNorm(24)
    norm.norm.weight.data += torch.randn(24) * 0.3
    norm.norm.bias.data += torch.randn(24) * 0.3
    behind = [
        Dense(HIDDEN, 24, activation_function=torch.nn.GELU()),
        norm,
        Normalize(),
        Dense(24, 40, bias=False, activation_function=torch.nn.Tanh(), use_residual=True),
    ]
    folder = save_sentence_transformer(tmp_path / "model", behind=behind, prompts={"document": "passage: "})
    require_same(folder)
    require_same(folder, dims=7)


def test_modules_before_the_pooling(tmp_path: Path) -> None:
    from sentence_transformers.base.modules import Dense

    before = [Dense(HIDDEN, 20, activation_function=torch.nn.ReLU(), module_input_name="token_embeddings")]
    require_same(save_sentence_transformer(tmp_path / "model", before=before, width=20))


def test_a_folder_with_the_old_names_of_modules(tmp_path: Path) -> None:
    from sentence_transformers.base.modules import Dense

    folder = save_sentence_transformer(tmp_path / "model", behind=[Dense(HIDDEN, 12)])
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Dense", "Dense"), ("3_Normalize", "Normalize")]
    modules = [
        {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for number, (path, kind) in enumerate(kinds)
    ]
    write_json(folder / "modules.json", modules)
    flags = {f"pooling_mode_{mode}": mode == "mean_tokens" for mode in ("cls_token", "mean_tokens", "max_tokens")}
    write_json(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": HIDDEN, **flags})
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 100, "do_lower_case": False})
    (folder / "3_Normalize").mkdir()
    require_same(folder)


def test_a_default_prompt_is_that_of_both(tmp_path: Path) -> None:
    prompts = {"any": "represent this: "}
    folder = save_sentence_transformer(tmp_path / "model", prompts=prompts, default_prompt_name="any")
    model = oracle(folder)
    documents, queries = ours(folder)
    np.testing.assert_allclose(documents, model.encode(CHUNKS, normalize_embeddings=True), atol=TOLERANCE)
    np.testing.assert_allclose(queries, model.encode(QUERIES, normalize_embeddings=True), atol=TOLERANCE)


def test_text_is_lower_cased_where_the_file_says_so(tmp_path: Path) -> None:
    folder = save_sentence_transformer(tmp_path / "model", "modernbert")
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 100, "do_lower_case": True})
    require_same(folder)


def test_a_bidirectional_qwen_sees_what_comes_after(tmp_path: Path) -> None:
    """Rows of one length go without a mask, where the attention of the layer alone decides."""
    folder = save_sentence_transformer(tmp_path / "model", "qwen3")
    encoder = load_encoder(str(folder), EncoderOptions(method="late", device="cpu"))
    first: list[FloatArray] = []
    for ending in ("He died in exile.", "The law of Delaware."):
        (result,) = encoder.encode_documents([chunked("a", ["Napoleon was born in Corsica.", ending])])
        assert isinstance(result, EncodedDocument)
        first.append(result.vectors[0])
    assert first[0] @ first[1] < 0.9999
