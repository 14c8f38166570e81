"""The recipe of the model that ships with ctxindex: it trains, says what it does, and ships it with its licences."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]

from ctxindex.encoding import load_encoder, packaged
from ctxindex.encoding.difference import read_facts
from ctxindex.encoding.known_models import MINILM_INSENT, find_folder
from ctxindex.encoding.model_files import sha256
from ctxindex.training.finetune import NULL
from recipes import train_minilm_cde
from recipes import train_minilm_insent as recipe
from tests.encoding.tiny import save_sentence_transformer
from tests.training.sets import PLACES, write_set

SECTIONS = ["How to use it", "What it was trained on", "What it finds", "How it was trained"]


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with small sets by the names of the real ones in `data`, and a package without a model."""
    for number, name in enumerate(recipe.SOURCES):
        write_set(tmp_path / "data" / name, [f"{place} {number}" for place in PLACES[:8]])
    for module in (recipe, packaged):
        monkeypatch.setattr(module, "FOLDER", tmp_path / "package")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_recipe_of_the_shipped_model_runs(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [str(work / "data"), "--steps", "2", "--seed", "3", "--threads", "1"]
    recipe.main([*arguments, "--ship"])
    said = capsys.readouterr()
    assert said.out.startswith("training with seed 3 for 2 steps into build/minilm-insent-3\n")
    assert "training: 2 steps\n" in said.err
    assert re.search(r"^tuned +cuad-train [\d.]+ medquad-train [\d.]+ evinf-train [\d.]+ qmsum-train", said.out, re.M)
    package = work / "package"
    assert {file.name for file in package.iterdir()} == {
        "README.md",
        "ctxindex.json",
        "sentence_bert_config.json",
        packaged.DIFFERENCE,
    }
    assert (package / packaged.DIFFERENCE).stat().st_size < 12_000_000
    card = (package / "README.md").read_text(encoding="utf-8")
    _check_card(card, work)
    spec = load_encoder(MINILM_INSENT).spec
    assert (spec.method, spec.anchor, spec.anchor_title) == ("late", 64, True)
    assert (spec.blend, spec.isolated) == (0.6, "opening")
    whole = find_folder(MINILM_INSENT)
    assert sha256(whole / "model.safetensors") == read_facts(package / packaged.DIFFERENCE).weights_sha256
    assert (whole / "README.md").read_text(encoding="utf-8") == card
    recipe.main(arguments)
    assert capsys.readouterr().out.startswith("build/minilm-insent-3 is trained already")


def _check_card(card: str, work: Path) -> None:
    _, head, text = card.split("---\n", 2)
    assert yaml.safe_load(head)["license"] == "apache-2.0"
    assert yaml.safe_load(head)["base_model"] == "sentence-transformers/all-MiniLM-L6-v2"
    titles = re.findall(r"^# (.*)$", text, re.M)
    assert titles == ["minilm-insent"]
    assert re.findall(r"^## (.*)$", text, re.M) == [*SECTIONS, "Attributions and licences"]
    assert "python recipes/train_minilm_insent.py data --steps 2 --seed 3 --threads 1 --ship" in text
    assert str(work) not in text
    assert "{measured}" not in text
    assert "| cuad-train | measuring, held out by document | 1 | 2 |" in text
    attributed = text.partition("## Attributions and licences")[2]
    for name in recipe.SOURCES:
        assert f"- **{name}**: " in attributed
    for owner in (
        "The Atticus Project, Inc.",
        "Ben Abacha and Demner-Fushman",
        "DeYoung",
        "Zhong",
        "Apache licence 2.0",
    ):
        assert owner in attributed


def test_a_card_without_what_was_measured_is_not_shipped() -> None:
    with pytest.raises(SystemExit, match="lacks the section '## What it was trained on'"):
        recipe.shipped_card("# A model\n")


def test_the_recipe_of_a_corpus_context_trains_rows_that_are_not_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in train_minilm_cde.SOURCES[:1]:
        write_set(tmp_path / "data" / name, [f"{place} {number}" for place in PLACES for number in (1, 2)])
    save_sentence_transformer(tmp_path / "tiny")
    monkeypatch.setattr(train_minilm_cde, "MINILM_INSENT", str(tmp_path / "tiny"))
    monkeypatch.setattr(train_minilm_cde, "SOURCES", train_minilm_cde.SOURCES[:1])
    monkeypatch.chdir(tmp_path)
    arguments = [str(tmp_path / "data"), "--steps", "1", "--threads", "1", "--held-out", "0.05", "--row"]
    train_minilm_cde.main([*arguments, "clusters"])
    made = tmp_path / "build" / "minilm-cde" / "made"
    written = {file: file.stat().st_mtime_ns for file in made.iterdir()}
    assert sorted(file.stem for file in written) == ["clusters", "context", "surrogate"]
    assert "training clusters with seed 0 for 1 steps into build/minilm-cde/clusters-0\n" in capsys.readouterr().out
    train_minilm_cde.main([*arguments, "clusters", "null"])
    said = capsys.readouterr().out
    assert "training clusters" not in said
    assert "training null with seed 0" in said
    assert written == {file: file.stat().st_mtime_ns for file in made.iterdir()}  # made once for both
    rows = re.findall(r"^(clusters-0|null-0) +(\S.*?) +[\d.]+ +[\d.]+$", said, re.M)
    measured = ["base, each chunk alone", "base, in context", NULL, "tuned"]
    assert rows == [
        *(("clusters-0", name) for name in measured),
        *(("null-0", name) for name in measured if name != NULL),  # its reading without a context is `tuned`
    ]
