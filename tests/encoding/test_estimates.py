"""What models cost: parameters counted from their tensors, operations of the stage that reads every token."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from ctxindex.encoding import open_checkpoint
from ctxindex.encoding.cde.folder import make_native_cde
from ctxindex.encoding.cde.settings import NativeCde
from ctxindex.encoding.estimates import estimate
from ctxindex.encoding.trained import TrainedSettings, write_settings
from tests.encoding.cde.tiny_cde import CONTEXT, SOFT, save_published
from tests.encoding.tiny import HIDDEN, save_sentence_transformer

WINDOW = {"bert": 128, "published": 64}
BESIDE_PROJECTION = HIDDEN + 2
"""The null vector, and a bias for each of two layers."""
PARTS = HIDDEN * HIDDEN + HIDDEN + BESIDE_PROJECTION
HEAD = 2 * (HIDDEN * HIDDEN + HIDDEN)


def held(file: Path, start: str = "") -> int:
    return sum(tensor.numel() for name, tensor in load_file(file).items() if name.startswith(start))


def read_by_every_token(file: Path, start: str = "") -> int:
    """Numbers in linear layers and norms: all but tables that ids are looked up in."""
    names = {name.removeprefix(start): tensor for name, tensor in load_file(file).items() if name.startswith(start)}
    return sum(one.numel() for name, one in names.items() if "embeddings." not in name or one.ndim < 2)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_sentence_transformer(tmp_path_factory.mktemp("base") / "bert")


def test_a_model_of_one_stage(base: Path) -> None:
    found = estimate(open_checkpoint(str(base)))
    assert (found.parameters, found.first_stage, found.context) == (held(base / "model.safetensors"), 0, 0)
    attention = 4 * 2 * HIDDEN * WINDOW["bert"]
    assert found.flops_per_token == 2 * read_by_every_token(base / "model.safetensors") + attention


@pytest.mark.parametrize(
    ("settings", "beside", "own"),
    [
        ({}, PARTS, True),
        ({"output_head": True, "context_size": 9}, PARTS + HEAD, True),
        ({"share_stages": True}, PARTS, False),
    ],
    ids=["two networks", "output head", "shared"],
)
def test_both_stages_of_a_native_model_count_and_one_reads(
    settings: dict[str, Any], beside: int, own: bool, base: Path, tmp_path: Path
) -> None:
    folder = make_native_cde(str(base), tmp_path / "cde", NativeCde(**settings))
    found, one = estimate(open_checkpoint(str(folder))), held(base / "model.safetensors")
    assert found.parameters == sum(held(file) for file in folder.rglob("*.safetensors"))
    assert found.parameters == (1 + own) * one + beside
    assert found.first_stage == own * one
    assert found.context == settings.get("context_size", 512)
    # Neither the projection nor the output head is run for a token.
    attention = 4 * 2 * HIDDEN * (WINDOW["bert"] + found.context)
    assert found.flops_per_token == 2 * read_by_every_token(base / "model.safetensors") + attention


def test_what_is_blended_is_read_twice(base: Path, tmp_path: Path) -> None:
    shutil.copytree(base, tmp_path / "tuned")
    write_settings(tmp_path / "tuned", TrainedSettings("late", blend=0.6))
    once, twice = (estimate(open_checkpoint(str(folder))) for folder in (base, tmp_path / "tuned"))
    assert twice.flops_per_token == 2 * once.flops_per_token
    write_settings(tmp_path / "tuned", TrainedSettings("late", blend=0.0))
    assert estimate(open_checkpoint(str(tmp_path / "tuned"))).flops_per_token == once.flops_per_token


def test_a_first_stage_of_another_model_counts(base: Path, tmp_path: Path) -> None:
    folder = make_native_cde(str(base), tmp_path / "cde", NativeCde(first_stage="minilm"))
    found = estimate(open_checkpoint(str(folder)))
    assert found.first_stage == estimate(open_checkpoint("minilm")).parameters
    projection = 384 * HIDDEN + HIDDEN
    assert found.parameters == held(base / "model.safetensors") + projection + BESIDE_PROJECTION + found.first_stage


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_both_stages_of_a_published_model_count_and_one_reads(version: Any, tmp_path: Path) -> None:
    folder = save_published(tmp_path, version, limit_layers=1, limit_layers_first_stage=2)
    file, found = folder / "model.safetensors", estimate(open_checkpoint(str(folder)))
    assert found.parameters == held(file)
    assert found.first_stage == held(file, "first_stage_model.")
    assert found.context == CONTEXT + SOFT
    # The context is read anew with every window, and everything looks at everything.
    positions = WINDOW["published"] + CONTEXT + SOFT
    each = 2 * read_by_every_token(file, "second_stage_model.backbone.") + 4 * HIDDEN * positions
    assert math.isclose(found.flops_per_token, each * positions / WINDOW["published"], abs_tol=1)
