"""What the folder of a published CDE model says, and what is refused about it."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from ctxindex.encoding import EncoderOptions, load_encoder, open_checkpoint
from ctxindex.encoding.cde.published.encoder import PublishedCdeEncoder
from ctxindex.encoding.cde.published.layout import Switches, read_published
from ctxindex.encoding.cde.published.model import context_positions
from ctxindex.encoding.cde.published.weights import wanted_shapes
from ctxindex.errors import ModelError
from ctxindex.spec import ChunkerSpec, EncoderSpec, IndexSpec
from tests.encoding.cde.tiny_cde import CONTEXT, Oracle, save_published
from tests.encoding.tiny import HIDDEN, TEXTS, write_json

NULL = "second_stage_model.sequence_dropout_null_embedding"


@pytest.fixture(scope="module")
def v1(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_published(tmp_path_factory.mktemp("v1"), "v1")


@pytest.fixture(scope="module")
def v2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_published(tmp_path_factory.mktemp("v2"), "v2")


def changed(source: Path, folder: Path, file: str = "config.json", **values: Any) -> Path:
    """A copy of a checkpoint with other values in one of its files."""
    shutil.copytree(source, folder, dirs_exist_ok=True)
    write_json(folder / file, {**json.loads((folder / file).read_text()), **values})
    return folder


def encode(folder: Path) -> np.ndarray[Any, Any]:
    encoder = load_encoder(str(folder), EncoderOptions(device="cpu", dtype="float32"))
    assert isinstance(encoder, PublishedCdeEncoder)
    return encoder.with_context(encoder.encode_context(TEXTS)).encode_queries(["exile"])


def test_the_layout_of_both_versions(v1: Path, v2: Path) -> None:
    first, second = open_checkpoint(str(v1)), open_checkpoint(str(v2))
    assert (first.kind, first.method, first.facts.kind, first.dim) == ("cde", "cde", "nomic_bert", HIDDEN)
    assert (first.query_prefix, first.document_prefix) == ("search_query: ", "search_document: ")
    assert (first.max_tokens, first.facts.max_tokens, first.facts.layers) == (64, 256, 2)
    assert first.tokenizer == v1
    assert second.tokenizer == v2 / "embedder"
    assert (second.facts.kind, second.facts.layers) == ("modernbert", 4)
    for checkpoint, unrotated in ((first, True), (second, False)):
        layout = checkpoint.published
        assert layout is not None
        assert (layout.context_size, layout.soft_tokens, layout.lead) == (CONTEXT, 8, CONTEXT + 8)
        assert (layout.unrotated, layout.null, layout.switches) == (unrotated, False, Switches())


def test_a_folder_without_context_in_its_configuration_is_another(tmp_path: Path) -> None:
    assert read_published(tmp_path) is None
    write_json(tmp_path / "config.json", {"model_type": "bert"})
    assert read_published(tmp_path) is None


def test_prefixes_are_those_of_training_where_the_folder_says_nothing(v1: Path, tmp_path: Path) -> None:
    folder = changed(v1, tmp_path)
    (folder / "config_sentence_transformers.json").unlink()
    assert open_checkpoint(str(folder)).document_prefix == "search_document: "


@pytest.mark.parametrize(
    ("name", "kind", "layers", "positions"),
    [
        ("nomic-ai/nomic-bert-2048", "nomic_bert", 12, 2048),
        ("answerdotai/ModernBERT-base", "modernbert", 22, 8192),
    ],
)
def test_what_both_were_published_with_is_known(
    name: str, kind: str, layers: int, positions: int, v1: Path, tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers")
    layout = read_published(changed(v1, tmp_path, embedder=name))  # v1 has its tokenizer in its folder
    assert layout is not None
    assert (layout.kind, layout.hidden, layout.facts.layers, layout.facts.max_tokens) == (kind, 768, layers, positions)
    # The stock classes' own defaults are these two models.
    config = transformers.ModernBertConfig if kind == "modernbert" else transformers.NomicBertConfig
    ids = {"vocab_size", "pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"}
    mine, own = config(**layout.second).to_dict(), config().to_dict()
    assert {key for key in own if mine[key] != own[key]} <= ids


def test_of_512_context_texts_none_is_rotated_and_all_behind_them_is(v1: Path, v2: Path, tmp_path: Path) -> None:
    for source, unrotated in ((v1, True), (v2, False)):
        layout = read_published(changed(source, tmp_path / source.name, transductive_corpus_size=512))
        assert layout is not None
        found = context_positions(layout, 4).tolist()
        assert found[:512] == ([0] * 512 if unrotated else list(range(512)))
        assert found[512:] == list(range(512, 512 + 8 + 4))


@pytest.mark.parametrize(
    ("name", "words", "millions"),
    [("nomic-ai/nomic-bert-2048", 30528, 281), ("answerdotai/ModernBERT-base", 50368, 306)],
)
def test_both_have_as_many_parameters_as_were_published(
    name: str, words: int, millions: int, v1: Path, tmp_path: Path
) -> None:
    layout = read_published(changed(v1, tmp_path, embedder=name))
    assert layout is not None
    first, second = ({**stage, "vocab_size": words} for stage in (layout.first, layout.second))
    shapes = wanted_shapes(replace(layout, soft_tokens=8, first=first, second=second))
    assert round(sum(math.prod(shape) for shape in shapes.values()) / 1e6) == millions


def test_weights_of_another_size_are_refused_with_their_names(v2: Path, tmp_path: Path) -> None:
    folder = changed(v2, tmp_path)
    write_json(
        tmp_path / "embedder" / "config.json",
        {
            **json.loads((v2 / "embedder" / "config.json").read_text()),
            "intermediate_size": 64,
            "num_hidden_layers": 3,
        },
    )
    with pytest.raises(ModelError, match=r"unknown: first_stage_model.embedder.layers.3.*of another size: .*mlp.W"):
        encode(folder)


@pytest.mark.parametrize(
    ("drop", "add", "message"),
    [
        ("second_stage_model.output_projection.2.bias", None, "missing: second_stage_model.output_projection.2.bias$"),
        ("first_stage_model.embedder.encoder.layers.1.attn.Wqkv.weight", None, r"missing: .*k_proj.*q_proj.*v_proj"),
        ("second_stage_model.backbone.encoder.layers.0.norm1.bias", None, r"missing: .*post_attention_layernorm.bias"),
        (None, "second_stage_model.temperature", "unknown: second_stage_model.temperature$"),
        (None, "first_stage_model.embedder.encoder.layers.0.attn.Wqkv.bias", r"unknown: .*Wqkv.bias$"),
    ],
)
def test_every_tensor_has_its_place(drop: str | None, add: str | None, message: str, v1: Path, tmp_path: Path) -> None:
    folder = changed(v1, tmp_path)
    tensors = load_file(folder / "model.safetensors")
    if drop:
        del tensors[drop]
    if add:
        tensors[add] = torch.ones(HIDDEN)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ModelError, match=message):
        encode(folder)


def test_a_norm_that_nothing_goes_through_may_lie_in_the_file(v1: Path, tmp_path: Path) -> None:
    folder = changed(v1, tmp_path)
    tensors = load_file(folder / "model.safetensors")
    unused = {f"second_stage_model.input_ln.{name}": torch.ones(HIDDEN) for name in ("weight", "bias")}
    save_file(tensors | unused, folder / "model.safetensors")
    np.testing.assert_array_equal(encode(folder), encode(v1))
    save_file(tensors | {"second_stage_model.input_ln.scale": torch.ones(HIDDEN)}, folder / "model.safetensors")
    with pytest.raises(ModelError, match=r"unknown: second_stage_model.input_ln.scale$"):
        encode(folder)


def test_what_a_model_makes_itself_may_lie_in_the_file(v1: Path, tmp_path: Path) -> None:
    folder = changed(v1, tmp_path)
    tensors = load_file(folder / "model.safetensors")
    tensors["second_stage_model.backbone.encoder.layers.0.attn.rotary_emb.inv_freq"] = torch.ones(8)
    save_file(tensors, folder / "model.safetensors")
    np.testing.assert_array_equal(encode(folder), encode(v1))


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_stages_with_fewer_layers(version: Any, tmp_path: Path) -> None:
    folder = save_published(tmp_path, version, limit_layers=1, limit_layers_first_stage=2)
    oracle = Oracle(folder, version)
    wanted = oracle.vector(oracle.context(TEXTS), "search_query: exile").numpy()
    np.testing.assert_allclose(encode(folder)[0], wanted, atol=2e-5)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"architecture": "biencoder"}, "CDE models with two stages are"),
        ({"architectures": ["BiEncoder"]}, "is of BiEncoder"),
        ({"transductive_tokens_per_document": 2}, "transductive_tokens_per_document is 2"),
        ({"transductive_tie_token_embeddings": True}, "transductive_tie_token_embeddings is True"),
        ({"pooling_strategy": "max"}, "pooling_strategy is 'max'"),
        ({"dataset_backbone": "other/model"}, "dataset_backbone is 'other/model'"),
        ({"embedding_output_dim": 256}, "embedding_output_dim is 256"),
        ({"pool_ignore_contextual_tokens": False}, "vectors are made of the text alone"),
        ({"transductive_corpus_size": "many"}, "does not say transductive_corpus_size"),
        ({"ctxindex": {"residue": True}}, "under ctxindex stand residual, pool_prompt, token_types, and nothing else"),
        ({"ctxindex": {"residual": "yes"}}, "residual and pool_prompt are true or false"),
        ({"ctxindex": {"token_types": "both"}}, "token_types is hub or training"),
    ],
)
def test_what_was_never_published_is_refused(values: dict[str, Any], message: str, v2: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=message):
        open_checkpoint(str(changed(v2, tmp_path, **values)))


@pytest.mark.parametrize(("key", "value"), [("prenorm", True), ("rotary_emb_fraction", 0.5), ("qkv_proj_bias", True)])
def test_a_nomic_bert_that_the_stock_class_is_not(key: str, value: Any, v1: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=f"a NomicBERT with {key} {value!r} cannot be read"):
        open_checkpoint(str(changed(v1, tmp_path, "embedder/config.json", **{key: value})))


def test_another_transformer_is_refused(v1: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="a bert; CDE models are read with NomicBERT or ModernBERT"):
        open_checkpoint(str(changed(v1, tmp_path, "embedder/config.json", model_type="bert")))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Path]:
    """Models that the hub has, name -> folder; only files that were asked for are handed out."""
    models: dict[str, Path] = {}

    def snapshot_download(name: str, *, allow_patterns: list[str], local_files_only: bool) -> str:
        if local_files_only or name not in models:
            raise OSError("not here")
        copy = tmp_path / "hub" / name
        copy.mkdir(parents=True, exist_ok=True)
        for file in allow_patterns:
            if (models[name] / file).is_file():
                shutil.copy(models[name] / file, copy / file)
        return str(copy)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    return models


def test_a_tokenizer_that_is_not_in_the_folder_comes_from_the_model_it_is_of(
    v1: Path, v2: Path, tmp_path: Path, hub: dict[str, Path]
) -> None:
    for source, embedder, owner in (
        (v1, v1 / "embedder", "google-bert/bert-base-uncased"),
        (v2, "some/modern", "some/modern"),
    ):
        folder = changed(source, tmp_path / source.name, embedder=str(embedder))
        (folder / "tokenizer.json").unlink(missing_ok=True)
        shutil.rmtree(folder / "embedder")
        if source is v2:
            with pytest.raises(ModelError, match=r"built on some/modern, whose configuration is not on this machine"):
                open_checkpoint(str(folder))
            hub["some/modern"] = tmp_path / "files"
            hub["some/modern"].mkdir()
            shutil.copy(v2 / "embedder" / "config.json", hub["some/modern"])
        with pytest.raises(
            ModelError, match=rf"no tokenizer.json, and that of {owner}, .*: download tokenizer.json and"
        ):
            open_checkpoint(str(folder))
        hub[owner] = v1 if source is v1 else v2 / "embedder"
        np.testing.assert_allclose(encode(folder), encode(source), atol=1e-6)
    # What the code reads of the folder of BERT may not name the padding.
    config = tmp_path / "hub" / "google-bert" / "bert-base-uncased" / "tokenizer_config.json"
    config.write_text("{}")
    (config.parent / "special_tokens_map.json").unlink(missing_ok=True)
    assert load_encoder(str(tmp_path / v1.name)).tokenizer.pad_id == 0


def test_the_tokenizer_and_the_transformer_are_part_of_what_an_index_knows(v2: Path, tmp_path: Path) -> None:
    plain = open_checkpoint(str(v2))
    assert open_checkpoint(str(changed(v2, tmp_path / "a"))).files == plain.files
    local = changed(v2, tmp_path / "b", "embedder/config.json", local_attention=8)
    assert open_checkpoint(str(local)).files != plain.files
    assert open_checkpoint(str(local)).digest == plain.digest
    other = changed(v2, tmp_path / "c", "embedder/tokenizer.json", version="2.0")
    assert open_checkpoint(str(other)).files != plain.files


def test_a_context_changes_the_fingerprint_and_its_absence_does_not() -> None:
    values: dict[str, Any] = {"model": "m", "digest": "d", "method": "cde", "dim": 2, "max_tokens": 64, "overlap": 0}
    encoder = EncoderSpec(**values, pooling="inclusive", join="none", owner="none")
    spec = IndexSpec(1, ChunkerSpec("recursive", 64, "tokens", 0), encoder)
    stored = spec.to_json()
    assert stored["encoder"].pop("context") == ""
    assert IndexSpec.from_json(stored) == spec
    with_context = spec.to_json()
    with_context["encoder"]["context"] = "some"
    other = IndexSpec.from_json(with_context)
    assert other.fingerprint != spec.fingerprint
    assert [field for field, *_ in spec.differences(other)] == ["encoder.context"]
