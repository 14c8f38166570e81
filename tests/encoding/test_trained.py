"""What a trained model says of itself: how it is read, what gives way to what, and that specs come back."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from ctxindex.encoding import Checkpoint, EncoderOptions, load_encoder, open_checkpoint
from ctxindex.encoding.encoder import restore_encoder
from ctxindex.encoding.options import make_spec
from ctxindex.encoding.trained import FILE, TrainedSettings, read_settings, write_settings
from ctxindex.errors import ConfigError, ModelError
from ctxindex.index import Index
from ctxindex.spec import ISOLATED, JOINS, METHODS, OWNERS, POOLINGS, WINDOWS, EncoderSpec
from tests.encoding.test_colbert import PYLATE, pylate
from tests.encoding.tiny import save_sentence_transformer, write_json


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    folder = save_sentence_transformer(tmp_path_factory.mktemp("dense") / "model", "modernbert")
    return open_checkpoint(str(folder))


@pytest.fixture(scope="module")
def colbert(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return open_checkpoint(str(pylate(tmp_path_factory.mktemp("colbert") / "model", PYLATE)))


def spec(checkpoint: Checkpoint, trained: dict[str, Any] | None, **options: Any) -> EncoderSpec:
    said = None if trained is None else TrainedSettings(**trained)
    method = checkpoint.method if said is None else said.method
    return make_spec(replace(checkpoint, trained=said, method=method), EncoderOptions(**options))


def test_settings_come_back_from_their_file(tmp_path: Path) -> None:
    assert read_settings(tmp_path) is None
    said = TrainedSettings("late", anchor=0, anchor_title=False, blend=0.25, max_tokens="model", join="sep")
    assert write_settings(tmp_path, said) == tmp_path / FILE
    assert read_settings(tmp_path) == said
    written = json.loads((tmp_path / FILE).read_text(encoding="utf-8"))
    assert written == {"format": 1, "method": "late", **said.options}
    with pytest.raises(ModelError, match=r"blend is 2\.0"):
        write_settings(tmp_path, replace(said, blend=2.0))
    assert read_settings(tmp_path) == said
    with pytest.raises(ModelError, match="cannot write"):
        write_settings(tmp_path / "nowhere", said)


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"method": "late"}, "format is None, and this ctxindex reads 1: upgrade ctxindex"),
        ({"format": 2, "method": "late"}, "format is 2"),
        ({"format": True, "method": "late"}, "format is True"),
        ({"format": 1}, "method is None, and must be one of late, late-interaction, independent"),
        ({"format": 1, "method": ["late"]}, r"method is \['late'\]"),
        (
            {"format": 1, "method": "late", "anker": 64},
            "there is no field anker; fields are format, method, max_tokens",
        ),
        ({"format": 1, "method": "late", "dims": 0}, "dims is 0, and must be a whole number, 1 or more"),
        (
            {"format": 1, "method": "late-interaction", "dims": 8},
            "dims goes with late or independent or cde, and method is",
        ),
        ({"format": 1, "method": "late", "anchor": True}, "anchor is True, and must be a whole number, 0 or more"),
        ({"format": 1, "method": "late", "anchor": 64.0}, "anchor is 64.0"),
        ({"format": 1, "method": "late", "anchor": -1}, "anchor is -1"),
        ({"format": 1, "method": "late", "anchor": None}, "anchor is None"),
        ({"format": 1, "method": "late", "anchor_title": 1}, "anchor_title is 1, and must be true or false"),
        ({"format": 1, "method": "late", "blend": 1}, "blend is 1, and must be a number, at least 0 and less than 1"),
        ({"format": 1, "method": "late", "blend": "0.5"}, "blend is '0.5'"),
        ({"format": 1, "method": "late", "blend": float("nan")}, "blend is nan"),
        ({"format": 1, "method": "late", "max_tokens": "all"}, "max_tokens is 'all', and must be a whole number above"),
        ({"format": 1, "method": "late", "max_tokens": 0}, "max_tokens is 0"),
        ({"format": 1, "method": "late", "join": {}}, "join is {}, and must be one of sep, raw"),
        (
            {"format": 1, "method": "late", "pool_factor": 2},
            "pool_factor goes with late-interaction, and method is late",
        ),
        (
            {"format": 1, "method": "independent", "anchor": 0},
            "anchor goes with late or late-interaction or cde, and method is",
        ),
        ({"format": 1, "method": "late-interaction", "blend": 1}, "blend is 1, and must be a number, at least 0 and"),
        (
            {"format": 1, "method": "independent", "isolated": "title"},
            "isolated goes with late or late-interaction or cde, and method is",
        ),
    ],
)
def test_a_file_that_is_no_good_is_refused_by_file_and_field(
    tmp_path: Path, values: dict[str, Any], complaint: str
) -> None:
    write_json(tmp_path / FILE, values)
    with pytest.raises(ModelError, match=complaint) as raised:
        read_settings(tmp_path)
    assert str(tmp_path / FILE) in str(raised.value)


@pytest.mark.parametrize("text", ["", "[1]", "{", "null"])
def test_a_file_that_is_no_object_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text, encoding="utf-8")
    with pytest.raises(ModelError, match=r"ctxindex\.json"):
        read_settings(tmp_path)


def test_the_folder_of_a_trained_model_gives_method_and_defaults(dense: Checkpoint, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(dense.folder, folder)
    plain = load_encoder(str(folder), EncoderOptions(method="late")).spec
    write_settings(folder, TrainedSettings("late", anchor=9, blend=0.25))
    checkpoint = open_checkpoint(str(folder))
    assert (checkpoint.method, checkpoint.trained) == ("late", TrainedSettings("late", anchor=9, blend=0.25))
    found = load_encoder(str(folder)).spec
    assert found == replace(plain, anchor=9, blend=0.25)
    assert restore_encoder(found, device="cpu").spec == found
    zero = load_encoder(str(folder), EncoderOptions(anchor=0, blend=0.0)).spec
    assert zero == restore_encoder(zero, device="cpu").spec == plain
    assert load_encoder(str(folder), EncoderOptions(method="independent")).spec.anchor == 0
    write_settings(folder, TrainedSettings("late-interaction"))
    with pytest.raises(
        ModelError, match=r"ctxindex\.json: method is late-interaction, and the model beside it gives one"
    ):
        open_checkpoint(str(folder))


def test_a_late_interaction_model_has_settings_too(colbert: Checkpoint, tmp_path: Path) -> None:
    assert spec(colbert, {"method": "late-interaction", "pool_factor": 2, "skiplist": "model"}).pool_factor == 2
    zero = spec(colbert, {"method": "late-interaction", "pool_factor": 2, "skiplist": "model"}, skiplist="none")
    assert (zero.pool_factor, zero.skiplist) == (2, "none")
    mixed = {"method": "late-interaction", "blend": 0.4, "isolated": "title"}
    assert (spec(colbert, mixed).blend, spec(colbert, mixed).isolated) == (0.4, "title")
    assert spec(colbert, mixed, pooling="inclusive").blend == 0, "left out with what forbids it"
    with pytest.raises(ModelError, match=r"ctxindex\.json does not fit itself or the model: --owner mean is for one"):
        spec(colbert, {"method": "late-interaction", "owner": "mean"})
    shutil.copytree(colbert.folder, tmp_path / "model")
    write_settings(tmp_path / "model", TrainedSettings("late"))
    with pytest.raises(ModelError, match="method is late, and the model beside it gives a vector for every token"):
        open_checkpoint(str(tmp_path / "model"))


TOKEN_WINDOW = {"join": "raw", "windows": "token-window"}


@pytest.mark.parametrize(
    ("trained", "options", "expected"),
    [
        ({"anchor": 16, "join": "raw"}, {"windows": "token-window"}, {"anchor": 0, "windows": "token-window"}),
        ({"anchor": 16, "max_tokens": 64, "join": "raw"}, {"windows": "token-window"}, {"max_tokens": 64}),
        ({"anchor_title": True}, {"pooling": "inclusive"}, {"anchor_title": False, "pooling": "inclusive"}),
        ({"pooling": "inclusive"}, {"anchor_title": True}, {"anchor_title": True, "pooling": "strict"}),
        ({"pooling": "inclusive"}, {"anchor_title": False}, {"pooling": "inclusive"}),
        ({"isolated": "title", "blend": 0.5}, {"pooling": "inclusive"}, {"isolated": "chunk", "blend": 0.5}),
        ({"anchor": 16, "blend": 0.5}, {"pooling": "authors-compat"}, {"anchor": 0, "blend": 0.0}),
        ({"pooling": "authors-compat"}, {"join": "raw"}, {"pooling": "strict", "join": "raw"}),
        (TOKEN_WINDOW, {"join": "sep"}, {"windows": "window", "join": "sep"}),
        (TOKEN_WINDOW, {"owner": "first"}, {"windows": "window", "join": "raw", "owner": "first"}),
        (TOKEN_WINDOW, {"anchor": 8}, {"windows": "window", "anchor": 8}),
        (TOKEN_WINDOW, {"anchor": 0}, {"windows": "token-window"}),
        ({**TOKEN_WINDOW, "window_overlap": 8}, {"windows": "window"}, {"overlap": 4, "join": "raw"}),
        ({"window_overlap": 8}, {"owner": "mean"}, {"overlap": 10, "owner": "mean"}),
        ({"window_overlap": 8}, {"window_overlap": 0}, {"overlap": 0}),
        ({"owner": "mean"}, {"window_overlap": 8}, {"owner": "centre", "overlap": 8}),
        ({"owner": "first"}, {"windows": "full"}, {"owner": "none", "windows": "full"}),
        ({"anchor": 32}, {"max_tokens": 64}, {"anchor": 0, "max_tokens": 64}),
        ({"max_tokens": 64}, {"anchor": 32}, {"anchor": 32, "max_tokens": 128}),
        ({"max_tokens": 64}, {"method": "independent"}, {"max_tokens": 128}),
    ],
)
def test_a_default_gives_way_to_what_was_chosen(
    dense: Checkpoint, trained: dict[str, Any], options: dict[str, Any], expected: dict[str, Any]
) -> None:
    found = spec(dense, {"method": "late", **trained}, **options)
    assert {name: getattr(found, name) for name in expected} == expected


def test_what_was_chosen_itself_is_still_refused(dense: Checkpoint) -> None:
    trained = {"method": "late", "anchor": 16, "blend": 0.3}
    with pytest.raises(ConfigError, match="add --join raw"):
        spec(dense, trained, windows="token-window")
    with pytest.raises(ConfigError, match="that has no --anchor"):
        spec(dense, trained, pooling="authors-compat", anchor=8)
    with pytest.raises(ConfigError, match="--dims 0"):
        spec(dense, trained, dims=0)


@pytest.mark.parametrize(
    ("trained", "complaint"),
    [
        ({"anchor": 33}, "--anchor 33 must be 0 to a quarter of the window"),
        ({"max_tokens": 129}, "--max-tokens 129: windows of"),
        ({"windows": "token-window"}, "--windows token-window cuts the text as it stands"),
        ({"pooling": "inclusive", "anchor_title": True}, "--anchor-title puts the title"),
    ],
)
def test_settings_that_fit_nothing_are_refused_whatever_was_chosen(
    dense: Checkpoint, trained: dict[str, Any], complaint: str
) -> None:
    for options in ({}, {"anchor": 0, "max_tokens": 128, **TOKEN_WINDOW}):
        with pytest.raises(ModelError, match=rf"ctxindex\.json does not fit itself or the model: {complaint}"):
            spec(dense, {"method": "late", **trained}, **options)


VALUES: dict[str, tuple[Any, ...]] = {
    "max_tokens": (64, 128, "model"),
    "dims": (8, 32),
    "join": JOINS,
    "windows": WINDOWS,
    "owner": OWNERS,
    "window_overlap": (0, 8, 32),
    "pooling": POOLINGS,
    "anchor": (0, 16, 32),
    "anchor_title": (False, True),
    "blend": (0.0, 0.5),
    "isolated": ISOLATED,
    "pool_factor": (1, 2),
    "skiplist": ("none", "model"),
}
DENSE = [name for name in VALUES if name not in ("pool_factor", "skiplist")]
MULTIVECTOR = [name for name in VALUES if name not in ("windows", "dims")]
"""A full pass is not among them: its model has ends."""


def some(names: list[str]) -> st.SearchStrategy[dict[str, Any]]:
    """A few of them: of many at once hardly any go together."""
    chosen = st.lists(st.sampled_from(names), max_size=4, unique=True)
    return chosen.flatmap(lambda few: st.fixed_dictionaries({name: st.sampled_from(VALUES[name]) for name in few}))


def accepted(make: Callable[[], EncoderSpec]) -> EncoderSpec | None:
    try:
        return make()
    except (ConfigError, ModelError):
        return None


def test_the_strategies_know_every_field() -> None:
    assert set(VALUES) == {field.name for field in fields(TrainedSettings)} - {"method"}


@settings(max_examples=300)
@given(some(DENSE), some(DENSE), st.sampled_from([None, "late", "independent"]))
def test_a_spec_comes_back_whatever_the_model_says(
    dense: Checkpoint, trained: dict[str, Any], options: dict[str, Any], method: str | None
) -> None:
    _comes_back(dense, {"method": "late", **trained}, {"method": method, **options})


@settings(max_examples=200)
@given(some(MULTIVECTOR), some(MULTIVECTOR))
def test_a_multivector_spec_comes_back_whatever_the_model_says(
    colbert: Checkpoint, trained: dict[str, Any], options: dict[str, Any]
) -> None:
    _comes_back(colbert, {"method": "late-interaction", **trained}, options)


def _comes_back(checkpoint: Checkpoint, trained: dict[str, Any], options: dict[str, Any]) -> None:
    by_itself = accepted(lambda: spec(checkpoint, None, **{"method": trained["method"], **_said(options)}))
    settings_fit = accepted(lambda: spec(checkpoint, trained)) is not None
    found = accepted(lambda: spec(checkpoint, trained, **options))
    if not settings_fit and options.get("method") != "independent":
        assert found is None
        return
    assert found is not None or by_itself is None  # a default never makes anything refused
    event("accepted" if found is not None else "refused")
    if found is None:
        return
    for name, value in _said(options).items():  # what was chosen is what is done
        if name in ("window_overlap", "dims"):
            assert getattr(found, {"window_overlap": "overlap", "dims": "dim"}[name]) == value
        elif not (name == "max_tokens" and value == "model") and getattr(found, name) != "none":
            assert getattr(found, name) == value
    again = EncoderOptions.of(found)
    assert make_spec(replace(checkpoint, trained=TrainedSettings(**trained), method=trained["method"]), again) == found
    for other in METHODS[:2]:  # nor does it matter what a file says that came later
        if (other == "late-interaction") == found.multivector:
            assert make_spec(replace(checkpoint, trained=TrainedSettings(other, anchor=9)), again) == found


def _said(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def test_an_index_keeps_what_it_was_made_with(dense: Checkpoint, samples: Path, tmp_path: Path) -> None:
    folder, file = tmp_path / "model", min(samples.glob("*.txt"), key=lambda file: file.stat().st_size)
    shutil.copytree(dense.folder, folder)
    write_settings(folder, TrainedSettings("late", anchor=9))
    place: dict[str, Any] = {"path": tmp_path / "db", "device": "cpu"}
    with Index.open(model=str(folder), **place) as index:
        index.ingest(file)
        assert index.spec is not None
        made = index.spec.encoder
    assert (made.method, made.anchor) == ("late", 9)
    write_settings(folder, TrainedSettings("independent"))
    with Index.open(model=str(folder), anchor=9, **place) as index:
        assert index.ingest(file).unchanged == 1
        assert index.search("Who may terminate?", k=1)
        assert index.spec is not None
        assert index.spec.encoder == made
