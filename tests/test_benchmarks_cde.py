"""That `benchmarks/cde.py` measures what it says."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.cde import fill, measure
from tests.encoding.tiny import save_sentence_transformer


def test_a_context_is_filled_up_with_the_texts_there_are() -> None:
    assert fill(["a", "b", "c"], 7) == ["a", "b", "c", "a", "b", "c", "a"]
    assert fill(["a", "b", "c"], 2) == ["a", "b"]


def test_both_encoders_are_timed_over_the_same_documents(tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("The agreement may be terminated early by either party. " * 40, encoding="utf-8")
    model = str(save_sentence_transformer(tmp_path / "model"))
    asked = argparse.Namespace(folder=tmp_path, model=model, documents=1, context=4, dtype="float32", repeat=1)
    found = measure(asked, tmp_path / "place")
    assert found["documents"] == 1
    assert found["chunks"] > 2
    assert found["ratio"] > 0
    assert all(seconds > 0 for seconds in found["seconds"].values())
