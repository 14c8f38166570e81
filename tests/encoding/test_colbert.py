"""Late-interaction folders, read back from disk: PyLate, Stanford ColBERT, sentence-transformers 6."""

from __future__ import annotations

import string
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from ctxindex.encoding.colbert import Expansion, Marker, read_colbert
from ctxindex.errors import ModelError
from tests.encoding.tiny import HIDDEN, added, bert, byte_level, fast, save_backbone, wordpiece, write_json

PYLATE = {
    "similarity_fn_name": "MaxSim",
    "query_prefix": "[Q] ",
    "document_prefix": "[D] ",
    "query_length": 24,
    "document_length": 60,
    "attend_to_expansion_tokens": False,
    "skiplist_words": [",", "."],
}


def dense(folder: Path, rows: int, columns: int, **config: Any) -> None:
    folder.mkdir(parents=True)
    tensors = {"linear.weight": torch.randn(rows, columns)}
    if config.get("use_residual"):
        tensors["residual.weight"] = torch.randn(rows, columns)
    save_file(tensors, folder / "model.safetensors")
    identity = "torch.nn.modules.linear.Identity"
    values = {"in_features": columns, "out_features": rows, "bias": False, "activation_function": identity}
    write_json(folder / "config.json", {**values, **config})


def pylate(folder: Path, settings: dict[str, Any], *, markers: tuple[str, ...] = ("[Q] ", "[D] ")) -> Path:
    """As pylate saves: the Transformer at the root, 1_Dense, and all settings at the top."""
    tokenizer = added(fast(wordpiece()), *markers)
    save_backbone(folder, bert(tokenizer), tokenizer)
    dense(folder / "1_Dense", 16, HIDDEN, use_residual=True)
    types = ["sentence_transformers.models.Transformer", "pylate.models.Dense.Dense"]
    modules = [{"idx": n, "name": str(n), "path": ["", "1_Dense"][n], "type": types[n]} for n in range(2)]
    write_json(folder / "modules.json", modules)
    write_json(folder / "config_sentence_transformers.json", settings)
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 59, "do_lower_case": False})
    return folder


