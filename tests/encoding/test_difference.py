"""A difference of weights: how far off it is, what it leaves alone, and that the way back is the same everywhere."""

from __future__ import annotations

import hashlib
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from safetensors.numpy import load_file, save_file

from ctxindex.encoding import difference as module
from ctxindex.encoding.difference import DifferenceFacts, apply_difference, read_facts, write_difference
from ctxindex.encoding.known_models import MINILM, MINILM_SHA256, find_folder
from ctxindex.encoding.model_files import read_header
from ctxindex.errors import ModelError
from tests.encoding.shipped import CHANGED, save_tuned

SOME: dict[str, Any] = {"a": np.array([[1.0, -2], [-0.0, 3]], np.float32), "b": np.array([1, 2], np.float32)}


def model(folder: Path, tensors: dict[str, Any] = SOME, file: str = "model.safetensors") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text("{}", encoding="utf-8")
    save_file(tensors, folder / file, metadata={"format": "pt"})
    return folder


def changed(**more: Any) -> dict[str, Any]:
    return {**SOME, "a": SOME["a"] + np.array([[0.5, 0], [0, 0]], np.float32), **more}


numbers = st.floats(-(2.0**100), 2.0**100, width=32) | st.floats(-1, 1, width=32)


@given(st.data(), arrays.array_shapes(min_dims=1, max_dims=3, max_side=5))
@settings(max_examples=200)
def test_a_matrix_is_off_by_half_a_step_at_most(data: st.DataObject, shape: tuple[int, ...]) -> None:
    base = data.draw(arrays.arrays(np.float32, shape, elements=numbers))
    tuned = data.draw(arrays.arrays(np.float32, shape, elements=numbers))
    kept = module._kept("w", base, tuned)
    wanted = tuned.astype(np.float64) - base
    if not wanted.any():
        assert kept == {}
        return
    if len(shape) == 1:
        np.testing.assert_array_equal(kept["w"], wanted.astype(np.float32))
        return
    scales = kept["w" + module._SCALES].astype(np.float64)
    assert kept["w"].dtype == np.int8
    assert kept["w"].shape == shape
    rows, levels = wanted.reshape(len(wanted), -1), kept["w"].reshape(len(wanted), -1).astype(np.float64)
    assert np.abs(levels).max() <= 127
    np.testing.assert_allclose(scales, np.abs(rows).max(1) / 127, rtol=2e-7, atol=2e-45)
    assert (np.abs(levels * scales[:, None] - rows) <= scales[:, None] / 2 * (1 + 1e-12)).all()


@pytest.fixture(scope="module")
def base() -> Path:
    return find_folder(MINILM)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tuned(tmp_path_factory.mktemp("tuned") / "model")


def test_minilm_comes_back_tuned(base: Path, tuned: Path, tmp_path: Path) -> None:
    file = tmp_path / "shipped" / "difference.safetensors"
    file.parent.mkdir()
    facts = write_difference(base, tuned, file)
    assert facts == read_facts(file)
    assert facts.base_sha256 == MINILM_SHA256
    assert file.stat().st_size < 1_000_000
    again = tmp_path / "again.safetensors"
    write_difference(base, tuned, again)
    assert again.read_bytes() == file.read_bytes()

    (file.parent / "README.md").write_text("the card", encoding="utf-8")
    apply_difference(base, file, tmp_path / "made")
    made = tmp_path / "made"
    assert hashlib.sha256((made / "model.safetensors").read_bytes()).hexdigest() == facts.weights_sha256
    assert (made / "README.md").read_text(encoding="utf-8") == "the card"
    assert not (made / "ctxindex.json").exists()
    for source in base.rglob("*.json"):
        assert (made / source.relative_to(base)).read_bytes() == source.read_bytes()

    before, after = load_file(base / "model.safetensors"), load_file(made / "model.safetensors")
    wanted = load_file(tuned / "model.safetensors")
    assert before.keys() == after.keys()
    for name in before.keys() - set(CHANGED):
        assert after[name].tobytes() == before[name].tobytes()
    kept = load_file(file)
    for name in CHANGED[:2]:
        steps = kept[name + module._SCALES][:, None]
        rounding = np.spacing(np.abs(wanted[name]))  # of the sum in float32
        assert (np.abs(after[name] - wanted[name]) <= steps / 2 + rounding).all()
        assert (after[name][::7] == before[name][::7]).all()
    np.testing.assert_allclose(after[CHANGED[2]], wanted[CHANGED[2]], rtol=1e-6)


