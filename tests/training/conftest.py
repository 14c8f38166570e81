"""Models and data of the trainings that tests run as a whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from ctxindex.encoding import load_encoder
from ctxindex.training.data import Data, DataOptions, read_data
from tests.encoding.test_colbert import PYLATE, pylate
from tests.encoding.tiny import bert as bert_config
from tests.encoding.tiny import save_backbone, save_sentence_transformer, tokenizer_for
from tests.training.runs import plan_of, trained
from tests.training.sets import PLACES, SPEC, chunker, write_beir, write_set


@pytest.fixture(autouse=True)
def _one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    save_sentence_transformer(folder / "bert")
    save_sentence_transformer(folder / "cls", pooling="cls")
    pylate(folder / "pylate", PYLATE)
    tokenizer = tokenizer_for("bert")
    save_backbone(folder / "bare", bert_config(tokenizer), tokenizer)
    write_set(folder / "towns", PLACES[:6], sentences=(0,))
    write_beir(folder / "practice", PLACES[6:9])
    return folder


@pytest.fixture(scope="module")
def data(root: Path) -> Data:
    named = DataOptions((str(root / "towns"),), held_out=0.3)
    return read_data(named, chunker(load_encoder(str(root / "bert")).tokenizer), SPEC)


@pytest.fixture(scope="module")
def whole(root: Path, data: Data, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished training."""
    out = tmp_path_factory.mktemp("whole") / "tuned"
    trained(plan_of(root, merge=(0.5, 1.0)), data, out, card=lambda found: f"# {found.folder.name}\n")
    return out
