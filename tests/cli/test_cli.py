"""The command line as a user has it: its output, its exit code, and what only a process can show."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.command_line import answer, run, run_process

HERE = Path(__file__)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, samples: Path) -> Path:
    """A folder with an index of three contracts in `.ctxindex`."""
    folder = tmp_path_factory.mktemp("work")
    contracts = folder / "contracts"
    contracts.mkdir()
    for file in sorted(samples.glob("*.txt"))[:3]:
        (contracts / file.name).write_bytes(file.read_bytes())
    result = run("ingest", "contracts", "--json", cwd=folder)
    assert result.returncode == 0, result.stderr
    report = answer(result)
    assert report["schema"] == "ctxindex.ingest/1"
    assert report["documents"] == {"new": 3, "changed": 0, "unchanged": 0, "skipped": 0, "failed": 0}
    assert set(report["seconds"]) == {"total", "model", "load", "chunk", "tokenise", "forward", "write"}
    assert report["chunks"] > 50
    assert report["tokens"] > 50 * 40
    return folder


def test_help_names_every_command_and_is_quick(tmp_path: Path) -> None:
    run_process("--help", cwd=tmp_path)
    before = os.times()
    result = run_process("--help", cwd=tmp_path)
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    assert used < 1.0, "0.3 s of a processor; this only catches a heavy import"
    assert result.returncode == 0
    for name in ("ingest", "search", "status", "verify", "version"):
        assert name in result.stdout
        assert run(name, "--help", cwd=tmp_path).returncode == 0


def test_a_second_run_finds_nothing_to_do(work: Path) -> None:
    result = run("ingest", "contracts", "--json", cwd=work)
    assert result.returncode == 0
    assert answer(result)["documents"] == {"new": 0, "changed": 0, "unchanged": 3, "skipped": 0, "failed": 0}


def test_the_ids_are_the_same_from_another_folder(work: Path) -> None:
    inside = work / "contracts"
    result = run("ingest", ".", "--path", "../.ctxindex", "--json", cwd=inside)
    assert answer(result)["documents"]["unchanged"] == 3


def test_search_prints_hits_for_scripts_and_for_people(work: Path) -> None:
    found = answer(run("search", "which law governs?", "-k", "3", "--json", cwd=work))
    assert found["schema"] == "ctxindex.search/1"
    assert len(found["hits"]) == 3
    for hit in found["hits"]:
        assert set(hit) == {"doc_id", "chunk_id", "start", "end", "score", "text", "metadata"}
        text = (work / hit["doc_id"]).read_text(encoding="utf-8")
        assert hit["text"] == text[hit["start"] : hit["end"]]
    result = run("search", "which law governs?", "-k", "3", cwd=work)
    first = found["hits"][0]
    assert f"1. {first['doc_id']}  [{first['start']}:{first['end']}]  score {first['score']:.3f}" in result.stdout


def test_filters_narrow_the_search(work: Path) -> None:
    doc_id = answer(run("search", "law", "--json", cwd=work))["hits"][-1]["doc_id"]
    hits = answer(run("search", "law", "--filter", f"doc_id={doc_id}", "--json", cwd=work))["hits"]
    assert {hit["doc_id"] for hit in hits} == {doc_id}
    assert answer(run("search", "law", "--filter", "doc_id=nothing", "--json", cwd=work))["hits"] == []


def test_status_tells_what_is_there(work: Path) -> None:
    status = answer(run("status", "--json", cwd=work))
    assert (status["schema"], status["documents"], status["failed"]) == ("ctxindex.status/1", 3, [])
    assert status["spec"]["encoder"]["model"] == "minilm-insent"
    assert status["spec"]["format_version"] == 2
    text = run("status", cwd=work).stdout
    assert "minilm" in text
    assert f"{status['chunks']:,}" in text


def test_version_names_what_it_stands_on(tmp_path: Path) -> None:
    versions = answer(run("version", "--json", cwd=tmp_path))["versions"]
    assert {"ctxindex", "torch", "lancedb", "qdrant-edge-py"} <= set(versions)


def test_jsonl_comes_through_standard_input(tmp_path: Path) -> None:
    lines = '{"doc_id": "a", "title": "Napoleon", "text": "He became emperor in 1804."}\n{"doc_id": "b"}\n'
    result = run("ingest", "-", "--json", cwd=tmp_path, stdin=lines)
    assert result.returncode == 3
    assert answer(result)["documents"] == {"new": 1, "changed": 0, "unchanged": 0, "skipped": 0, "failed": 1}
    assert answer(run("search", "emperor", "--json", cwd=tmp_path))["hits"][0]["doc_id"] == "a"
    (failure,) = answer(run("status", "--json", cwd=tmp_path))["failed"]
    assert failure["doc_id"] == "b"
    assert "text" in failure["error"]


def test_settings_come_from_a_file_and_from_variables(tmp_path: Path) -> None:
    (tmp_path / "note.md").write_text("# A note\n\nOn nothing.", encoding="utf-8")
    (tmp_path / "ctxindex.toml").write_text('index = "notes"\nchunk-size = 64\npath = "db"\n', encoding="utf-8")
    assert run("ingest", "note.md", cwd=tmp_path, CTXINDEX_METHOD="late").returncode == 0
    status = answer(run("status", "--json", "--index", "notes", "--path", "db", cwd=tmp_path))
    assert (status["spec"]["chunker"]["size"], status["spec"]["encoder"]["method"]) == (64, "late")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["ingest", "nowhere"], 2, "nowhere"),
        (["ingest"], 2, "PATHS"),
        (["ingest", "a.txt", "--chunk-size", "many"], 2, "chunk-size"),
        (["ingest", "a.txt", "--chunk-size", "2"], 2, "--chunk-size 2 is too small"),
        (["ingest", "a.txt", "--max-tokens", "4096"], 2, "--max-tokens 4096"),
        (["ingest", "a.txt", "--dtype", "int3"], 2, "--dtype int3"),
        (["ingest", "a.txt", "--device", "abacus"], 2, "--device abacus"),
        (["ingest", "a.txt", "--model", "./no-model"], 4, "no model folder ./no-model"),
        (["ingest", "a.txt", "--model", "nobody/nothing"], 4, "cannot get the model nobody/nothing"),
        (["ingest", "a.txt", "--store", "oracle"], 2, "oracle"),
        (["ingest", "a.txt", "--index", "a/b"], 2, "a/b"),
        (["search", "anything"], 4, "ctxindex ingest"),
        (["status"], 4, "ctxindex ingest"),
        (["serach", "x"], 2, "serach"),
    ],
)
def test_errors_are_one_sentence_and_a_code(tmp_path: Path, arguments: list[str], code: int, message: str) -> None:
    (tmp_path / "a.txt").write_text("some text", encoding="utf-8")
    result = run(*arguments, cwd=tmp_path)
    assert result.returncode == code, result.stderr
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def test_nothing_is_left_behind_by_a_refused_ingest(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("some text", encoding="utf-8")
    run("ingest", "a.txt", "--dtype", "int3", cwd=tmp_path)
    result = run("ingest", "a.txt", "--json", cwd=tmp_path)
    assert answer(result)["documents"]["new"] == 1


def test_another_model_or_setting_is_refused(work: Path) -> None:
    result = run_process("ingest", "contracts", "--chunk-size", "64", cwd=work)
    assert result.returncode == 5
    assert "chunk_size: index 128, asked for 64" in result.stderr


def test_the_choices_of_late_chunking_are_flags(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("some text", encoding="utf-8")
    flags = ["--anchor", "16", "--anchor-title", "--owner", "mean", "--blend", "0.25", "--isolated", "title"]
    refused = run("ingest", "a.txt", "--method", "independent", *flags, cwd=tmp_path)
    assert refused.returncode == 2
    assert "--owner goes with --method late, late-interaction or cde, not with independent" in refused.stderr
    assert answer(run("ingest", "a.txt", "--method", "late", *flags, "--json", cwd=tmp_path))["documents"]["new"] == 1
    encoder = answer(run("status", "--json", cwd=tmp_path))["spec"]["encoder"]
    wanted = {"anchor": 16, "anchor_title": True, "owner": "mean", "blend": 0.25, "isolated": "title"}
    assert {name: encoder[name] for name in wanted} == wanted
    assert "owner mean, anchor 16, anchor_title True, blend 0.25, isolated title" in run("status", cwd=tmp_path).stdout


def test_windows_and_pooling_are_flags(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("some text", encoding="utf-8")
    flags = ["--method", "late", "--join", "raw", "--pooling", "inclusive", "--windows"]
    refused = run("ingest", "a.txt", *flags, "full", cwd=tmp_path)
    assert refused.returncode == 2
    assert "Use --windows window, or a model with rotary positions" in refused.stderr
    made = run("ingest", "a.txt", *flags, "token-window", "--window-overlap", "32", "--json", cwd=tmp_path)
    assert answer(made)["documents"]["new"] == 1
    encoder = answer(run("status", "--json", cwd=tmp_path))["spec"]["encoder"]
    wanted = {"join": "raw", "pooling": "inclusive", "windows": "token-window", "overlap": 32, "owner": "none"}
    assert {name: encoder[name] for name in wanted} == wanted
    shown = "settings     join raw, pooling inclusive, windows token-window, overlap 32, owner none"
    assert shown in run("status", cwd=tmp_path).stdout


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["serach", "x"], 2), (["pairs", "-", "--out", "pairs.jsonl", "--kinds", "definitions"], 3), (["status"], 4)],
)
def test_a_process_does_what_these_tests_see(tmp_path: Path, arguments: list[str], code: int) -> None:
    prose = '"Premises" means the caf\u00e9 \u2013 and its kitchen \u2013 in the Stra\u00dfe of the museums, as leased.'
    lines = json.dumps({"doc_id": "a", "text": prose}, ensure_ascii=False) + "\n{}\n"
    here, process = (ask(*arguments, cwd=tmp_path, stdin=lines) for ask in (run, run_process))
    assert here.returncode == process.returncode == code
    assert (here.stdout, here.stderr) == (process.stdout, process.stderr)
    assert here.stderr
    assert ("caf\u00e9 \u2013 and" in process.stdout) == (code == 3), "the pipes keep it as it was"


def test_what_nobody_foresaw_is_a_sentence_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> str:
        raise RuntimeError(f"no {name}")

    monkeypatch.setattr("ctxindex.cli.version._version", broken)
    result = run("version", cwd=tmp_path)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == "Error: unexpected RuntimeError: no torch (CTXINDEX_DEBUG=1 shows where)\n"
    result = run("version", cwd=tmp_path, CTXINDEX_DEBUG="1")
    assert result.returncode == 1
    assert "Traceback" in result.stderr


def test_a_dry_run_loads_no_model(work: Path) -> None:
    result = run("ingest", HERE.parent, "--dry-run", "--json", cwd=work)
    assert result.returncode == 0
    report = answer(result)
    assert report["documents"]["new"] >= 1
    assert report["seconds"]["model"] == 0


def test_ctrl_c_leaves_an_index_to_go_on_with(work: Path, samples: Path, tmp_path: Path) -> None:
    text = "\n\n".join(file.read_text(encoding="utf-8") for file in sorted(samples.glob("*.txt")))
    for number in range(10):  # more than half a million tokens
        (tmp_path / f"{number}.txt").write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "ctxindex.cli", "ingest", str(tmp_path), "--index", "long"]
    with subprocess.Popen(command, cwd=work, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        process.stderr.readline()  # the plan is made: the model is at work from here on
        time.sleep(3)
        process.send_signal(signal.SIGINT)
        try:
            _, errors = process.communicate(timeout=60)
        finally:
            process.kill()  # where it does not stop
    assert process.returncode == 130
    assert "Interrupted" in errors
    assert "Traceback" not in errors
    assert run("status", "--index", "long", cwd=work).returncode == 0


def test_output_that_nobody_reads_is_no_traceback(work: Path) -> None:
    command = f"{sys.executable} -m ctxindex.cli status --json | true"
    result = subprocess.run(["bash", "-c", command], cwd=work, capture_output=True, text=True, check=True)
    assert result.stderr == ""