def test_the_bytes_are_known_in_advance(tmp_path: Path) -> None:
    """The numbers by hand: any machine has to find this file, and zero stays what it was."""
    base, file = model(tmp_path / "base"), tmp_path / "difference.safetensors"
    facts = write_difference(base, model(tmp_path / "tuned", changed(b=np.array([1, 2.25], np.float32))), file)
    kept = load_file(file)
    assert kept["a"].tolist() == [[127, 0], [0, 0]]
    np.testing.assert_allclose(kept["a:scales"], [0.5 / 127, 0], rtol=2e-7)
    assert kept["b"].tolist() == [0, 0.25]
    apply_difference(base, file, tmp_path / "made")
    made = tmp_path / "made" / "model.safetensors"
    assert hashlib.sha256(made.read_bytes()).hexdigest() == facts.weights_sha256
    _, header = read_header(base / "model.safetensors")
    assert made.read_bytes()[:header] == (base / "model.safetensors").read_bytes()[:header]
    found = load_file(made)
    np.testing.assert_allclose(found["a"], np.array([[1.5, -2], [0, 3]]), rtol=1e-6)
    assert np.signbit(found["a"][1, 0])
    assert found["b"].tolist() == [1, 2.25]


@pytest.mark.parametrize(
    ("tensors", "complaint"),
    [
        (SOME, "there is no difference to write"),
        ({"a": SOME["a"]}, "there is no difference to write"),
        ({**SOME, "a": SOME["a"] + 0}, "there is no difference to write"),  # other bits of the same numbers
        (changed(c=SOME["b"]), "has no c, which .* has: it is not what that model was tuned from"),
        (changed(b=np.zeros(3, np.float32)), r"b is \(2,\) in the base and \(3,\) in the tuned model"),
        (changed(b=np.zeros(2, np.float16)), "b in .* is F16: a difference is of weights in float32"),
        (changed(b=np.array([1, np.nan], np.float32)), "b holds values that are no numbers"),
        (changed(a=SOME["a"] + np.float32(np.inf)), "a holds values that are no numbers"),
    ],
)
def test_what_is_no_tuned_model_of_the_base_is_refused(tmp_path: Path, tensors: dict[str, Any], complaint: str) -> None:
    base, tuned = model(tmp_path / "base"), model(tmp_path / "tuned", tensors)
    with pytest.raises(ModelError, match=complaint):
        write_difference(base, tuned, tmp_path / "file")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "tuned"]


def test_folders_have_one_file_of_weights(tmp_path: Path) -> None:
    base, tuned = model(tmp_path / "base"), model(tmp_path / "tuned", changed())
    write_difference(base, tuned, tmp_path / "file")
    model(tmp_path / "base", file="more.safetensors")
    for refused in (write_difference, apply_difference):
        with pytest.raises(ModelError, match=r"base has 2 \*\.safetensors files"):
            refused(base, tuned if refused is write_difference else tmp_path / "file", tmp_path / "into")
    assert not (tmp_path / "into").exists()


@pytest.fixture
def small(tmp_path: Path) -> tuple[Path, Path, DifferenceFacts]:
    """A base, a difference and its facts."""
    base, file = model(tmp_path / "base"), tmp_path / "difference.safetensors"
    return base, file, write_difference(base, model(tmp_path / "tuned", changed()), file)


def test_another_base_is_refused(small: tuple[Path, Path, DifferenceFacts], tmp_path: Path) -> None:
    _, file, facts = small
    other = model(tmp_path / "other", changed())
    with pytest.raises(ModelError, match=rf"other \(sha256 .*{facts.base_sha256[:12]}.*: reinstall it"):
        apply_difference(other, file, tmp_path / "into", hint="reinstall it")
    assert not (tmp_path / "into").exists()


