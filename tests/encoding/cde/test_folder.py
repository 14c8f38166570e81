"""Folders of CDE models: what is written, what is read of it, what is refused; and the specs that follow."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from ctxindex.encoding import EncoderOptions, load_encoder, open_checkpoint
from ctxindex.encoding.cde.corpus_context import CorpusContext
from ctxindex.encoding.cde.encoder import CdeEncoder
from ctxindex.encoding.cde.folder import initial_parts, make_native_cde
from ctxindex.encoding.cde.settings import NativeCde, read_cde
from ctxindex.encoding.encoder import restore_encoder
from ctxindex.encoding.local import LocalEncoder
from ctxindex.encoding.trained import TrainedSettings, read_settings, write_settings
from ctxindex.errors import ConfigError, MismatchError, ModelError, UsageError
from ctxindex.spec import ChunkerSpec, IndexSpec
from tests.encoding.tiny import HIDDEN, TEXTS, save_sentence_transformer


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_sentence_transformer(tmp_path_factory.mktemp("base") / "bert", prompts={"document": "passage: "})


@pytest.fixture(scope="module")
def made(base: Path) -> Path:
    return make_native_cde(str(base), base.parent / "cde")


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(made, tmp_path / "cde"))


def opened(folder: Path, **options: Any) -> CdeEncoder:
    encoder = load_encoder(str(folder), EncoderOptions(device="cpu", dtype="float32", **options))
    assert isinstance(encoder, CdeEncoder)
    return encoder


def test_the_root_is_an_ordinary_model(made: Path, base: Path) -> None:
    from sentence_transformers import SentenceTransformer

    plain, itself = (SentenceTransformer(str(one), device="cpu").encode(TEXTS) for one in (base, made))
    assert np.array_equal(plain, itself)
    late = load_encoder(str(made), EncoderOptions("late", device="cpu", dtype="float32"))
    assert type(late) is LocalEncoder  # the control: the second stage without any context
    assert late.spec.context == ""


def test_what_is_written_is_read(made: Path) -> None:
    checkpoint = open_checkpoint(str(made))
    assert checkpoint.method == "cde"
    assert checkpoint.cde == read_cde(made) == NativeCde()
    assert checkpoint.first_stage is not None
    assert checkpoint.first_stage.folder == made / "first_stage"
    assert not (made / "first_stage" / "cde.json").exists()
    encoder = opened(made)
    assert encoder.settings == NativeCde()
    context = encoder.encode_context(TEXTS)
    assert context.prefix == "passage: "
    assert context.vectors.shape == (len(TEXTS), HIDDEN)


def test_the_first_context_tokens_are_as_long_as_words(made: Path) -> None:
    tensors = load_file(made / "cde.safetensors")
    words = load_file(made / "model.safetensors")["embeddings.word_embeddings.weight"].norm(dim=1).mean()
    vectors = torch.from_numpy(opened(made).encode_context(TEXTS).vectors)
    tokens = vectors @ tensors["projection.weight"].T
    assert 0.7 < float(tokens.norm(dim=1).mean() / words) < 1.4
    assert torch.equal(tensors["projection.weight"], tensors["projection.weight"][0, 0] * torch.eye(HIDDEN))
    assert torch.equal(tensors["bias"], torch.full((2,), -2.0))
    assert 0.5 < float(tensors["null"].norm() / words) < 1.5


def test_stages_of_different_sizes_begin_with_a_projection_that_keeps_angles(made: Path, base: Path) -> None:
    minilm = open_checkpoint("minilm")
    parts = initial_parts(open_checkpoint(str(base)), minilm, NativeCde())
    weight = parts.projection[0]
    assert weight.shape == (HIDDEN, minilm.dim)
    square = weight @ weight.T
    assert torch.allclose(square, square[0, 0] * torch.eye(HIDDEN), atol=1e-6)
    again = initial_parts(open_checkpoint(str(base)), minilm, NativeCde())
    assert torch.equal(again.projection[0], weight)


def test_one_network_may_be_both_stages(base: Path, tmp_path: Path) -> None:
    shared = make_native_cde(str(base), tmp_path / "shared", NativeCde(share_stages=True))
    assert not (shared / "first_stage").exists()
    checkpoint = open_checkpoint(str(shared))
    assert checkpoint.first_stage is None
    apart = opened(make_native_cde(str(base), tmp_path / "apart"))
    contexts = [one.encode_context(TEXTS) for one in (opened(shared), apart)]
    assert np.abs(contexts[0].vectors - contexts[1].vectors).max() < 1e-6
    assert contexts[0].context_id != contexts[1].context_id


def test_what_a_model_says_of_late_chunking_holds_with_a_context(base: Path, tmp_path: Path) -> None:
    trained = Path(shutil.copytree(base, tmp_path / "trained"))
    write_settings(trained, TrainedSettings("late", anchor=8, blend=0.3))
    folder = make_native_cde(str(trained), tmp_path / "cde")
    assert read_settings(folder) == TrainedSettings("cde", anchor=8, blend=0.3)
    spec = opened(folder).spec
    assert (spec.method, spec.anchor, spec.blend) == ("cde", 8, 0.3)


def test_everything_in_the_folder_decides_who_it_is(made: Path, folder: Path) -> None:
    before = open_checkpoint(str(made)).digest
    assert open_checkpoint(str(folder)).digest == before
    tensors = load_file(folder / "cde.safetensors")
    save_file(tensors | {"bias": tensors["bias"] + 1}, folder / "cde.safetensors")
    seen = {before, open_checkpoint(str(folder)).digest}
    save_file(tensors, folder / "cde.safetensors")
    weights = load_file(folder / "first_stage" / "model.safetensors")
    weights["embeddings.LayerNorm.bias"] += 1
    save_file(weights, folder / "first_stage" / "model.safetensors", metadata={"format": "pt"})
    seen.add(open_checkpoint(str(folder)).digest)
    assert len(seen) == 3


def test_everything_that_decides_a_context_is_in_its_name(made: Path, folder: Path) -> None:
    """Texts, prefix, and the weights of either stage; what reads it with another name is refused."""

    def named(texts: list[str] = TEXTS, place: Path = folder) -> str:
        return opened(place).encode_context(texts).context_id

    assert named() == named(place=made)
    seen = [named(), named([*TEXTS[:-1], TEXTS[-1] + "."])]
    context = opened(made).encode_context(TEXTS)
    for file, name in (
        ("model.safetensors", "embeddings.LayerNorm.bias"),
        ("first_stage/model.safetensors", "embeddings.LayerNorm.bias"),
        ("cde.safetensors", "null"),
    ):
        tensors = load_file(folder / file)
        save_file(tensors | {name: tensors[name] + 1}, folder / file, metadata={"format": "pt"})
        seen.append(named())
        with pytest.raises(MismatchError, match="made by another model"):
            opened(folder).with_context(context)
        save_file(tensors, folder / file, metadata={"format": "pt"})
    prompts = folder / "first_stage" / "config_sentence_transformers.json"
    prompts.write_text(json.dumps({"prompts": {"document": "text: "}}), encoding="utf-8")
    seen.append(named())
    assert len(set(seen)) == len(seen)


def test_its_own_tensors_decide_who_it_is_wherever_the_weights_lie(base: Path, tmp_path: Path) -> None:
    """Older folders have the transformer in 0_Transformer."""
    older = Path(shutil.copytree(base, tmp_path / "older"))
    (older / "0_Transformer").mkdir()
    for file in [one for one in older.iterdir() if one.is_file() and not one.name.endswith("modules.json")]:
        if not file.name.startswith("config_sentence"):
            file.rename(older / "0_Transformer" / file.name)
    modules = json.loads((older / "modules.json").read_text())
    modules[0]["path"] = "0_Transformer"
    (older / "modules.json").write_text(json.dumps(modules))
    folder = make_native_cde(str(older), tmp_path / "cde")
    assert open_checkpoint(str(folder)).backbone != folder
    before = open_checkpoint(str(folder)).digest
    tensors = load_file(folder / "cde.safetensors")
    save_file(tensors | {"bias": tensors["bias"] + 1}, folder / "cde.safetensors")
    assert open_checkpoint(str(folder)).digest != before


def test_the_first_stage_is_the_mean_over_all_tokens_whatever_it_says_of_pooling(folder: Path) -> None:
    before = opened(folder).encode_context(TEXTS).vectors
    file = folder / "first_stage" / "1_Pooling" / "config.json"
    said = json.loads(file.read_text())
    assert said.get("include_prompt", True)
    for other in ({"include_prompt": False}, {"pooling_mode": "cls"}):
        file.write_text(json.dumps({**said, **other}))
        assert np.array_equal(opened(folder).encode_context(TEXTS).vectors, before)


def changed(**values: Any) -> Callable[[Path], object]:
    text = json.dumps({**asdict(NativeCde()), **values})
    return lambda folder: (folder / "cde.json").write_text(text)


def with_tensors(**tensors: torch.Tensor) -> Callable[[Path], object]:
    def spoil(folder: Path) -> None:
        file = folder / "cde.safetensors"
        save_file(load_file(file) | tensors, file)

    return spoil


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (changed(version=2), "upgrade ctxindex"),
        (changed(more=1), "missing or unknown: more"),
        (changed(context_size="many"), "context_size is 'many'"),
        (changed(context_size=0), "1 or more"),
        (changed(share_stages=1), "must be of the kind bool"),
        (changed(output_head=True), "with an output head"),
        (lambda folder: (folder / "cde.safetensors").unlink(), "cannot read"),
        (lambda folder: (folder / "cde.safetensors").write_bytes(b"?"), "cannot read"),
        (lambda folder: save_file({"null": torch.zeros(3)}, folder / "cde.safetensors"), "has no tensor"),
        (with_tensors(null=torch.full((HIDDEN,), torch.nan)), "null has values that are not numbers"),
        (with_tensors(bias=torch.tensor([torch.inf, 0.0])), "bias has values that are not numbers"),
        (with_tensors(null=torch.zeros(HIDDEN, 1)), "do not fit"),
        (with_tensors(null=torch.zeros(HIDDEN, dtype=torch.int64)), "do not fit"),
        (with_tensors(**{"projection.weight": torch.tensor(1.0)}), "do not fit"),
        (lambda folder: shutil.rmtree(folder / "first_stage"), "no model folder"),
    ],
)
def test_damaged_folders_are_told(spoil: Callable[[Path], object], said: str, folder: Path) -> None:
    spoil(folder)
    with pytest.raises(ModelError, match=said):
        opened(folder).encode_queries(["words"])


def test_a_second_stage_must_be_of_a_kind_that_is_known_to_read_a_context(tmp_path: Path) -> None:
    causal = save_sentence_transformer(tmp_path / "causal", "qwen3-causal")
    local = save_sentence_transformer(tmp_path / "local", "qwen3")
    config = json.loads((local / "config.json").read_text())
    (local / "config.json").write_text(json.dumps(config | {"layer_types": ["full_attention", "sliding_attention"]}))
    for base in (causal, local):
        with pytest.raises(ModelError, match=r"do not see all of a text.*a bidirectional model \(BERT, RoBERTa"):
            make_native_cde(str(base), tmp_path / "cde")
        assert not (tmp_path / "cde").exists()


def test_what_is_no_base_or_no_new_folder_is_refused(made: Path, base: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="a CDE model already"):
        make_native_cde(str(made), tmp_path / "new")
    with pytest.raises(UsageError, match="is there already"):
        make_native_cde(str(base), made)
    pooled = save_sentence_transformer(tmp_path / "cls", pooling="cls")
    with pytest.raises(ModelError, match="pools by the state of CLS") as told:
        make_native_cde(str(pooled), tmp_path / "new")
    assert "--force-mean" not in str(told.value)
    assert "mean-pooled" in str(told.value)


@pytest.mark.parametrize("there", [True, False])
def test_a_copy_that_fails_half_way_is_removed(
    base: Path, there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "new"
    if there:
        out.mkdir()
    copied: list[object] = []
    copyfile = shutil.copyfile

    def filling(*files: Any, **more: Any) -> Any:
        copied.append(files)
        if len(copied) > 3:
            raise OSError("no space left")
        return copyfile(*files, **more)

    monkeypatch.setattr(shutil, "copyfile", filling)
    with pytest.raises(ModelError, match=r"cannot write .*no space left"):
        make_native_cde(str(base), out)
    assert out.exists() == there
    assert not there or not any(out.iterdir())


def test_a_method_needs_its_model(base: Path, made: Path) -> None:
    with pytest.raises(ModelError, match="--method cde needs a model with two stages"):
        load_encoder(str(base), EncoderOptions("cde"))
    with pytest.raises(ConfigError, match="--windows chunk goes with --method cde"):
        load_encoder(str(made), EncoderOptions("late", windows="chunk"))
    with pytest.raises(ConfigError, match="--anchor goes with other --windows, not with chunk"):
        opened(made, windows="chunk", anchor=8)


@pytest.mark.parametrize("options", [{}, {"windows": "chunk"}, {"anchor": 8, "blend": 0.3, "join": "raw", "dims": 8}])
def test_an_encoder_comes_back_from_its_spec(options: dict[str, Any], made: Path) -> None:
    encoder = opened(made, **options)
    context = encoder.encode_context(TEXTS)
    stored = encoder.with_context(context).spec
    assert stored.context == context.context_id
    restored = restore_encoder(stored, device="cpu", context=context)
    assert restored.spec == stored
    assert restore_encoder(encoder.spec, device="cpu").spec == encoder.spec
    with pytest.raises(MismatchError, match=r"is the one that built this index.*the model's null context: give"):
        restore_encoder(stored, device="cpu")
    with pytest.raises(MismatchError, match="reads none"):
        restore_encoder(load_encoder("minilm").spec, context=context)


def test_a_context_of_another_model_is_refused(made: Path, folder: Path) -> None:
    context = opened(made).encode_context(TEXTS)
    opened(folder).with_context(context)  # a copy is the same model
    tensors = load_file(folder / "cde.safetensors")
    save_file(tensors | {"null": tensors["null"] + 1}, folder / "cde.safetensors")
    with pytest.raises(MismatchError, match="made by another model"):
        opened(folder).with_context(context)


def test_another_model_is_told_apart_before_its_context_is(made: Path, folder: Path, tmp_path: Path) -> None:
    made = Path(shutil.copytree(made, tmp_path / "original"))
    encoder = opened(made)
    context = encoder.encode_context(TEXTS)
    stored = encoder.with_context(context).spec
    tensors = load_file(folder / "cde.safetensors")
    save_file(tensors | {"null": tensors["null"] + 1}, folder / "cde.safetensors")
    for other in (str(folder), "minilm"):  # one that reads a context, and one that reads none
        with pytest.raises(MismatchError) as told:
            restore_encoder(stored, model=other, device="cpu", context=context)
        lines = str(told.value).splitlines()
        assert lines[0] == f"the model {other} is not the one that built this index:"
        assert lines[1].startswith("  digest: index ")
        assert "context" not in "".join(lines[1:-1])
        assert lines[-1] == f"give {made} with --model, or ingest into a new index (--index NAME)"
    moved = made.rename(tmp_path / "moved")
    with pytest.raises(ModelError, match=f"the model in {made}, and nothing is there now: give its folder with"):
        restore_encoder(stored, device="cpu", context=context)
    assert restore_encoder(stored, model=str(moved), device="cpu", context=context).spec.digest == stored.digest


def test_a_context_that_does_not_fit_is_refused(made: Path) -> None:
    encoder = opened(made)
    context = encoder.encode_context(TEXTS)
    vectors, layers = context.vectors, context.layers
    assert layers is not None
    nowhere = np.full_like(layers, np.nan)
    for wrong in (vectors[:0], vectors[:, :-1], vectors[0], np.full_like(vectors, np.inf)):
        with pytest.raises(ConfigError, match="finite numbers"):
            encoder.with_context(replace(context, vectors=wrong, layers=None))
    for other in (layers[:1], layers[:, :1], layers[:, :, :1], layers[:, :, :, :-1], layers[..., :-1], nowhere):
        with pytest.raises(ConfigError, match="make it with encode_context"):
            encoder.with_context(replace(context, layers=other))


def test_a_first_stage_of_another_width_is_told(folder: Path) -> None:
    with_tensors(**{"projection.weight": torch.ones(HIDDEN, HIDDEN + 1)})(folder)
    with pytest.raises(ModelError, match=f"vectors of {HIDDEN} numbers, and the second was made for {HIDDEN + 1}"):
        opened(folder).encode_context(TEXTS)


def test_drift_is_from_a_context_of_the_same_model_and_counts_texts_once(made: Path) -> None:
    encoder = opened(made)
    context = encoder.encode_context(TEXTS)
    moved = encoder.drift(context, TEXTS[:3])
    assert encoder.drift(encoder.encode_context(TEXTS * 2), TEXTS[:3] * 3) == pytest.approx(moved, rel=1e-4)
    with pytest.raises(MismatchError, match="made by another model"):
        encoder.drift(replace(context, model="another"), TEXTS)


def test_a_context_without_layers_is_read_again(made: Path) -> None:
    encoder = opened(made)
    context = encoder.encode_context(TEXTS)
    light = CorpusContext(context.context_id, context.model, context.vectors, None, context.prefix, context.texts)
    whole, again = (encoder.with_context(one).encode_queries(TEXTS) for one in (context, light))
    assert np.array_equal(whole, again)


def test_contexts_are_made_of_texts(made: Path) -> None:
    encoder = opened(made)
    with pytest.raises(UsageError, match="one text or more"):
        encoder.encode_context([])
    with pytest.raises(UsageError, match="nothing in text 1"):
        encoder.encode_context(["words", "  "])
    long = " ".join(TEXTS * 9)  # more than a window: read in pieces
    assert encoder.encode_context([long]).vectors.shape == (1, HIDDEN)


def test_specs_without_a_context_are_what_they_were() -> None:
    plain = load_encoder("minilm", EncoderOptions("late", dtype="float32")).spec
    spec = IndexSpec(1, ChunkerSpec("recursive", 128, "tokens", 0), plain)
    stored = spec.to_json()
    del stored["encoder"]["context"]
    assert IndexSpec.from_json(stored).fingerprint == spec.fingerprint
    in_context = replace(spec, encoder=replace(plain, context="null"))
    assert in_context.fingerprint != spec.fingerprint
    assert in_context.differences(spec) == [("encoder.context", "null", "")]
