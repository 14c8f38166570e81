"""What a training writes opens as it was read: by ctxindex, by transformers, by sentence-transformers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from ctxindex.encoding import Checkpoint, EncoderOptions, load_encoder, open_checkpoint
from ctxindex.encoding.options import make_spec
from ctxindex.encoding.trained import read_settings, write_settings
from ctxindex.errors import ConfigError, ModelError
from ctxindex.training.model import ContextualModel
from ctxindex.training.readings import Reading
from ctxindex.training.results.export import write_model
from ctxindex.training.results.tuned import require_same, settings_of, write_tuned
from ctxindex.training.running.lora import merged_state
from ctxindex.types import EncodedDocument
from tests.encoding.stand_in import chunked
from tests.encoding.test_colbert import PYLATE, pylate, stanford
from tests.encoding.test_trained import DENSE, MULTIVECTOR, some
from tests.encoding.tiny import HIDDEN, save_backbone, save_sentence_transformer, tokenizer_for, write_json
from tests.encoding.tiny import bert as bert_config
from tests.training.toys import loaded

KINDS = ("plain", "cls", "behind", "bare", "prefixed", "old names", "sharded", "pylate", "stanford")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A base of each kind, made once."""
    root = tmp_path_factory.mktemp("models")
    return lambda kind: root / kind if (root / kind).exists() else _made(kind, root / kind)


def _made(kind: str, folder: Path) -> Path:
    if kind == "cls":
        return save_sentence_transformer(folder, pooling="cls")
    if kind == "behind":
        from sentence_transformers.base.modules import Dense
        from sentence_transformers.sentence_transformer.modules import LayerNorm

        return save_sentence_transformer(folder, behind=[Dense(HIDDEN, 24), LayerNorm(24)])
    if kind == "bare":
        tokenizer = tokenizer_for("bert")
        return save_backbone(folder, bert_config(tokenizer), tokenizer)
    if kind == "pylate":
        return pylate(folder, PYLATE)
    if kind == "stanford":
        return stanford(folder)
    save_sentence_transformer(folder)
    file = folder / "model.safetensors"
    weights = load_file(file)
    if kind == "prefixed":
        weights = {f"bert.{name}": tensor for name, tensor in weights.items()} | {"cls.bias": torch.ones(3)}
    elif kind == "old names":
        weights = {
            f"bert.{name}".replace("LayerNorm.weight", "LayerNorm.gamma").replace(
                "LayerNorm.bias", "LayerNorm.beta"
            ): one
            for name, one in weights.items()
        }
    elif kind == "sharded":
        first = {name: one for name, one in weights.items() if "layer.1" not in name}
        rest = {name: one for name, one in weights.items() if "layer.1" in name}
        files = {"model-00001-of-00002.safetensors": first, "model-00002-of-00002.safetensors": rest}
        file.unlink()
        for name, tensors in files.items():
            save_file(tensors, folder / name, {"format": "pt"})
        places = {tensor: name for name, tensors in files.items() for tensor in tensors}
        write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": places})
        return folder
    save_file(weights, file, {"format": "pt"})
    return folder


def options_of(kind: str) -> dict[str, Any]:
    if kind in ("pylate", "stanford"):
        return {"anchor": 8}
    force = kind in ("cls", "bare")
    return {"method": "late", "anchor": 8, "anchor_title": True, "blend": 0.3, "force_mean": force}


def trained(folder: Path, **options: Any) -> tuple[Any, ContextualModel]:
    """The model of a base with other weights, as a training leaves it."""
    encoder, model = loaded(folder, **options)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator) * 0.02)
    return encoder, model


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_trained_is_what_opens(folders: Callable[[str], Path], tmp_path: Path, kind: str) -> None:
    base = folders(kind)
    checkpoint = open_checkpoint(str(base))
    encoder, model = trained(base, **options_of(kind))
    state = merged_state(model)
    write_tuned(checkpoint, encoder.spec, state, tmp_path / "tuned")
    require_same(checkpoint, encoder.spec, state, tmp_path / "tuned")
    again, reread = loaded(tmp_path / "tuned")
    assert again.spec.digest != encoder.spec.digest
    assert again.spec.force_mean is False
    found = merged_state(reread)
    assert all(torch.equal(found[name], one) for name, one in state.items() if "pooler" not in name)
    ours = {
        file.relative_to(tmp_path / "tuned").as_posix() for file in (tmp_path / "tuned").rglob("*") if file.is_file()
    }
    theirs = {file.relative_to(base).as_posix() for file in base.rglob("*") if file.is_file()} - {"README.md"}
    pooled = {"modules.json", "1_Pooling/config.json", "sentence_bert_config.json"}
    assert ours - theirs == {"ctxindex.json"} | (pooled if kind == "bare" else set())
    assert theirs - ours == set()
    metadata = json.loads((tmp_path / "tuned" / "ctxindex.json").read_text(encoding="utf-8"))
    assert metadata["anchor"] == 8


