"""What a user may say about the optimisation."""

from __future__ import annotations

import pytest

from ctxindex.errors import ConfigError
from ctxindex.training.schedule import Schedule


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"documents": 0}, "--documents 0 must be 1 or more"),
        ({"windows": 0}, "--document-windows 0"),
        ({"queries": -1}, "--queries -1"),
        ({"save_every": 0}, "--save-every 0"),
        ({"evaluate_every": -1}, "--evaluate-every -1 must be 0 or more"),
        ({"steps": 0}, "--steps 0"),
        ({"mini_batch_tokens": 0}, "--mini-batch-tokens 0"),
        ({"lora": 0}, "--lora 0"),
        ({"seed": -1}, "--seed -1"),
        ({"epochs": 0}, "--epochs 0 must be a number above 0"),
        ({"learning_rate": float("nan")}, "--learning-rate nan"),
        ({"max_norm": float("inf")}, "^max_norm inf must be a number above 0"),
        ({"warmup": 1.0}, "--warmup 1.0 is a share"),
        ({"weight_decay": -0.1}, "--weight-decay -0.1"),
        ({"weight_decay": float("inf")}, "--weight-decay inf"),
        ({"precision": "int8"}, "--precision int8 is none of auto, float32"),
        ({"patience": 2}, "--evaluate-every STEPS"),
    ],
)
def test_what_cannot_be_is_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Schedule(**values)  # type: ignore[arg-type]


def test_steps_are_counted_from_epochs_unless_they_are_given() -> None:
    assert Schedule(epochs=2, documents=4).total_steps(100) == 50
    assert Schedule(epochs=2, documents=4).total_steps(100, devices=5) == 10
    assert Schedule(epochs=0.001).total_steps(10) == 1
    assert Schedule(steps=7, epochs=100).total_steps(100, devices=3) == 7


def test_patience_and_evaluations_go_together() -> None:
    assert Schedule(patience=2, evaluate_every=10).patience == 2
