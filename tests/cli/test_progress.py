"""Bars where they can be drawn, lines elsewhere."""

from __future__ import annotations

import os
import sys

import pytest

from ctxindex.cli.progress import Bars, Lines, MeasuringLines, TrainingBar, TrainingLines, choose, choose_training
from ctxindex.evaluation.configuration import Configuration
from tests.evaluation.builders import people
from tests.training.results.builders import run_of


class Terminal:
    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        return 2

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None: ...


@pytest.mark.parametrize(("columns", "kinds"), [(80, (Bars, TrainingBar)), (0, (Lines, TrainingLines))])
def test_a_terminal_without_a_size_gets_lines(
    monkeypatch: pytest.MonkeyPatch, columns: int, kinds: tuple[type, type]
) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setattr(os, "get_terminal_size", lambda *_: os.terminal_size((columns, 24)))
    assert type(choose(False)) is kinds[0]
    assert type(choose_training(False)[0]) is kinds[1]
    assert choose(True) is None
    assert choose_training(True) == (None, None)


def test_each_measurement_of_a_training_is_announced(capsys: pytest.CaptureFixture[str]) -> None:
    corpus, lines = people(name="held-out"), MeasuringLines()
    lines.begin(corpus, Configuration("late", common={"model": "minilm"}))
    lines.end(run_of(corpus, [0.5] * 5))
    assert capsys.readouterr().err == "measuring on 4 documents of held-out: minilm, late\n"