def test_colbert_is_told_as_well(folders: Callable[[str], Path], tmp_path: Path) -> None:
    base = folders("stanford")
    encoder, model = trained(base, **options_of("stanford"))
    write_tuned(open_checkpoint(str(base)), encoder.spec, merged_state(model), tmp_path / "tuned")
    metadata = json.loads((tmp_path / "tuned" / "artifact.metadata").read_text(encoding="utf-8"))
    assert metadata["doc_maxlen"] == encoder.spec.max_tokens == 128
    assert metadata["query_maxlen"] == 20


@pytest.mark.parametrize("kind", ["plain", "cls", "behind", "bare", "old names"])
def test_sentence_transformers_reads_a_text_alone_as_we_do(
    folders: Callable[[str], Path], tmp_path: Path, kind: str
) -> None:
    from sentence_transformers import SentenceTransformer

    base = folders(kind)
    encoder, model = trained(base, **options_of(kind))
    write_tuned(open_checkpoint(str(base)), encoder.spec, merged_state(model), tmp_path / "tuned")
    theirs = SentenceTransformer(str(tmp_path / "tuned"), device="cpu")
    expected = theirs.encode(["the law of Delaware", "Napoleon"], normalize_embeddings=True)
    alone = load_encoder(str(tmp_path / "tuned"), EncoderOptions(method="independent", device="cpu", dtype="float32"))
    found = alone.encode_queries(["the law of Delaware", "Napoleon"])
    np.testing.assert_allclose(found, expected, atol=1e-5)
    with torch.no_grad():
        (ours,) = model([Reading(tuple(encoder.query_rows(["Napoleon"])), 1)])
    np.testing.assert_allclose(ours.numpy(), expected[1:], atol=1e-5)


LONG = " ".join(["Napoleon was not a party to the agreement that the law of Delaware governs"] * 5)


