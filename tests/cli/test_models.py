"""`ctxindex models`: what is known, what is here, and what the files of one model say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from ctxindex.cli import cli
from ctxindex.cli.options import SectionedCommand, new_model_option
from ctxindex.encoding import packaged
from ctxindex.encoding.cde.folder import make_native_cde
from ctxindex.encoding.cde.settings import NativeCde
from ctxindex.encoding.trained import TrainedSettings, write_settings
from tests.cli.command_line import answer, run
from tests.encoding.cde.tiny_cde import save_published
from tests.encoding.test_colbert import PYLATE, pylate
from tests.encoding.tiny import save_sentence_transformer


def test_the_list_says_what_is_here(tmp_path: Path) -> None:
    values = answer(run("models", "list", "--json", cwd=tmp_path, HF_HOME=str(tmp_path)))
    assert values["schema"] == "ctxindex.models/1"
    models = {model["name"]: model for model in values["models"]}
    assert models["minilm"]["available"] is True
    assert (models["minilm"]["dim"], models["minilm"]["max_tokens"]) == (384, 512)
    assert [name for name, model in models.items() if model["available"]] == ["minilm", "minilm-insent"]
    assert {model["encoder"] for model in models.values()} == {"late", "late-interaction", "cde", "independent"}
    table = run("models", "list", cwd=tmp_path, HF_HOME=str(tmp_path)).stdout
    assert all(name in table for name in models)


def test_a_model_in_the_cache_of_the_hub_is_here(tmp_path: Path) -> None:
    name = "nomic-ai/modernbert-embed-base"
    cache = tmp_path / "hub" / f"models--{name.replace('/', '--')}"
    save_sentence_transformer(cache / "snapshots" / "abc", "modernbert")
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("abc", encoding="utf-8")
    values = answer(run("models", "list", "--json", cwd=tmp_path, HF_HOME=str(tmp_path)))
    assert next(model["available"] for model in values["models"] if model["name"] == name)


def test_the_list_takes_nothing_from_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder of a published CDE model may lack its tokenizer, which another model in the cache has or has not."""
    name, asked = "jxm/cde-small-v2", []
    cache = tmp_path / "hub" / f"models--{name.replace('/', '--')}"
    folder = save_published(cache / "snapshots" / "abc", "v2", embedder="answerdotai/ModernBERT-base")
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("abc", encoding="utf-8")

    def snapshot_download(repository: str, **more: Any) -> str:
        asked.append(repository)
        assert more["local_files_only"] is True
        return str(folder / "embedder")

    def available() -> bool:
        models = json.loads(printed("list", "--json"))["models"]
        return next(bool(model["available"]) for model in models if model["name"] == name)

    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    assert available()
    (folder / "embedder" / "tokenizer.json").unlink()
    assert not available()
    assert asked == ["answerdotai/ModernBERT-base"] * 2


def test_a_model_is_shown(tmp_path: Path) -> None:
    shown = run("models", "show", "minilm", cwd=tmp_path).stdout
    for text in ("BERT, 6 layers of 384", "512 tokens; trained with 256", "53aa51172d14", "22,713,216", "estimate: "):
        assert text in shown, shown
    values = answer(run("models", "show", "minilm", "--json", cwd=tmp_path))
    assert values["schema"] == "ctxindex.model/1"
    assert (values["dim"], values["pooling"]["mode"], values["methods"]) == (384, "mean", ["late", "independent"])
    assert values["estimates"]["tokens_per_second"] > 0


def test_a_late_interaction_model_is_shown(tmp_path: Path) -> None:
    folder = pylate(tmp_path / "model", PYLATE)
    shown = run("models", "show", folder, cwd=tmp_path).stdout
    for text in ("late-interaction (pylate)", "16 numbers a token", "fixed, to 24 tokens, not attended to", "'[Q] '"):
        assert text in shown, shown
    values = answer(run("models", "show", folder, "--json", cwd=tmp_path))
    assert values["encoder"] == "late-interaction"
    assert values["late_interaction"]["query_length"] == 24


