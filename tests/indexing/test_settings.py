"""What decides how chunks become vectors, from the caller to the index's spec and back."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from ctxindex import Index
from ctxindex.encoding import open_checkpoint
from ctxindex.errors import ConfigError, MismatchError

CHOSEN: dict[str, Any] = {
    **{"join": "raw", "pooling": "strict", "windows": "window"},
    **{"anchor": 16, "anchor_title": True, "owner": "first", "blend": 0.25, "isolated": "title"},
}
TOKENS: dict[str, Any] = {"join": "raw", "windows": "token-window", "window_overlap": 100, "pooling": "inclusive"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A document of three windows with a title."""
    place = tmp_path / "one.md"
    lines = [f"Clause {number}: the party of part {number} shall pay, and the other shall not." for number in range(70)]
    place.write_text("# Royalty Agreement\n\n" + "\n\n".join(lines), encoding="utf-8")
    return place


def test_the_choices_of_late_chunking_reach_the_spec_and_are_agreed_upon(tmp_path: Path, file: Path) -> None:
    where: dict[str, Any] = {"path": tmp_path / "db", "device": "cpu"}
    with Index.open(method="late", **CHOSEN, **where) as index:
        assert index.ingest(file).new == 1
        assert index.spec is not None
        encoder = index.spec.encoder
        assert {name: getattr(encoder, name) for name in CHOSEN} == CHOSEN
    with Index.open(**where) as index:  # a new process: everything comes from what is stored
        assert index.ingest(file).unchanged == 1
        assert index.search("Who shall pay?")[0].doc_id == "one.md"
    with Index.open(**CHOSEN, **where) as index:
        assert index.ingest(file).unchanged == 1
    others: dict[str, Any] = {
        **{"anchor": 17, "anchor_title": False, "owner": "centre", "blend": 0.5, "isolated": "chunk"},
        **{"join": "sep", "pooling": "inclusive", "windows": "full", "window_overlap": 10},
    }
    for name, value in others.items():
        with Index.open(**{name: value}, **where) as index, pytest.raises(MismatchError, match=f"{name}: index"):
            index.ingest(file)


def test_windows_of_tokens_reach_the_spec_and_are_agreed_upon(tmp_path: Path, file: Path) -> None:
    where: dict[str, Any] = {"path": tmp_path / "db", "device": "cpu"}
    with Index.open(method="late", **TOKENS, **where) as index:
        assert index.ingest(file).new == 1
        assert index.spec is not None
        assert (index.spec.encoder.windows, index.spec.encoder.overlap) == ("token-window", 100)
    with Index.open(**TOKENS, **where) as index:
        assert index.ingest(file).unchanged == 1
        assert index.search("Who shall pay?")[0].doc_id == "one.md"
    with (
        Index.open(window_overlap=99, **where) as index,
        pytest.raises(MismatchError, match="window_overlap: index 100"),
    ):
        index.ingest(file)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "late", "windows": "full"}, "--windows full reads .* which minilm-insent cannot: BERT has learnt"),
        ({"method": "late", "windows": "token-window"}, "add --join raw"),
        ({"method": "independent", "join": "raw"}, "--join goes with --method late, late-interaction or cde"),
        ({"method": "late", "blend": 1.5}, "--blend 1.5"),
        ({"method": "late", "blend": "half"}, "--blend: blend must be a number"),
        ({"method": "late", "owner": "last"}, "--owner last is none of"),
        ({"method": "independent", "anchor": 8}, "--anchor goes with --method late, late-interaction or cde"),
    ],
)
def test_choices_that_cannot_work_make_no_index(
    tmp_path: Path, file: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message), Index.open(path=tmp_path / "db", **settings) as index:
        index.ingest(file)
    with Index.open(path=tmp_path / "db") as index:
        assert index.spec is None


def test_the_same_weights_with_another_tokenizer_are_another_model(tmp_path: Path, file: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(open_checkpoint("minilm-insent").folder, other)
    values = json.loads((other / "tokenizer.json").read_text(encoding="utf-8"))
    values["normalizer"]["lowercase"] = False
    (other / "tokenizer.json").write_text(json.dumps(values), encoding="utf-8")
    with Index.open(path=tmp_path / "db", device="cpu") as index:
        index.ingest(file)
    with Index.open(path=tmp_path / "db", model=str(other), device="cpu") as index:
        with pytest.raises(MismatchError, match="other tokenizer or configuration"):
            index.ingest(file)
        with pytest.raises(MismatchError, match="files: index"):
            index.search("Who shall pay?")