def test_sentence_transformers_reads_as_much_of_a_text_as_we_do(folders: Callable[[str], Path], tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    base = Path(shutil.copytree(folders("plain"), tmp_path / "base"))
    settings = json.loads((base / "sentence_bert_config.json").read_text(encoding="utf-8"))
    write_json(base / "sentence_bert_config.json", settings | {"max_seq_length": 16})
    encoder, model = trained(base, **options_of("plain"))
    assert encoder.tokenizer.count([LONG])[0] > 2 * 16
    write_tuned(open_checkpoint(str(base)), encoder.spec, merged_state(model), tmp_path / "tuned")
    theirs = SentenceTransformer(str(tmp_path / "tuned"), device="cpu").encode([LONG], normalize_embeddings=True)
    alone = load_encoder(str(tmp_path / "tuned"), EncoderOptions(method="independent", device="cpu", dtype="float32"))
    np.testing.assert_allclose(alone.encode_queries([LONG]), theirs, atol=1e-5)


def test_pylate_reads_as_much_of_a_text_as_we_do(folders: Callable[[str], Path], tmp_path: Path) -> None:
    from sentence_transformers import MultiVectorEncoder

    base = folders("pylate")
    encoder, model = trained(base, **options_of("pylate"))
    assert encoder.tokenizer.count([LONG])[0] > 60 + 16  # its document_length, and more
    write_tuned(open_checkpoint(str(base)), encoder.spec, merged_state(model), tmp_path / "tuned")
    opened: Any = MultiVectorEncoder(str(tmp_path / "tuned"), device="cpu")
    (theirs,) = opened.encode_document([LONG], convert_to_numpy=True)
    ours = load_encoder(str(tmp_path / "tuned"), EncoderOptions(device="cpu", dtype="float32"))
    (found,) = ours.encode_documents([chunked("long", [LONG])])
    assert isinstance(found, EncodedDocument)
    np.testing.assert_allclose(found.vectors, theirs[2:-1], atol=1e-5)  # theirs has CLS, the marker and SEP as well


def test_tensors_without_a_place_get_a_file_by_their_own_names(folders: Callable[[str], Path], tmp_path: Path) -> None:
    """As where transformers takes one tensor apart, or puts several together, when it loads a model."""
    for kind in ("sharded", "stanford"):
        base, into = tmp_path / kind / "base", tmp_path / kind / "tuned"
        shutil.copytree(folders(kind), base)
        encoder, model = trained(base, **options_of(kind))
        checkpoint = open_checkpoint(str(base))
        file = base / ("model-00002-of-00002.safetensors" if kind == "sharded" else "model.safetensors")
        weights = load_file(file)
        name = next(name for name in weights if name.endswith("layer.1.attention.self.query.weight"))
        save_file({(f"{one}.taken_apart" if one == name else one): tensor for one, tensor in weights.items()}, file)
        state = merged_state(model)
        write_tuned(checkpoint, encoder.spec, state, into)
        assert sorted(one.name for one in into.glob("*.safetensors*")) == ["model.safetensors"]
        require_same(checkpoint, encoder.spec, state, into)


def test_weights_of_another_precision_are_neither_trained_nor_taken_along(
    folders: Callable[[str], Path], tmp_path: Path
) -> None:
    """As hubs keep them beside the weights: `model.fp16.safetensors` comes before `model.safetensors` by name."""
    base, into = tmp_path / "base", tmp_path / "tuned"
    shutil.copytree(folders("plain"), base)
    halved = {name: tensor.half() for name, tensor in load_file(base / "model.safetensors").items()}
    save_file(halved, base / "model.fp16.safetensors", metadata={"format": "pt"})
    encoder, model = trained(base)
    checkpoint = open_checkpoint(str(base))
    assert checkpoint.digest == open_checkpoint(str(folders("plain"))).digest
    state = {name: tensor + 1 if tensor.is_floating_point() else tensor for name, tensor in merged_state(model).items()}
    write_tuned(checkpoint, encoder.spec, state, into)
    assert [one.name for one in into.glob("*.safetensors")] == ["model.safetensors"]
    require_same(checkpoint, encoder.spec, state, into)


def test_code_goes_along_only_where_the_model_needs_it(folders: Callable[[str], Path], tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(folders("plain"), base)
    (base / "modeling_own.py").write_text("", encoding="utf-8")
    (base / "pytorch_model.bin").write_bytes(b"")
    checkpoint = open_checkpoint(str(base))
    for remote in (False, True):
        one = replace(checkpoint, facts=replace(checkpoint.facts, remote=remote))
        write_model(one, {}, {}, tmp_path / str(remote))
        assert (tmp_path / str(remote) / "modeling_own.py").exists() is remote
        assert not (tmp_path / str(remote) / "pytorch_model.bin").exists()


def test_a_base_that_cannot_be_written_is_told(folders: Callable[[str], Path], tmp_path: Path) -> None:
    base = folders("plain")
    encoder, model = trained(base, **options_of("plain"))
    checkpoint, state = open_checkpoint(str(base)), merged_state(model)
    write_tuned(checkpoint, encoder.spec, state, tmp_path)
    name = "transformer.embeddings.word_embeddings.weight"
    with pytest.raises(ModelError, match=r"opens as it was: embeddings\.word_embeddings\.weight differs, and 0 more"):
        require_same(checkpoint, encoder.spec, state | {name: state[name] + 1}, tmp_path)
    wrong = {"embeddings.word_embeddings.weight": state[name][:5]}
    with pytest.raises(ModelError, match="was trained otherwise"):
        write_model(checkpoint, wrong, {}, tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match="cannot be written so that it opens again"):
        require_same(checkpoint, encoder.spec, state, tmp_path)


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """Its positions have no end, so that every way to cut windows goes with it."""
    folder = save_sentence_transformer(tmp_path_factory.mktemp("dense") / "model", "modernbert")
    return open_checkpoint(str(folder))


@pytest.fixture(scope="module")
def colbert(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return open_checkpoint(str(pylate(tmp_path_factory.mktemp("colbert") / "model", PYLATE)))


@settings(max_examples=250)
@given(st.data())
def test_the_settings_that_are_written_give_the_spec_again(
    dense: Checkpoint, colbert: Checkpoint, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    checkpoint, names = (dense, DENSE) if data.draw(st.booleans()) else (colbert, MULTIVECTOR)
    chosen: Mapping[str, Any] = data.draw(some(names))
    method: Any = "late" if checkpoint is dense else "late-interaction"
    try:
        spec = make_spec(checkpoint, EncoderOptions(method=method, **chosen))
    except ConfigError:
        event("refused")
        assume(False)
    folder = tmp_path_factory.getbasetemp() / "settings"
    folder.mkdir(exist_ok=True)
    write_settings(folder, settings_of(spec, checkpoint))
    said = read_settings(folder)
    assert said is not None
    tuned = replace(checkpoint, trained=said, method=said.method)
    assert make_spec(tuned, EncoderOptions()) == spec
    assert make_spec(tuned, EncoderOptions.of(spec)) == spec