def test_both_stages_of_a_model_are_shown(tmp_path: Path) -> None:
    base = save_sentence_transformer(tmp_path / "base")
    native = str(make_native_cde(str(base), tmp_path / "native", NativeCde(first_stage="minilm", context_size=1000)))
    shared = str(make_native_cde(str(base), tmp_path / "shared", NativeCde(share_stages=True)))
    published = str(save_published(tmp_path / "published", "v2", limit_layers_first_stage=2))
    for folder, texts in (
        (native, ("BERT, 6 layers of 384, from minilm", "1,000 texts, or any other number", "reads without one too")),
        (shared, ("the second stage itself", "of 512 texts")),
        (
            published,
            ("ModernBERT, 2 layers of 32", "ModernBERT, 4 layers of 32", "5 texts, no more", "nothing without"),
        ),
    ):
        shown = printed("show", folder)
        assert all(text in shown for text in ("first stage", "second stage", "corpus context", *texts)), shown
        assert "backbone" not in shown
    assert "22,713,216 of them in the first stage alone" in printed("show", native)
    assert "first stage alone" not in printed("show", shared)
    values = json.loads(printed("show", native, "--json"))
    assert values["encoder"] == "cde"
    assert values["cde"] | {"first": values["cde"]["first"]["layers"]} == {
        "first": 6,
        "model": "minilm",
        "context_size": 1000,
        "fixed": False,
        "null": True,
    }
    assert json.loads(printed("show", shared, "--json"))["cde"]["first"] is None
    assert json.loads(printed("show", published, "--json"))["cde"]["fixed"] is True
    assert "cde" not in json.loads(printed("show", "minilm", "--json"))


def test_a_model_that_needs_insisting_says_so(tmp_path: Path) -> None:
    folder = save_sentence_transformer(tmp_path / "model", "bert", "cls")
    values = answer(run("models", "show", folder, "--json", cwd=tmp_path))
    assert values["methods"] == ["late (--force-mean)", "independent"]


def printed(*arguments: str) -> str:
    result = CliRunner().invoke(cli, ["models", *arguments])
    assert result.exit_code == 0, result.output
    return result.output


def test_what_a_trained_model_says_of_itself_is_shown(tmp_path: Path) -> None:
    folder = save_sentence_transformer(tmp_path / "model")
    assert "trained for" not in printed("show", str(folder))
    assert json.loads(printed("show", str(folder), "--json"))["trained"] is None
    write_settings(folder, TrainedSettings("late", anchor=16, anchor_title=True, blend=0.0))
    assert "late, --anchor 16, --anchor-title yes, --blend 0.0" in printed("show", str(folder))
    values = json.loads(printed("show", str(folder), "--json"))
    assert values["encoder"] == "late"
    assert values["trained"] == {"method": "late", "anchor": 16, "anchor_title": True, "blend": 0.0}


def test_the_model_that_comes_with_ctxindex_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def available() -> bool:
        models = {model["name"]: model for model in json.loads(printed("list", "--json"))["models"]}
        return bool(models["minilm-insent"]["available"])

    monkeypatch.setattr(packaged, "FOLDER", tmp_path)
    assert not available()
    write_settings(tmp_path, TrainedSettings("late"))
    (tmp_path / packaged.DIFFERENCE).touch()  # for a list, nothing is read of it
    assert available()


def test_help_names_the_default_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def text() -> str:
        made = click.command("any", cls=SectionedCommand)(new_model_option(lambda: None))
        return " ".join(CliRunner().invoke(made, ["--help"]).output.split())

    monkeypatch.setattr(packaged, "FOLDER", tmp_path)
    assert "minilm, a model folder, or owner/name on the hub. [default: minilm]" in text()
    write_settings(tmp_path, TrainedSettings("late"))
    (tmp_path / packaged.DIFFERENCE).touch()
    assert "minilm-insent, minilm, a model folder, or owner/name on the hub. [default: minilm-insent]" in text()


def test_a_model_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    result = run("models", "show", "./nothing", cwd=tmp_path)
    assert (result.returncode, result.stdout) == (4, "")
    assert "there is no model folder ./nothing" in result.stderr


@pytest.mark.parametrize("arguments", [["list"], ["show", "minilm"]])
def test_no_torch_is_imported(arguments: list[str]) -> None:
    script = f"""
import json, sys
from click.testing import CliRunner
from ctxindex.cli.models import command
assert CliRunner().invoke(command, {arguments!r}).exit_code == 0
print(json.dumps(sorted({{"torch", "transformers", "huggingface_hub"}} & set(sys.modules))))
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert json.loads(result.stdout) == []
