"""What model folders say, what is refused and in which words, and what the choices of a user do."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers

from ctxindex.encoding import EncoderOptions, load_encoder, open_checkpoint
from ctxindex.encoding.backbones import BACKBONES, read_backbone
from ctxindex.encoding.checkpoint import PoolingFacts
from ctxindex.encoding.encoder import restore_encoder
from ctxindex.encoding.estimates import estimate
from ctxindex.encoding.local import LocalEncoder
from ctxindex.encoding.modules import DenseLayer
from ctxindex.errors import ConfigError, MismatchError, ModelError
from ctxindex.index import Index
from tests.encoding.stand_in import chunked
from tests.encoding.test_colbert import PYLATE, pylate
from tests.encoding.tiny import HIDDEN, bert, fast, save_backbone, save_sentence_transformer, wordpiece, write_json


def load(folder: Path, **options: Any) -> LocalEncoder:
    return load_encoder(str(folder), EncoderOptions(device="cpu", **options))


@pytest.fixture(scope="module")
def mean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from sentence_transformers.base.modules import Dense

    folder = tmp_path_factory.mktemp("mean") / "model"
    prompts = {"query": "search query: ", "passage": "search document: "}
    return save_sentence_transformer(folder, "modernbert", behind=[Dense(HIDDEN, 20)], prompts=prompts)


@pytest.fixture(scope="module")
def cls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_sentence_transformer(tmp_path_factory.mktemp("cls") / "model", "bert", "cls")


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    tokenizer = fast(wordpiece())
    return save_backbone(tmp_path / "bare", bert(tokenizer), tokenizer)


def test_everything_is_read(mean: Path) -> None:
    checkpoint = open_checkpoint(str(mean))
    assert (checkpoint.kind, checkpoint.dim, checkpoint.max_tokens) == ("sentence-transformers", 20, 128)
    assert (checkpoint.query_prefix, checkpoint.document_prefix) == ("search query: ", "search document: ")
    assert checkpoint.pooling == PoolingFacts("mean", include_prompt=True)
    (layer,) = checkpoint.layers
    assert isinstance(layer, DenseLayer)
    assert (layer.activation, layer.bias, layer.level) == ("Tanh", True, "sentence")
    assert checkpoint.facts.rotary
    assert not checkpoint.facts.causal
    costs = estimate(checkpoint)
    factory: Any = transformers.AutoModel
    assert costs.parameters == sum(weight.numel() for weight in factory.from_pretrained(mean).parameters())
    assert costs.weight_bytes == 4 * costs.parameters
    assert min(costs.parameters, costs.tokens_per_second, costs.flops_per_token) > 0


def test_the_digest_covers_the_modules_around_the_weights(mean: Path, tmp_path: Path) -> None:
    before = open_checkpoint(str(mean)).digest
    assert before == open_checkpoint(str(mean)).digest
    checkpoint = open_checkpoint(str(mean))
    (layer,) = checkpoint.layers
    assert isinstance(layer, DenseLayer)
    assert replace(checkpoint, layers=(replace(layer, activation="ReLU"),)).digest != before
    assert replace(checkpoint, layers=()).digest != before


@pytest.mark.parametrize(
    ("config", "window"),
    [
        ({"model_type": "bert", "max_position_embeddings": 512}, 512),
        ({"model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 1}, 512),
        ({"model_type": "xlm-roberta", "max_position_embeddings": 514}, 512),
        ({"model_type": "mpnet", "max_position_embeddings": 514, "pad_token_id": 1}, 512),
        ({"model_type": "modernbert", "max_position_embeddings": 8192, "pad_token_id": 50283}, 8192),
        ({"model_type": "distilbert", "max_position_embeddings": 512, "dim": 32, "n_layers": 2}, 512),
    ],
)
def test_the_window_is_what_the_positions_allow(tmp_path: Path, config: dict[str, Any], window: int) -> None:
    sizes = {} if "dim" in config else {"hidden_size": 32, "num_hidden_layers": 2}
    write_json(tmp_path / "config.json", {**sizes, **config})
    assert read_backbone(tmp_path).max_tokens == window


def test_the_trained_length_is_taken_only_where_asked_for(mean: Path, tmp_path: Path) -> None:
    folder = save_sentence_transformer(tmp_path / "model")
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 40, "do_lower_case": False})
    assert open_checkpoint(str(folder)).trained_tokens == 40
    assert load(folder).spec.max_tokens == 128
    assert load(folder, max_tokens="model").spec.max_tokens == 40
    assert load(folder, max_tokens=64).spec.max_tokens == 64
    with pytest.raises(ConfigError, match=r"--max-tokens 129: windows of .* have 16 to 128"):
        load(folder, max_tokens=129)


@pytest.mark.parametrize("mode", ["cls", "lasttoken"])
def test_models_that_pool_one_token_are_refused_for_late(tmp_path: Path, mode: str) -> None:
    folder = save_sentence_transformer(tmp_path / "model", "bert", mode)
    words = {"cls": "CLS", "lasttoken": "the last token"}[mode]
    with pytest.raises(ModelError, match=f"pools by the state of {words}.*never trained.*independent.*--force-mean"):
        load(folder, method="late")
    assert load(folder, method="independent").spec.pooling == mode
    forced = load(folder, method="late", force_mean=True).spec
    assert (forced.force_mean, forced.pooling) == (True, "strict")


def test_force_is_recorded_only_where_it_changes_something(mean: Path, cls: Path) -> None:
    assert not load(mean, method="late", force_mean=True).spec.force_mean
    forced = load(cls, method="independent", force_mean=True).spec
    assert (forced.force_mean, forced.pooling) == (True, "inclusive")


def test_other_poolings_are_refused(tmp_path: Path) -> None:
    folder = save_sentence_transformer(tmp_path / "model", "bert", "max")
    with pytest.raises(ModelError, match="pools by max, which is not supported"):
        load(folder, method="independent")


def test_a_bare_folder_needs_the_flag(bare: Path) -> None:
    for method in ("late", "independent"):
        with pytest.raises(ModelError, match=r"bare transformers folder: without modules\.json .* --force-mean"):
            load(bare, method=method)
        assert load(bare, method=method, force_mean=True).spec.force_mean


def test_a_causal_model_is_refused_for_late_even_by_force(tmp_path: Path) -> None:
    folder = save_sentence_transformer(tmp_path / "model", "qwen3-causal", "lasttoken")
    with pytest.raises(ModelError, match="causal Qwen3: a token sees only what stands before it"):
        load(folder, method="late", force_mean=True)


def test_a_decoder_is_packed_where_no_mask_is_left(tmp_path: Path) -> None:
    folder = save_sentence_transformer(tmp_path / "model", "qwen3")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))

    def packable(**changed: Any) -> bool:
        write_json(folder / "config.json", config | changed)
        return read_backbone(folder).packable

    assert packable()
    assert not packable(is_causal=True)
    assert not packable(use_sliding_window=True)
    assert not packable(layer_types=["full_attention", "sliding_attention"])


def test_late_interaction_models_are_refused_for_dense_methods(tmp_path: Path) -> None:
    folder = pylate(tmp_path / "model", PYLATE)
    checkpoint = open_checkpoint(str(folder))
    assert checkpoint.colbert is not None
    assert (checkpoint.kind, checkpoint.dim) == ("late-interaction", 16)
    with pytest.raises(ModelError, match=r"late-interaction model \(ColBERT\), with a vector for every token"):
        load(folder, method="late")


def test_code_from_the_folder_runs_only_when_the_user_says_so(bare: Path, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    code = f"""
import pathlib
from transformers import BertConfig, BertModel
pathlib.Path({str(ran)!r}).touch()
class OwnConfig(BertConfig):
    model_type = "own"
