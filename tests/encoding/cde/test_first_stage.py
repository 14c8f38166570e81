"""The first stage of a CDE model: named or in the folder, and what indexes know of it when one becomes the other."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ctxindex.encoding import checkpoint as checkpoints
from ctxindex.encoding import open_checkpoint
from ctxindex.encoding.cde.folder import make_native_cde, with_first_stage
from ctxindex.encoding.cde.settings import NativeCde, read_cde
from ctxindex.encoding.encoder import restore_encoder
from ctxindex.errors import ModelError
from tests.encoding.cde.test_folder import opened
from tests.encoding.tiny import TEXTS, save_sentence_transformer


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_sentence_transformer(tmp_path_factory.mktemp("base") / "bert")


def test_a_first_stage_that_can_be_had_by_name_is_not_copied(base: Path, tmp_path: Path) -> None:
    folder = make_native_cde(str(base), tmp_path / "cde", NativeCde(first_stage="minilm"))
    assert not (folder / "first_stage").exists()
    settings = read_cde(folder)
    assert settings is not None
    assert settings.first_stage == "minilm"
    encoder = opened(folder)
    assert encoder.encode_context(TEXTS).vectors.shape == (len(TEXTS), 384)
    assert encoder.null_context().vectors.shape == (0, 384)
    for other in (replace(settings, first_stage_digest="0" * 64), replace(settings, first_stage_files="0" * 64)):
        (folder / "cde.json").write_text(other.to_json())
        with pytest.raises(ModelError, match="made with another minilm"):
            opened(folder).encode_context(TEXTS)


def test_a_named_first_stage_that_changed_breaks_no_index(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_native_cde(str(base), tmp_path / "cde", NativeCde(first_stage="minilm"))
    context = opened(folder).encode_context(TEXTS)
    reading = opened(folder).with_context(context)
    expected, stored = reading.encode_queries(TEXTS), reading.spec

    def gone(name: str, **_: Any) -> Any:
        raise ModelError(f"there is no {name}")

    with monkeypatch.context() as patch:  # queries need the second stage alone
        original = checkpoints.open_checkpoint
        patch.setattr(checkpoints, "open_checkpoint", gone)
        patch.setattr("ctxindex.encoding.encoder.open_checkpoint", original)
        again = restore_encoder(stored, device="cpu", context=context)
        np.testing.assert_array_equal(again.encode_queries(TEXTS), expected)
        with pytest.raises(ModelError, match="there is no minilm"):
            opened(folder).encode_context(TEXTS)
    # What the error says to do: the same model under another roof is who it was.
    shutil.copytree(open_checkpoint("minilm").folder, folder / "first_stage", copy_function=shutil.copyfile)
    settings = read_cde(folder)
    assert settings is not None
    (folder / "cde.json").write_text(settings.unnamed().to_json())
    moved = restore_encoder(stored, device="cpu", context=context)
    assert moved.spec == stored
    assert opened(folder).encode_context(TEXTS).context_id == context.context_id


def test_a_first_stage_whose_name_may_come_to_mean_another_is_copied(base: Path, tmp_path: Path) -> None:
    """As `minilm-insent`, with the next release, and models on the hub, with their next revision."""
    first = replace(open_checkpoint(str(base)), name="owner/model")
    assert with_first_stage(NativeCde(first_stage="owner/model"), first) == NativeCde()
    assert with_first_stage(NativeCde(), replace(first, name="minilm-insent")) == NativeCde()
    kept = with_first_stage(NativeCde(), open_checkpoint("minilm"))
    assert (kept.first_stage, kept.unnamed()) == ("minilm", NativeCde())


def test_folders_of_earlier_releases_are_who_they_were(base: Path, tmp_path: Path) -> None:
    folder = make_native_cde(str(base), tmp_path / "cde")
    before = open_checkpoint(str(folder)).digest
    values = json.loads((folder / "cde.json").read_text())
    del values["first_stage_files"]
    (folder / "cde.json").write_text(json.dumps(values))
    assert open_checkpoint(str(folder)).digest == before
    # All that `cde.json` said went into the digest, which is what indexes know a model by.
    assert json.loads(NativeCde().described()) == values
