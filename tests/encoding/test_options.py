"""Specs that come back from what is stored, and models that are not quite the one that made an index."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ctxindex.encoding import EncoderOptions, load_encoder
from ctxindex.encoding.encoder import restore_encoder
from ctxindex.encoding.local import LocalEncoder
from ctxindex.errors import ConfigError, MismatchError, UsageError
from ctxindex.spec import ChunkerSpec, IndexSpec
from ctxindex.types import EncodedDocument
from tests.encoding.stand_in import chunked
from tests.encoding.test_colbert import PYLATE, pylate
from tests.encoding.tiny import HIDDEN, save_sentence_transformer

TOKEN_WINDOW = {"join": "raw", "windows": "token-window"}


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from sentence_transformers.base.modules import Dense

    folder = tmp_path_factory.mktemp("dense") / "model"
    prompts = {"query": "search query: ", "passage": "search document: "}
    return save_sentence_transformer(folder, "modernbert", behind=[Dense(HIDDEN, 20)], prompts=prompts)


@pytest.fixture(scope="module")
def cls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_sentence_transformer(tmp_path_factory.mktemp("cls") / "model", "bert", "cls")


@pytest.fixture(scope="module")
def colbert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pylate(tmp_path_factory.mktemp("colbert") / "model", PYLATE)


def load(folder: Path, **options: Any) -> LocalEncoder:
    return load_encoder(str(folder), EncoderOptions(device="cpu", **options))


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("dense", {}),
        ("dense", {"method": "independent", "dims": 7, "dtype": "bfloat16"}),
        ("dense", {"method": "late", "max_tokens": 64, "anchor": 9, "anchor_title": True, "owner": "mean"}),
        ("dense", {"method": "late", "blend": 0.3, "isolated": "title", "dims": 8}),
        ("dense", {"method": "late", "owner": "first", "isolated": "title", "max_tokens": "model"}),
        ("dense", {"method": "late", "join": "raw", "pooling": "inclusive", "blend": 0.2, "anchor": 5}),
        ("dense", {"method": "late", "join": "raw", "windows": "token-window"}),
        ("dense", {"method": "late", "join": "raw", "windows": "token-window", "window_overlap": 0}),
        ("dense", {"method": "late", "join": "raw", "windows": "token-window", "window_overlap": 7, "blend": 0.5}),
        ("dense", {"method": "late", "windows": "full", "pooling": "authors-compat"}),
        ("dense", {"method": "late", "windows": "full", "join": "raw", "anchor_title": True}),
        ("cls", {"method": "independent"}),
        ("cls", {"method": "late", "force_mean": True, "blend": 0.9, "anchor": 16}),
        ("colbert", {}),
        ("colbert", {"anchor": 8, "anchor_title": True, "owner": "first", "pool_factor": 2, "skiplist": "model"}),
        ("colbert", {"pooling": "inclusive", "max_tokens": 48, "anchor": 12}),
        ("colbert", {"pooling": "authors-compat", "owner": "first"}),
        ("colbert", {"blend": 0.4, "isolated": "opening", "anchor": 8, "pool_factor": 3, "skiplist": "model"}),
        ("colbert", {**TOKEN_WINDOW, "blend": 0.5, "isolated": "title"}),
        ("colbert", {"join": "raw", "windows": "token-window", "window_overlap": 12, "pooling": "inclusive"}),
    ],
)
def test_an_encoder_comes_back_from_its_stored_spec(
    model: str, options: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    spec = load(request.getfixturevalue(model), **options).spec
    whole = IndexSpec(1, ChunkerSpec("recursive", 128, "tokens", 0), spec)
    stored = IndexSpec.from_json(json.loads(json.dumps(whole.to_json()))).encoder
    assert stored == spec
    assert restore_encoder(stored, device="cpu").spec == spec


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"join": "glue"}, "--join glue is none of sep, raw"),
        ({"pooling": "compat"}, "--pooling compat is none of strict, inclusive, authors-compat"),
        ({"windows": "all"}, "--windows all is none of window, token-window, full"),
        ({"pooling": "authors-compat", "join": "raw"}, "joins chunks by separators: it goes with --join sep"),
        ({"pooling": "authors-compat", "anchor": 8}, "that has no --anchor"),
        ({"pooling": "authors-compat", "blend": 0.5}, "that has no --blend"),
        ({"pooling": "authors-compat", "anchor_title": True}, "--anchor-title puts the title between"),
        ({"pooling": "inclusive", "anchor_title": True}, "--anchor-title puts the title between"),
        ({"pooling": "inclusive", "blend": 0.5, "isolated": "title"}, "--isolated puts the title between"),
        ({"windows": "token-window"}, "add --join raw"),
        ({"window_overlap": 8, "owner": "mean"}, "--window-overlap goes with --owner centre or --windows token-window"),
        ({"window_overlap": 33}, "--window-overlap 33 must be 0 to 32 tokens"),
        (
            {"windows": "full", "window_overlap": 8},
            "--window-overlap goes with --windows window or token-window, not with full",
        ),
        ({**TOKEN_WINDOW, "window_overlap": 65}, "--window-overlap 65 must be 0 to 64 tokens"),
        ({**TOKEN_WINDOW, "window_overlap": -1}, "--window-overlap -1"),
        ({**TOKEN_WINDOW, "owner": "first"}, "--owner goes with --windows window, not with token-window"),
        ({**TOKEN_WINDOW, "anchor": 8}, "--anchor goes with --windows window, not with token-window"),
        ({**TOKEN_WINDOW, "anchor_title": True}, "--anchor-title goes with --windows window or full"),
        ({"windows": "full", "anchor": 8}, "--anchor goes with --windows window, not with full"),
    ],
)
def test_windows_that_cannot_work_are_refused_by_name(dense: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(dense, method="late", **options)
    for name in ("join", "pooling", "windows"):
        with pytest.raises(
            ConfigError, match=f"--{name} goes with --method late, late-interaction or cde, not with indep"
        ):
            load(dense, method="independent", **{name: options.get(name, "sep")})


def test_a_full_pass_is_for_models_whose_positions_have_no_end(cls: Path, colbert: Path) -> None:
    for folder, options in ((cls, {"method": "late", "force_mean": True}), (colbert, {})):
        with pytest.raises(ConfigError, match=r"BERT has learnt a state for each of its 128 .* Use --windows window"):
            load(folder, windows="full", **options)


def test_a_prefix_that_fills_the_window_is_refused(tmp_path: Path) -> None:
    prompts = {"query": "", "document": "Napoleon was born in Corsica and died in exile: "}
    encoder = load(save_sentence_transformer(tmp_path / "model", prompts=prompts), method="late", max_tokens=16)
    with pytest.raises(ConfigError, match="leaves no room for text in windows of 16 tokens"):
        list(encoder.encode_documents([chunked("a", ["the law", "of Delaware " * 9])]))


def test_windows_of_tokens_share_what_the_reference_does_or_a_quarter(dense: Path) -> None:
    assert load(dense, method="late", **TOKEN_WINDOW).spec.overlap == 32
    assert load(dense, method="late", **TOKEN_WINDOW, max_tokens=64).spec.overlap == 16


def edited(folder: Path, to: Path, file: str, change: Callable[[dict[str, Any]], object], indent: int | None) -> Path:
    shutil.copytree(folder, to)
    target = next(to.rglob(file))
    values = json.loads(target.read_text(encoding="utf-8"))
    change(values)
    target.write_text(json.dumps(values, indent=indent, sort_keys=True), encoding="utf-8")
    return to


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("tokenizer.json", lambda values: None),
        ("tokenizer.json", lambda values: values.update(truncation=None, padding=None)),
        ("config.json", lambda values: values.update(transformers_version="1", torch_dtype="float32", use_cache=True)),
    ],
    ids=["written otherwise", "habits", "words about the file"],
)
def test_files_that_say_the_same_are_the_same_model(
    cls: Path, tmp_path: Path, file: str, change: Callable[[dict[str, Any]], object]
) -> None:
    spec = load(cls).spec
    again = edited(cls, tmp_path / "again", file, change, indent=4)
    assert restore_encoder(spec, model=str(again), device="cpu").spec.files == spec.files


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("tokenizer.json", lambda values: values["normalizer"].update(lowercase=False)),
        ("config.json", lambda values: values.update(hidden_act="relu")),
    ],
    ids=["normaliser", "activation"],
)
def test_the_same_weights_with_other_files_are_refused(
    cls: Path, tmp_path: Path, file: str, change: Callable[[dict[str, Any]], object]
) -> None:
    spec = load(cls).spec
    other = edited(cls, tmp_path / "other", file, change, indent=None)
    assert load(other).spec.digest == spec.digest
    with pytest.raises(MismatchError, match="files: index"):
        restore_encoder(spec, model=str(other), device="cpu")


def test_both_views_of_a_blend_go_through_the_last_modules(dense: Path) -> None:
    texts = ["Napoleon was born in Corsica.", "He became emperor; and then, he died in exile!"]

    def vectors(**options: Any) -> np.ndarray:
        (result,) = load(dense, method="late", dims=8, **options).encode_documents([chunked("a", texts)])
        assert isinstance(result, EncodedDocument)
        assert result.vectors.shape == (2, 8)
        return result.vectors

    def alone(text: str) -> Any:
        (result,) = load(dense, method="late", dims=8).encode_documents([chunked("b", [text])])
        assert isinstance(result, EncodedDocument)
        return result.vectors[0]

    mixed = 0.7 * vectors() + 0.3 * np.stack([alone(text) for text in texts])
    expected = mixed / np.linalg.norm(mixed, axis=1, keepdims=True)
    np.testing.assert_allclose(vectors(blend=0.3), expected, atol=2e-6)


@pytest.mark.parametrize("text", ["", " "])
def test_a_query_of_nothing_is_refused_with_every_method(dense: Path, colbert: Path, text: str) -> None:
    for folder in (dense, colbert):
        with pytest.raises(UsageError, match="there is nothing in the query"):
            load(folder).encode_queries(["Napoleon", text])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"blend": 1.0}, "--blend 1.0 must be at least 0 and less than 1$"),
        ({"blend": 0.5, "isolated": "whole"}, "--isolated whole is none of chunk, title, opening"),
        ({"blend": 0.5, "pooling": "inclusive"}, "special tokens, which have no second: leave one of both out"),
        ({"blend": 0.5, "pooling": "authors-compat"}, "that has no --blend"),
        ({"isolated": "title", "pooling": "inclusive"}, "--isolated puts the title between"),
        ({"owner": "mean"}, "--owner mean"),
        ({"owner": "last"}, "--owner last is none of centre, first, mean"),
        ({"anchor": 1000}, "--anchor 1000"),
        ({"anchor_title": True, "pooling": "authors-compat"}, "--anchor-title"),
    ],
)
def test_what_late_interaction_cannot_do_is_refused_by_name(
    colbert: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        load(colbert, **options)