def stanford(folder: Path) -> Path:
    """As ColBERT saves: prefixed BERT weights and the projection in one file, the rest in artifact.metadata."""
    tokenizer = fast(wordpiece(("[unused0]", "[unused1]")))
    save_backbone(folder, bert(tokenizer, architectures=["HF_ColBERT"]), tokenizer)
    weights = {f"bert.{name}": tensor for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file({**weights, "linear.weight": torch.randn(8, HIDDEN)}, folder / "model.safetensors", {"format": "pt"})
    config = (folder / "config.json").read_text(encoding="utf-8").replace("BertModel", "HF_ColBERT")
    (folder / "config.json").write_text(config, encoding="utf-8")
    metadata = {"query_token_id": "[unused0]", "doc_token_id": "[unused1]", "query_maxlen": 20, "doc_maxlen": 90}
    write_json(folder / "artifact.metadata", {**metadata, "attend_to_mask_tokens": True, "mask_punctuation": True})
    return folder


def native(folder: Path, expansion: dict[str, Any] | None, prompts: dict[str, str]) -> Path:
    """Saved by sentence-transformers 6 itself."""
    from sentence_transformers import MultiVectorEncoder
    from sentence_transformers.base.modules import Dense, Normalize, Transformer
    from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask

    backbone = folder.parent / f"{folder.name}-backbone"
    tokenizer = added(fast(byte_level()), "[Q] ", "[D] ")
    save_backbone(backbone, bert(tokenizer), tokenizer)
    more: Any = {"document_length": 70, "query_expansion": expansion}
    modules = [
        Transformer(str(backbone), **more),
        Dense(HIDDEN, 12, bias=True, activation_function=torch.nn.GELU(), module_input_name="token_embeddings"),
        MultiVectorMask(skiplist_words=[".", "!"], skiplist_tasks=["query", "document"]),
        Normalize(module_input_name="token_embeddings"),
    ]
    MultiVectorEncoder(modules=modules, prompts=prompts, device="cpu").save(str(folder))
    return folder


def oracle_ids(folder: Path, text: str, task: str) -> list[int]:
    """The ids that sentence-transformers makes of a text in a task."""
    from sentence_transformers import MultiVectorEncoder

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model: Any = MultiVectorEncoder(str(folder), device="cpu")
    features = model.preprocess([text], prompt=model.prompts[task], task=task)
    ids: list[int] = features["input_ids"][0].tolist()
    return ids


def test_pylate(tmp_path: Path) -> None:
    layout = read_colbert(pylate(tmp_path / "model", PYLATE))
    assert layout is not None
    vocabulary = fast(wordpiece()).get_vocab()
    size = len(vocabulary)
    assert (layout.kind, layout.hidden, layout.dim, layout.normalize) == ("pylate", HIDDEN, 16, True)
    assert (layout.query_marker, layout.document_marker) == (Marker("[Q] ", (size,)), Marker("[D] ", (size + 1,)))
    assert (layout.query_length, layout.document_length) == (24, 60)
    assert layout.mask_id == vocabulary["[MASK]"]
    assert layout.expansion == Expansion(24, vocabulary["[MASK]"], attend=False)
    assert layout.skiplist == {vocabulary[","], vocabulary["."]}
    assert layout.skiplist_tasks == ("document",)
    (layer,) = layout.dense
    assert (layer.in_features, layer.out_features, layer.activation) == (HIDDEN, 16, "Identity")
    assert (layer.residual, layer.bias, layer.level) == (True, False, "tokens")
    assert layer.weights == tmp_path / "model" / "1_Dense" / "model.safetensors"


@pytest.mark.parametrize("task", ["query", "document"])
def test_pylate_rows_begin_as_those_of_sentence_transformers(tmp_path: Path, task: str) -> None:
    folder = pylate(tmp_path / "model", {**PYLATE, "model_type": "ColBERT"})
    layout = read_colbert(folder)
    assert layout is not None
    ids = oracle_ids(folder, "Napoleon was born", task)
    marker = layout.query_marker if task == "query" else layout.document_marker
    assert tuple(ids[1 : 1 + len(marker.ids)]) == marker.ids
    if task == "query":
        assert layout.expansion is not None
        assert len(ids) == layout.query_length
        assert ids[-1] == layout.expansion.token_id


def test_pylate_that_is_silent_takes_its_defaults(tmp_path: Path) -> None:
    layout = read_colbert(pylate(tmp_path / "model", {"model_type": "ColBERT"}))
    assert layout is not None
    assert (layout.query_marker.text, layout.document_marker.text) == ("[Q] ", "[D] ")
    assert (layout.query_length, layout.document_length) == (32, 180)
    assert layout.expansion is not None
    assert (layout.expansion.length, layout.expansion.attend, layout.expansion.strategy) == (32, False, "fixed")
    assert layout.skiplist_words == tuple(string.punctuation)


def test_pylate_without_expansion_keeps_its_query_length(tmp_path: Path) -> None:
    layout = read_colbert(pylate(tmp_path / "model", {**PYLATE, "do_query_expansion": False}))
    assert layout is not None
    assert layout.expansion is None
    assert layout.query_length == 24


def test_a_marker_that_is_no_token_is_words_with_a_blank_behind(tmp_path: Path) -> None:
    folder = pylate(tmp_path / "model", {**PYLATE, "document_prefix": "search document: "}, markers=("[Q] ",))
    layout = read_colbert(folder)
    assert layout is not None
    assert layout.document_marker.lead == " "
    ids = oracle_ids(folder, "Napoleon was born", "document")
    assert tuple(ids[1 : 1 + len(layout.document_marker.ids)]) == layout.document_marker.ids
    assert len(layout.document_marker.ids) > 1


def test_stanford(tmp_path: Path) -> None:
    folder = stanford(tmp_path / "model")
    layout = read_colbert(folder)
    assert layout is not None
    vocabulary = fast(wordpiece(("[unused0]", "[unused1]"))).get_vocab()
    assert (layout.kind, layout.hidden, layout.dim, layout.normalize) == ("stanford", HIDDEN, 8, True)
    assert layout.query_marker.ids == (vocabulary["[unused0]"],)
    assert layout.document_marker.ids == (vocabulary["[unused1]"],)
    assert (layout.query_length, layout.document_length) == (20, 90)
    assert layout.expansion == Expansion(20, vocabulary["[MASK]"], attend=True)
    assert vocabulary[","] in layout.skiplist
    assert layout.dense[0].weights == folder / "model.safetensors"
    assert oracle_ids(folder, "Napoleon", "query")[1] == layout.query_marker.ids[0]


@pytest.mark.parametrize(
    "expansion",
    [None, {"strategy": "fixed", "length": 20, "attend": True}, {"strategy": "min", "length": 16, "token": "[SEP]"}],
)
def test_sentence_transformers_6(tmp_path: Path, expansion: dict[str, Any] | None) -> None:
    folder = native(tmp_path / "model", expansion, {"query": "[Q] ", "document": "search document: "})
    layout = read_colbert(folder)
    assert layout is not None
    vocabulary = added(fast(byte_level()), "[Q] ", "[D] ").get_vocab()
    assert (layout.kind, layout.dim, layout.normalize) == ("sentence-transformers", 12, True)
    assert layout.query_marker == Marker("[Q] ", (vocabulary["[Q] "],))
    assert layout.document_length == 70
    assert layout.skiplist == {vocabulary["."], vocabulary["!"]}
    assert layout.skiplist_tasks == ("query", "document")
    assert (layout.dense[0].bias, layout.dense[0].activation) == (True, "GELU")
    if expansion is None:
        assert (layout.expansion, layout.query_length) == (None, None)
    else:
        token = vocabulary[expansion.get("token", "[MASK]")]
        attend, strategy = bool(expansion.get("attend")), expansion["strategy"]
        assert layout.expansion == Expansion(expansion["length"], token, attend, strategy)
        assert layout.query_length == (20 if strategy == "fixed" else None)
    ids = oracle_ids(folder, "Napoleon was born", "document")
    tail = fast(byte_level())(layout.document_marker.lead + "Napoleon was born", add_special_tokens=False)["input_ids"]
    assert ids == [vocabulary["[CLS]"], *layout.document_marker.ids, *tail, vocabulary["[SEP]"]]


def test_a_folder_of_another_kind_is_none(tmp_path: Path) -> None:
    tokenizer = fast(wordpiece())
    assert read_colbert(save_backbone(tmp_path, bert(tokenizer), tokenizer)) is None


def test_what_is_not_supported_is_told(tmp_path: Path) -> None:
    folder = pylate(tmp_path / "model", PYLATE)
    write_json(folder / "1_Dense" / "config.json", {"in_features": 31, "out_features": 16, "bias": False})
    with pytest.raises(ModelError, match=r"linear\.weight of shape \(16, 31\), and has \(16, 32\)"):
        read_colbert(folder)
    evil = {"in_features": 32, "out_features": 16, "bias": False, "activation_function": "os.system"}
    write_json(folder / "1_Dense" / "config.json", evil)
    with pytest.raises(ModelError, match=r"activation os\.system; supported are"):
        read_colbert(folder)
    (folder / "1_Dense" / "model.safetensors").rename(folder / "1_Dense" / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"no \*\.safetensors weights \(it has pytorch_model\.bin\)"):
        read_colbert(folder)
