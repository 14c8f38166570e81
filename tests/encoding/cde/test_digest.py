"""Who a model is, to the letter: indexes of earlier releases know theirs by these sums."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from ctxindex.encoding import open_checkpoint
from tests.encoding.tiny import write_json

CONFIG = {"model_type": "bert", "hidden_size": 4, "num_hidden_layers": 2, "max_position_embeddings": 16}
MODULES = [
    {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
    for number, (kind, path) in enumerate([("Transformer", ""), ("Pooling", "1_Pooling"), ("Dense", "2_Dense")])
]
SETTINGS = {
    "context_size": 8,
    "share_stages": False,
    "first_stage": "",
    "first_stage_digest": "",
    "output_head": False,
    "context_bias_init": -2.0,
    "version": 1,
}
"""As the first release wrote them."""

ONE, SHARDED = ("model",), ("model-00001-of-00002", "model-00002-of-00002")


def header(**tensors: list[int]) -> bytes:
    """The header of a safetensors file; its bytes are ours, whatever the library writes."""
    entries = {name: {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]} for name, shape in tensors.items()}
    said = json.dumps({name.replace("_", "."): entry for name, entry in entries.items()}).encode()
    return len(said).to_bytes(8, "little") + said


def save(folder: Path, files: tuple[str, ...], *, dense: bool = False) -> Path:
    """An ordinary model; nothing reads its weights here."""
    write_json(folder / "config.json", CONFIG)
    write_json(folder / "tokenizer.json", {"version": "1.0"})
    write_json(folder / "modules.json", MODULES if dense else MODULES[:2])
    write_json(folder / "1_Pooling" / "config.json", {"pooling_mode": "mean"})
    for name in files:
        (folder / f"{name}.safetensors").write_bytes(name.encode())
    if len(files) > 1:
        places = {name: f"{name}.safetensors" for name in files}
        write_json(folder / "model.safetensors.index.json", {"weight_map": places})
    if dense:
        said = {"in_features": 4, "out_features": 3, "bias": False, "activation_function": "torch.nn.Identity"}
        write_json(folder / "2_Dense" / "config.json", said)
        (folder / "2_Dense" / "model.safetensors").write_bytes(header(linear_weight=[3, 4]))
    return folder


def save_cde(folder: Path, files: tuple[str, ...] = ONE, *, dense: bool = False, **settings: Any) -> Path:
    """A native CDE model, with its first stage in its folder."""
    save(folder, files, dense=dense)
    save(folder / "first_stage", ONE)
    (folder / "cde.safetensors").write_bytes(b"context")
    write_json(folder / "cde.json", {**SETTINGS, **settings})
    return folder


def test_an_ordinary_model_is_who_it_was(tmp_path: Path) -> None:
    found = {
        "one file": open_checkpoint(str(save(tmp_path / "one", ONE))).digest,
        "shards": open_checkpoint(str(save(tmp_path / "shards", SHARDED))).digest,
        "dense": open_checkpoint(str(save(tmp_path / "dense", ONE, dense=True))).digest,
    }
    assert found == {
        "one file": "9372c470eeadd5ecd9c3c74c2b3cb633f8e2f2fad799250a0f70d652b6b825e4",
        "shards": "840139e3cac1b12a5cf4d73e1902e6ad3daf268a3712e0d4be414c5a57713e75",
        "dense": "0cb83f1011e578eb35344384d8a6c1269f9dab167f0f434c338a8744cbd500ee",
    }
    assert found["one file"] == hashlib.sha256(b"model").hexdigest()


def test_a_cde_model_is_who_it_was(tmp_path: Path) -> None:
    found = {
        "one file": open_checkpoint(str(save_cde(tmp_path / "one"))).digest,
        "shards": open_checkpoint(str(save_cde(tmp_path / "shards", SHARDED))).digest,
        "dense": open_checkpoint(str(save_cde(tmp_path / "dense", dense=True))).digest,
    }
    assert found == {
        "one file": "bf83a60b869b736a06818fdc8454242cb16c131255fb25d557bda92527b09214",
        "shards": "f9c1665845f0ece76ca8187528365aae65a8b34c6027cd1629a168fdcb3789f7",
        "dense": "82c181ed20ea7d3be192fe2c5c2ed4a091e89206e6c3eca9849cc453ef2fbdcb",
    }


@pytest.mark.parametrize("named", ["", "minilm"])
def test_what_is_written_of_a_first_stage_counts_where_it_is_named(tmp_path: Path, named: str) -> None:
    """Else a digest that was left in the settings would speak for whatever lies in the folder."""
    more: dict[str, Any] = {"first_stage_digest": "1" * 64, "first_stage_files": "2" * 64}
    plain = open_checkpoint(str(save_cde(tmp_path / "plain")))
    left = open_checkpoint(str(save_cde(tmp_path / "left", first_stage=named, **more)))
    assert (left.digest == plain.digest) is (named == "")
    (tmp_path / "left" / "first_stage" / "model.safetensors").write_bytes(b"another")
    again = open_checkpoint(str(tmp_path / "left"))
    assert (again.digest == left.digest) is (named != "")