def test_a_damaged_difference_is_refused(small: tuple[Path, Path, DifferenceFacts], tmp_path: Path) -> None:
    base, file, facts = small
    good = file.read_bytes()
    said = json.dumps({"format": 1, "base_sha256": facts.base_sha256, "weights_sha256": facts.weights_sha256})
    wrong: dict[str, dict[str, Any]] = {
        "bits": {"a": load_file(file)["a"] - 1, "a:scales": load_file(file)["a:scales"]},
        "shape": {"a": np.zeros((3, 3), np.int8)},
        "name": {"c": np.zeros(3, np.float32)},
    }
    for tensors in wrong.values():
        save_file(tensors, file, metadata={"difference": said})
        with pytest.raises(ModelError, match="is damaged: it does not give the weights that it was made for"):
            apply_difference(base, file, tmp_path / "into")
    file.write_bytes(good[:-3])
    with pytest.raises(ModelError, match=r"difference\.safetensors"):
        apply_difference(base, file, tmp_path / "into")
    for metadata in (None, {"difference": "[]"}, {"difference": "{"}, {"difference": json.dumps({"format": 2})}):
        save_file(SOME, file, metadata=metadata)
        with pytest.raises(ModelError, match=r"is damaged|is no difference of weights in format 1"):
            read_facts(file)
    file.write_text("version https://git-lfs.github.com/spec/v1", encoding="utf-8")
    with pytest.raises(ModelError, match=r"is not a safetensors file: it is damaged, or a pointer of git-lfs"):
        apply_difference(base, file, tmp_path / "into")
    assert not (tmp_path / "into").exists()


def test_weights_in_other_formats_and_cards_of_the_base_are_left_out(
    small: tuple[Path, Path, DifferenceFacts], tmp_path: Path
) -> None:
    base, file, _ = small
    (base / "1_Pooling").mkdir()
    for name in ("pytorch_model.bin", "README.md", "ctxindex.json", "1_Pooling/config.json"):
        (base / name).write_text("of the base", encoding="utf-8")
    apply_difference(base, file, tmp_path / "into")
    made = {str(path.relative_to(tmp_path / "into")) for path in (tmp_path / "into").rglob("*") if path.is_file()}
    assert made == {"1_Pooling/config.json", "config.json", "model.safetensors"}


def test_a_folder_that_is_there_is_put_right(small: tuple[Path, Path, DifferenceFacts], tmp_path: Path) -> None:
    base, file, facts = small
    into = tmp_path / "into"
    apply_difference(base, file, into)
    (into / "model.safetensors").write_bytes(b"")
    (into / "config.json").unlink()
    (into / "more.safetensors").write_bytes(b"")
    apply_difference(base, file, into)
    assert sorted(path.name for path in into.iterdir()) == ["config.json", "model.safetensors"]
    assert hashlib.sha256((into / "model.safetensors").read_bytes()).hexdigest() == facts.weights_sha256
    assert not list(tmp_path.glob("*.tmp"))


def test_it_can_be_made_many_times_at_once(small: tuple[Path, Path, DifferenceFacts], tmp_path: Path) -> None:
    base, file, facts = small
    for into in (tmp_path / "new", tmp_path / "damaged"):
        if into.name == "damaged":
            model(into)
        gate, failures = threading.Barrier(8), list[BaseException]()

        def make(into: Path = into, gate: threading.Barrier = gate, failures: list[BaseException] = failures) -> None:
            gate.wait()
            try:
                apply_difference(base, file, into)
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=make) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert hashlib.sha256((into / "model.safetensors").read_bytes()).hexdigest() == facts.weights_sha256
        assert sorted(path.name for path in into.iterdir()) == ["config.json", "model.safetensors"]
    assert not list(tmp_path.glob("*.tmp"))


def test_nothing_is_left_where_nothing_can_be_written(
    small: tuple[Path, Path, DifferenceFacts], tmp_path: Path
) -> None:
    base, file, _ = small
    with pytest.raises(OSError, match="config"):
        apply_difference(base, file, base / "config.json" / "into")
    (tmp_path / "into").write_text("a file", encoding="utf-8")
    with pytest.raises(OSError, match="into"):
        apply_difference(base, file, tmp_path / "into")
    with pytest.raises(ModelError, match="cannot write"):
        write_difference(base, tmp_path / "tuned", base / "config.json" / "file")
    assert not list(tmp_path.rglob("*.tmp"))