class OwnModel(BertModel):
    config_class = OwnConfig
"""
    (bare / "own.py").write_text(code, encoding="utf-8")
    config = open_config(bare)
    auto = {"AutoConfig": "own.OwnConfig", "AutoModel": "own.OwnModel"}
    write_json(bare / "config.json", {**config, "auto_map": auto})
    encoder = load(bare, force_mean=True)  # a native class is taken, whatever auto_map says
    assert encoder.encode_queries(["who?"]).shape == (1, HIDDEN)
    write_json(bare / "config.json", {**config, "model_type": "own", "auto_map": auto})
    with pytest.raises(ModelError, match=r"type own, which runs code from the model's own folder.*--trust-remote-code"):
        load(bare, force_mean=True)
    assert not ran.exists()
    trusted = load(bare, force_mean=True, trust_remote_code=True)
    assert not ran.exists()
    np.testing.assert_allclose(trusted.encode_queries(["who?"]), encoder.encode_queries(["who?"]), atol=1e-6)
    assert ran.exists()


def open_config(folder: Path) -> dict[str, Any]:
    import json

    values: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return values


def test_what_cannot_be_read_is_told(bare: Path, tmp_path: Path) -> None:
    config = open_config(bare)
    write_json(bare / "config.json", {**config, "model_type": "gpt2"})
    with pytest.raises(ModelError, match=f"of the type gpt2; supported are {', '.join(BACKBONES.values())}"):
        open_checkpoint(str(bare))
    write_json(bare / "config.json", config)
    (bare / "model.safetensors").rename(bare / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"no \*\.safetensors weights \(it has pytorch_model\.bin\)"):
        load(bare, force_mean=True)
    (bare / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"no tokenizer\.json: save the model with its fast tokenizer"):
        open_checkpoint(str(bare))
    with pytest.raises(ModelError, match=r"neither modules\.json nor config\.json"):
        open_checkpoint(str(tmp_path))


@pytest.mark.parametrize(
    ("modules", "complaint"),
    [
        (["Transformer", "WordWeights", "Pooling"], "modules that are not supported: WordWeights"),
        (["Transformer"], "no pooling modules, so it gives no single vectors"),
        (["StaticEmbedding"], "begins with a StaticEmbedding module"),
        ([{"path": "../elsewhere"}], "not a list of modules"),
    ],
)
def test_modules_that_are_not_supported(bare: Path, modules: list[Any], complaint: str) -> None:
    listed = [{"type": f"a.b.{name}", "path": ""} if isinstance(name, str) else name for name in modules]
    write_json(bare / "modules.json", listed)
    write_json(bare / "config.json", open_config(bare))
    with pytest.raises(ModelError, match=complaint):
        open_checkpoint(str(bare))


def test_a_module_outside_of_the_folder_is_refused(bare: Path) -> None:
    write_json(bare / "modules.json", [{"type": "x.Transformer", "path": "../elsewhere"}])
    with pytest.raises(ModelError, match="outside of the model"):
        open_checkpoint(str(bare))


def test_dims_are_the_first_numbers_and_in_the_spec(mean: Path) -> None:
    whole, some = load(mean), load(mean, dims=8)
    assert (whole.spec.dim, some.spec.dim) == (20, 8)
    expected = whole.encode_queries(["who?"])[:, :8]
    expected /= np.linalg.norm(expected)
    np.testing.assert_allclose(some.encode_queries(["who?"]), expected, atol=1e-6)
    for dims in (0, 21):
        with pytest.raises(ConfigError, match=f"--dims {dims}: vectors of .* have 20 numbers"):
            load(mean, dims=dims)


def test_an_encoder_comes_back_from_its_spec(mean: Path, cls: Path) -> None:
    for folder, options in ((mean, {"method": "late", "dims": 8}), (cls, {"method": "late", "force_mean": True})):
        spec = load(folder, **options).spec
        assert restore_encoder(spec, device="cpu").spec == spec
    with pytest.raises(MismatchError, match="not the one that built this index"):
        restore_encoder(load(cls).spec, model=str(mean), device="cpu")


def test_the_first_chunk_takes_the_blank_of_the_prefix(mean: Path) -> None:
    """A byte-level tokenizer: the row has the ids of the joined text."""
    encoder = load(mean, method="late")
    texts = ["Napoleon was born in Corsica.", "He became emperor."]
    frame = encoder._frame(encoder.spec.document_prefix)
    (row,), _ = encoder._rows.make(chunked("a", texts), frame)
    joined = encoder.tokenizer._tokenizer
    joined.encode_special_tokens = False
    assert row.ids.tolist() == joined.encode("search document: " + "[SEP]".join(texts)).ids
    (place, _) = row.places
    assert place.start == 1 + len(frame.prefix)


def test_an_index_with_all_of_it_is_made_and_searched(mean: Path, samples: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"path": str(tmp_path / "db"), "dims": 8, "max_tokens": "model", "device": "cpu"}
    file = min(samples.glob("*.txt"), key=lambda file: file.stat().st_size)
    with Index.open(model=str(mean), **settings) as index:
        assert index.ingest(file).new == 1
        assert index.spec is not None
        assert index.spec.encoder.dim == 8
        assert len(index.search("Who may terminate?", k=3)) == 3
    with Index.open(model=str(mean), **settings) as index:
        assert index.ingest(file).unchanged == 1
    with Index.open(path=settings["path"], dims=7) as index, pytest.raises(MismatchError, match="dims: index 8"):
        index.ingest(file)
