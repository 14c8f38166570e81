"""How a model is read in training where the user says nothing, as far as it goes with what was said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ctxindex.encoding import EncoderOptions, open_checkpoint
from ctxindex.encoding.checkpoint import Checkpoint
from ctxindex.encoding.options import make_spec
from ctxindex.encoding.trained import TrainedSettings
from ctxindex.errors import ConfigError
from ctxindex.training.context import in_context
from tests.encoding.test_colbert import pylate


@pytest.fixture(scope="module")
def minilm() -> Checkpoint:
    return open_checkpoint("minilm")


def test_context_is_read_unless_something_else_is_said(minilm: Checkpoint) -> None:
    spec = make_spec(minilm, in_context(EncoderOptions(), minilm))
    read = (spec.method, spec.anchor, spec.anchor_title, spec.blend, spec.isolated)
    assert read == ("late", 64, True, 0.6, "opening")


@pytest.mark.parametrize(
    "chosen",
    [
        {"anchor": 0, "anchor_title": False, "blend": 0.0},
        {"blend": 0.0},
        {"blend": 0.1, "isolated": "chunk"},
        {"windows": "token-window", "join": "raw"},
        {"pooling": "inclusive"},
        {"pooling": "authors-compat"},
        {"max_tokens": 64},
        {"max_tokens": "model", "owner": "mean"},
        {"method": "late", "join": "raw", "dims": 100},
    ],
)
def test_what_is_chosen_goes_first_and_never_meets_a_default_that_forbids_it(
    minilm: Checkpoint, chosen: dict[str, Any]
) -> None:
    options = in_context(EncoderOptions(**chosen), minilm)
    assert {name: getattr(options, name) for name in chosen} == chosen
    make_spec(minilm, options)


def test_a_small_window_has_a_small_anchor(minilm: Checkpoint) -> None:
    assert in_context(EncoderOptions(max_tokens=64), minilm).anchor == 16


def test_a_late_interaction_model_is_blended_where_one_says_so(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(str(pylate(tmp_path, {})))
    options = in_context(EncoderOptions(), checkpoint)
    spec = make_spec(checkpoint, options)
    assert (spec.method, spec.anchor_title, spec.blend) == ("late-interaction", True, 0.0)
    assert spec.anchor == min(64, spec.max_tokens // 4)
    spec = make_spec(checkpoint, in_context(EncoderOptions(blend=0.3), checkpoint))
    assert (spec.blend, spec.isolated, spec.anchor_title) == (0.3, "opening", True)
    alone = make_spec(checkpoint, in_context(EncoderOptions(blend=0.3, isolated="chunk"), checkpoint))
    assert (alone.blend, alone.isolated) == (0.3, "chunk")
    inclusive = in_context(EncoderOptions(pooling="inclusive"), checkpoint)
    assert make_spec(checkpoint, inclusive).blend == 0


def test_a_model_that_says_how_it_is_read_is_read_like_that(minilm: Checkpoint) -> None:
    tuned = replace(minilm, method="late", trained=TrainedSettings("late", anchor=8, blend=0.2))
    spec = make_spec(tuned, in_context(EncoderOptions(), tuned))
    assert (spec.anchor, spec.anchor_title, spec.blend) == (8, False, 0.2)
    alone = replace(minilm, trained=TrainedSettings("independent"))
    assert in_context(EncoderOptions(), alone).anchor == 64


def test_reading_chunks_alone_cannot_be_trained_for_context(minilm: Checkpoint) -> None:
    with pytest.raises(ConfigError, match="--method independent"):
        in_context(EncoderOptions(method="independent"), minilm)
