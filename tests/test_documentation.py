"""What the documentation says is run: the quick start of the README, the recipes, the generated pages."""

from __future__ import annotations

import json
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ctxindex.config import SETTINGS, Settings
from tests.conftest import REPOSITORY
from tests.in_process import in_process


def test_the_quick_start_of_the_readme_runs(
    tmp_path: Path, samples: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (REPOSITORY / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len(code.strip().splitlines()) <= 11
    contracts = tmp_path / "recipes" / "data" / "contracts"
    contracts.mkdir(parents=True)
    for file in sorted(samples.glob("*.txt"))[:2]:
        shutil.copy(file, contracts)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("2 documents, ")
    assert printed[-1] == "3 nodes"
    assert len(printed) == 5


def test_the_examples_of_the_page_on_evaluation_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (REPOSITORY / "docs" / "evaluation.md").read_text(encoding="utf-8")
    own, in_mteb = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (tmp_path / "my-set").mkdir()
    document = {"doc_id": "napoleon", "title": "Napoleon", "text": "He was born in Corsica. " * 30 + "He died in 1821."}
    query = {"query_id": "1", "query": "When did he die?", "doc_id": "napoleon", "start": 720, "end": 736}
    (tmp_path / "my-set" / "documents.jsonl").write_text(json.dumps(document), encoding="utf-8")
    (tmp_path / "my-set" / "queries.jsonl").write_text(json.dumps(query), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    exec(compile(own, "evaluation.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" ")[0] for line in lines] == ["bm25", "late,anchor=64"]
    exec(compile(in_mteb, "evaluation.md", "exec"), {})
    assert "napoleon_1" in capsys.readouterr().out


def test_the_quick_start_recipe_runs(tmp_path: Path) -> None:
    recipe = str(REPOSITORY / "recipes" / "01_quickstart.py")
    command = [recipe, "--path", str(tmp_path)]
    first = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert first.stdout.count("14 new, 0 unchanged") == 2
    found = re.findall(r"Of 20 questions, (\d+) find their contract and (\d+) their clause", first.stdout)
    assert len(found) == 2
    assert all(int(contract) >= int(clause) > 0 for contract, clause in found)
    again = in_process(lambda: runpy.run_path(recipe, run_name="__main__"), command, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("0 new, 14 unchanged") == 2


def test_the_settings_file_of_the_readme_is_accepted(tmp_path: Path) -> None:
    (text,) = re.findall(r"```toml\n(.*?)```", (REPOSITORY / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "ctxindex.toml").write_text(text, encoding="utf-8")
    settings = Settings({}, {}, tmp_path)
    assert settings.get("chunk_size") == 128
    assert set(SETTINGS) == set(re.findall(r"\b(" + "|".join(SETTINGS) + r")\b", text))


def test_the_page_of_the_command_line_is_that_of_the_code() -> None:
    generator = runpy.run_path(str(REPOSITORY / "docs" / "generate.py"))
    page = (REPOSITORY / "docs" / "cli.md").read_text(encoding="utf-8")
    assert page == generator["render"](), "run python docs/generate.py"


def test_the_bundled_questions_point_into_the_bundled_contracts(samples: Path) -> None:
    lines = (samples / "questions.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 20
    assert 12 <= len(list(samples.glob("*.txt"))) <= 15
    for line in lines:
        question = json.loads(line)
        text = (samples.parent / question["doc_id"]).read_text(encoding="utf-8")
        assert 0 <= question["start"] < question["end"] <= len(text)


def test_links_in_the_documentation_lead_somewhere() -> None:
    pages = [REPOSITORY / "README.md", *(REPOSITORY / "docs").glob("*.md"), *(REPOSITORY / "recipes").rglob("*.md")]
    for page in pages:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
            assert target.startswith("http") or (page.parent / target).exists(), f"{page}: {target}"
