from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub.errors import HFValidationError

from ctxindex.errors import UnreachableError
from ctxindex.evaluation.dataset import DatasetError
from ctxindex.evaluation.datasets import open_dataset
from tests.evaluation.datasets.files import write_jsonl, write_spans


def test_what_is_no_dataset(tmp_path: Path) -> None:
    (tmp_path / "file.txt").write_text("text", encoding="utf-8")
    for name in ("", str(tmp_path), str(tmp_path / "file.txt"), str(tmp_path / "missing"), "missing"):
        with pytest.raises(DatasetError, match=r"documents\.jsonl and queries\.jsonl.*ConTEB.*BEIR.*hub.*questions"):
            open_dataset(name)


def test_half_a_dataset(tmp_path: Path) -> None:
    (write_spans(tmp_path) / "queries.jsonl").unlink()
    with pytest.raises(DatasetError, match="is no dataset: expected"):
        open_dataset(str(tmp_path))


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    (write_spans(tmp_path) / "documents.jsonl").unlink()
    os.mkfifo(tmp_path / "documents.jsonl")
    with pytest.raises(DatasetError, match="is no dataset: expected"):
        open_dataset(str(tmp_path))


def test_a_line_that_is_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctxindex.evaluation.datasets.rows.DEFAULT_MAX_CHARS", 10)
    write_jsonl(write_spans(tmp_path) / "queries.jsonl", ["{}", "x" * 2_000_000])
    with pytest.raises(DatasetError, match=r"queries\.jsonl, line 2: 2,000,001 bytes are too many for a line"):
        open_dataset(str(tmp_path))


def test_a_link_is_called_what_it_is_called(tmp_path: Path) -> None:
    write_spans(tmp_path / "v2")
    (tmp_path / "latest").symlink_to(tmp_path / "v2")
    assert open_dataset(f"{tmp_path}/latest/").name == "latest"


def test_a_name_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_spans(tmp_path / "0123abc")
    asked: list[tuple[str, dict[str, Any]]] = []

    def snapshot(name: str, **options: Any) -> str:
        asked.append((name, options))
        return str(tmp_path / "0123abc")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    assert open_dataset("owner/some-set").name == "owner/some-set"
    ((name, options),) = asked
    assert name == "owner/some-set"
    assert options["repo_type"] == "dataset"
    assert {"*.parquet", "*.jsonl", "*.jsonl.gz", "*.tsv", "README.md"} == set(options["allow_patterns"])


def test_a_path_comes_before_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_spans(tmp_path / "owner" / "set")
    monkeypatch.chdir(tmp_path)
    assert open_dataset("owner/set").name == "set"


def test_the_hub_cannot_be_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UnreachableError, match="hf download owner/no-such-set --repo-type dataset"):
        open_dataset("owner/no-such-set")


def test_the_hub_does_not_take_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def snapshot(name: str, **options: Any) -> str:
        raise HFValidationError("no such name")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    with pytest.raises(DatasetError, match=r"neither a file or folder here nor a dataset .* \(no such name\)"):
        open_dataset("owner/se--t")


def test_sets_in_a_folder_are_no_tables_of_it(tmp_path: Path) -> None:
    for name in ("held-out", "train"):
        write_spans(tmp_path / name)
    with pytest.raises(DatasetError, match=f"is no dataset, but has some in it: give {tmp_path}/train or .*/held-out"):
        open_dataset(f"{tmp_path}/")
    assert open_dataset(str(tmp_path / "train")).name == "train"


def test_sets_in_a_dataset_of_the_hub_have_no_name_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_spans(tmp_path / "train")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **options: str(tmp_path))
    with pytest.raises(DatasetError, match=r"^owner/some-set is no dataset: expected"):
        open_dataset("owner/some-set")


def test_a_file_of_questions_is_no_dataset(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "pairs.jsonl", [{"query": "What?", "doc_id": "a", "start": 0, "end": 1}])
    with pytest.raises(DatasetError, match="give the documents, and this file with --questions"):
        open_dataset(str(file))
    with pytest.raises(DatasetError, match="as DATA and this file with --pairs; --validation and --replay take sets"):
        open_dataset(str(file), training=True)
    with pytest.raises(DatasetError, match="or any documents with --pairs FILE"):
        open_dataset(str(tmp_path), training=True)
