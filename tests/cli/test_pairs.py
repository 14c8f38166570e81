"""`ctxindex pairs` as a user has it: what it prints, and what it exits with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.cli.command_line import answer, run
from tests.integrations.fake_endpoint import Fault, running
from tests.training.pairs.documents import ISLAND, LEASE, corpus

FIELDS = ["query_id", "query", "doc_id", "start", "end", "kind", "evidence"]


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A folder with documents in `docs`."""
    docs = tmp_path / "docs"
    docs.mkdir()
    for document in corpus():
        (docs / document.doc_id).write_text(document.text, encoding="utf-8")
    return tmp_path


def rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def test_a_file_of_pairs_has_exact_spans(work: Path) -> None:
    result = run("pairs", "docs", "--out", "pairs.jsonl", "--json", cwd=work)
    assert result.returncode == 0, result.stderr
    found = answer(result)
    assert found["schema"] == "ctxindex.pairs/1"
    assert found["documents"] == 5
    assert found["failed"] == []
    written = rows(work / "pairs.jsonl")
    kinds = {name: count for name, count in found["pairs"].items() if name != "total"}
    assert sum(kinds.values()) == found["pairs"]["total"] == len(written) > 10
    assert all(list(row) == FIELDS for row in written)
    lease = [row for row in written if row["doc_id"] == "docs/lease.txt"]
    assert any(LEASE[row["start"] : row["end"]].startswith('"Premises" means') for row in lease)
    again = run("pairs", "docs", "--out", "again.jsonl", "--seed", "0", "-q", cwd=work)
    assert again.stderr == ""
    assert (work / "again.jsonl").read_bytes() == (work / "pairs.jsonl").read_bytes()


def test_a_set_is_evaluated_as_it_stands(work: Path) -> None:
    result = run("pairs", "docs", "--out", "set", cwd=work)
    assert result.returncode == 0, result.stderr
    assert "ctxindex eval set" in result.stdout
    texts = {row["doc_id"]: row["text"] for row in rows(work / "set" / "documents.jsonl")}
    assert texts["docs/island.md"] == ISLAND
    flags = ("--method", "bm25", "--chunk-size", "200", "--chunk-unit", "chars", "--chunker", "recursive")
    (one,) = answer(run("eval", "set", *flags, "--json", "--quiet", "--no-cache", cwd=work))["runs"]
    assert one["queries"] == len(rows(work / "set" / "queries.jsonl"))
    assert 0.2 < one["metrics"]["ndcg@10"] < 1
    pairs = run("pairs", "docs", "--out", "pairs.jsonl", "-q", cwd=work)
    assert pairs.returncode == 0
    questions = ("--questions", "pairs.jsonl")
    (other,) = answer(run("eval", "docs", *questions, *flags, "--json", "--quiet", "--no-cache", cwd=work))["runs"]
    assert other["metrics"]["ndcg@10"] == pytest.approx(one["metrics"]["ndcg@10"])


def test_documents_are_held_out_and_never_queries(work: Path) -> None:
    result = run("pairs", "docs", "--out", "set", "--holdout", "0.4", "--json", cwd=work)
    assert result.returncode == 0, result.stderr
    sides = [work / "set" / name for name in ("train", "held-out")]
    documents = [{row["doc_id"] for row in rows(side / "documents.jsonl")} for side in sides]
    asked = [{row["doc_id"] for row in rows(side / "queries.jsonl")} for side in sides]
    assert [len(some) for some in documents] == [3, 2]
    assert not documents[0] & documents[1]
    assert all(some <= own for some, own in zip(asked, documents, strict=True))
    assert [one["documents"] for one in answer(result)["written"]] == [3, 2]
    before = (sides[1] / "queries.jsonl").read_bytes()
    assert run("pairs", "docs", "--out", "set", "--holdout", "0.4", "-q", cwd=work).returncode == 0
    assert (sides[1] / "queries.jsonl").read_bytes() == before
    assert run("pairs", "docs", "--out", "set", "--holdout", "0.4", "--seed", "5", "-q", cwd=work).returncode == 0
    assert (sides[1] / "queries.jsonl").read_bytes() != before


@pytest.mark.parametrize(
    ("first", "second", "named"),
    [
        (["set/train"], ["set"], "there are pairs in set/train, and"),
        (["set", "--holdout", "0.4"], ["set"], "there are pairs in set/train and set/held-out, and"),
        (["set"], ["set", "--holdout", "0.4"], "there are pairs in set, and"),
    ],
)
def test_no_set_lies_beside_one_in_parts_and_none_is_removed(
    work: Path, first: list[str], second: list[str], named: str
) -> None:
    assert run("pairs", "docs", "--out", *first, "-q", cwd=work).returncode == 0
    before = {path: path.read_bytes() for path in (work / "set").rglob("*.jsonl")}
    assert before
    result = run("pairs", "docs", "--out", *second, "-q", cwd=work)
    assert result.returncode == 2
    assert named in result.stderr
    assert "name another --out, or remove documents.jsonl and queries.jsonl there" in result.stderr
    assert {path: path.read_bytes() for path in (work / "set").rglob("*.jsonl")} == before
    assert run("pairs", "docs", "--out", *first, "-q", cwd=work).returncode == 0, "of the same kind"


def test_the_next_step_is_named_with_the_paths_that_were_given(work: Path) -> None:
    (work / "docs" / "photo.png").write_bytes(b"")
    result = run("pairs", "docs", "--out", "pairs.jsonl", cwd=work)
    assert "Next: ctxindex eval docs --questions pairs.jsonl --compare" in result.stdout
    assert "ctxindex finetune docs --pairs pairs.jsonl --out MODEL" in result.stdout
    assert "  skipped  docs/photo.png: kind .png holds no text" in result.stderr
    two = ["docs/lease.txt", "docs/island.md"]
    result = run("pairs", *two, "--out", "p.jsonl", "--root", ".", "--json", cwd=work)
    assert answer(result)["skipped"] == []
    result = run("pairs", *two, "--out", "p.jsonl", "--root", ".", cwd=work)
    assert "Next: ctxindex finetune docs/lease.txt docs/island.md --pairs p.jsonl --root . --out MODEL" in result.stdout
    assert "ctxindex eval" not in result.stdout, "it would call the documents by other names"
    result = run("pairs", "docs", "--out", "set", "--holdout", "0.4", cwd=work)
    assert "Next: ctxindex eval set/held-out --compare" in result.stdout
    assert "ctxindex finetune set/train --validation set/held-out --out MODEL" in result.stdout


def test_pairs_that_were_there_are_not_lost(work: Path) -> None:
    file, before = work / "docs" / "pairs.jsonl", work / "docs" / ".pairs.jsonl.before"
    file.write_text('{"query": "mine"}\n')
    result = run("pairs", "docs", "--out", "docs/pairs.jsonl", cwd=work)
    assert "docs/.pairs.jsonl.before: what was there before, and is not the same" in result.stdout
    assert before.read_text() == '{"query": "mine"}\n'
    count = 5  # and none of them is what was kept
    assert f"of {count} documents (" in result.stdout
    found = answer(run("pairs", "docs", "--out", "docs/pairs.jsonl", "--seed", "5", "--json", cwd=work))
    assert (found["kept"], found["documents"]) == ([f"{before.relative_to(work)}1"], count)


def test_no_documents_are_told_as_such(work: Path) -> None:
    (work / "none").mkdir()
    result = run("pairs", "none", "--out", "pairs.jsonl", cwd=work)
    assert (result.returncode, result.stderr.splitlines()[-1]) == (2, "Error: there are no documents in none")


def test_a_bad_file_is_named_and_stops_nothing(work: Path) -> None:
    (work / "docs" / "bad.txt").write_bytes(b"\x00\x01\x02\xff" * 500)
    (work / "docs" / "empty.md").write_text("")
    result = run("pairs", "docs", "--out", "pairs.jsonl", cwd=work)
    assert result.returncode == 3, result.stderr
    assert "docs/bad.txt" in result.stderr
    assert "docs/empty.md" in result.stderr
    assert len(rows(work / "pairs.jsonl")) > 10


def test_what_a_run_wrote_is_not_read_by_the_next(work: Path) -> None:
    docs = work / "docs"
    for out in ("pairs.jsonl", "set"):
        assert run("pairs", ".", "--out", out, "-q", cwd=docs).returncode == 0
        (docs / "pairs.jsonl").unlink(missing_ok=True)
    result = run("pairs", ".", "--out", "set", "--json", cwd=docs)
    assert (result.returncode, answer(result)["documents"]) == (0, 5)


def test_jsonl_on_standard_input_and_kinds(work: Path) -> None:
    line = json.dumps({"doc_id": "memo", "title": "Saint Helena", "text": ISLAND})
    result = run(
        "pairs", "-", "--out", "p.jsonl", "--kinds", "cloze,sentences", "--per-document", "3", cwd=work, stdin=line
    )
    assert result.returncode == 0, result.stderr
    written = rows(work / "p.jsonl")
    assert len(written) == 3
    assert {row["kind"] for row in written} == {"cloze", "sentences"}


def test_removed_sentences_are_not_in_the_set(work: Path) -> None:
    flags = ("--kinds", "cloze", "--remove-sentences", "-q")
    assert run("pairs", "docs/lease.txt", "docs/island.md", "--out", "a.jsonl", *flags, cwd=work).returncode == 0
    assert run("pairs", "docs/lease.txt", "docs/island.md", "--out", "set", *flags, cwd=work).returncode == 0
    pairs, (first, *_) = rows(work / "a.jsonl"), rows(work / "set" / "documents.jsonl")
    assert all(len(pair["remove"]) == 2 for pair in pairs)
    assert len(first["text"]) < len(LEASE)
    assert not any("remove" in row for row in rows(work / "set" / "queries.jsonl"))


def test_a_language_model_is_asked_once(work: Path) -> None:
    with running() as endpoint:
        endpoint.message = {"content": '{"query": "What is said of the lease and Saint Helena?", "quote": ""}'}
        model = ("--llm", "tiny", "--llm-url", endpoint.url, "--llm-price", "1,2", "--cache", "cache")
        command = ["pairs", "docs", "--out", "pairs.jsonl", "--json", *model]
        first = run(*command, cwd=work, OPENAI_API_KEY="key")
        assert first.returncode == 0, first.stderr
        asked = len(endpoint.requests)
        assert asked >= 5
        again = run(*command, cwd=work, OPENAI_API_KEY="key")
        assert len(endpoint.requests) == asked
    assert f"{asked} calls" in answer(first)["llm_cost"]
    assert "USD" in first.stderr
    assert answer(first)["pairs"]["generated"] >= 2
    assert answer(again)["pairs"] == answer(first)["pairs"]


def test_a_model_that_thinks_too_long_is_passed_over(work: Path) -> None:
    with running() as endpoint:
        endpoint.message = {"content": ""}
        endpoint.finish_reason = "length"
        model = ("--llm", "tiny", "--llm-url", endpoint.url, "--cache", "cache", "--per-passage", "10")
        result = run("pairs", "docs", "--out", "p.jsonl", "--json", *model, cwd=work, OPENAI_API_KEY="key")
        assert result.returncode == 0, result.stderr
        assert {request["max_tokens"] for request in endpoint.requests} == {1600}
        asked = len(endpoint.requests)
        assert answer(result)["llm_unanswered"] == asked > 0
        assert f"{asked} of {asked} passages skipped" in result.stderr
        again = run(
            "pairs", "docs", "--out", "p.jsonl", "-q", *model, "--llm-max-tokens", "70", cwd=work, OPENAI_API_KEY="k"
        )
        assert again.returncode == 0, again.stderr
        assert {request["max_tokens"] for request in endpoint.requests[asked:]} == {70}


def test_a_higher_limit_buys_only_what_was_empty(work: Path) -> None:
    with running() as endpoint:
        endpoint.message = {"content": '{"query": "What is said of the lease and Saint Helena?", "quote": ""}'}
        command = ["pairs", "docs", "--out", "p.jsonl", "--json", "--llm", "tiny", "--llm-url", endpoint.url]
        for limit, asked in (("50", True), ("90", False)):
            before = len(endpoint.requests)
            flags = ("--cache", "cache", "--llm-max-tokens", limit)
            result = run(*command, *flags, cwd=work, OPENAI_API_KEY="key")
            assert result.returncode == 0, result.stderr
            assert answer(result)["pairs"]["generated"] >= 2
            assert (len(endpoint.requests) > before) == asked


def test_names_that_say_which_version_a_set_is_are_folders(work: Path) -> None:
    for out in ("set-1.2", "p.json/", ".cache", ".jsonl"):
        assert run("pairs", "docs", "--out", out, "-q", cwd=work).returncode == 0
        assert (work / out / "queries.jsonl").is_file()


def test_a_run_that_was_killed_asks_only_what_was_in_flight(work: Path) -> None:
    query = json.dumps({"query": "What is said of the lease and Saint Helena?"})
    choices = [{"index": 0, "message": {"role": "assistant", "content": query}, "finish_reason": "stop"}]
    completion = {"id": "1", "object": "chat.completion", "created": 0, "model": "tiny", "choices": choices}
    paragraphs = [f"Of the matter number {n} there is " + "very much to say in words. " * 40 for n in range(60)]
    (work / "docs" / "long.txt").write_text("\n\n".join(paragraphs), encoding="utf-8")
    answers = work / "cache" / "answers" / "pairs.jsonl"
    with running() as endpoint:
        endpoint.always = Fault(content=json.dumps(completion).encode(), seconds=0.1)
        flags = ("--llm", "tiny", "--llm-url", endpoint.url, "--cache", "cache", "--per-document", "90", "-q")
        command = [sys.executable, "-m", "ctxindex.cli", "pairs", "docs", "--out", "a.jsonl", "--kinds", "generated"]
        environment = {**os.environ, "OPENAI_API_KEY": "key"}
        with subprocess.Popen([*command, *flags], cwd=work, env=environment, stderr=subprocess.DEVNULL) as process:
            deadline = time.monotonic() + 60
            while len(endpoint.requests) < 12 and time.monotonic() < deadline:
                time.sleep(0.01)
            process.kill()
        assert not (work / "a.jsonl").exists()
        kept = len(rows(answers))
        assert kept > 0
        time.sleep(0.3)  # what was in flight is over
        before = len(endpoint.requests)
        result = run(
            "pairs", "docs", "--out", "a.jsonl", "--kinds", "generated", *flags, cwd=work, OPENAI_API_KEY="key"
        )
        assert result.returncode == 0, result.stderr
        asked = len(endpoint.requests) - before
    assert asked == len(rows(answers)) - kept
    assert asked > 10
    prompts = [one["messages"][0]["content"] for one in endpoint.requests]
    assert len(prompts) - len(set(prompts)) <= 8, "those in flight alone were asked for again"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["docs"], 2, "--out"),
        (["nowhere", "--out", "a.jsonl"], 2, "nowhere"),
        (["docs", "--out", "a.jsonl", "--holdout", "0.1"], 2, "--out DIR"),
        (["docs", "--out", "set", "--holdout", "1.5"], 2, "between 0 and 1"),
        (["docs", "--out", "docs/lease.txt"], 2, "is a file"),
        (["docs", "--out", "p.json"], 2, "name p.jsonl, p or p.json/"),
        (["docs", "--out", "p.jsonl.gz"], 2, "name p.jsonl, p or"),
        (["docs", "--out", "P.JSONL", "--holdout", "0.2"], 2, "name P.jsonl, P or"),
        (["docs", "--out", "docs"], 2, "another place"),
        (["docs/lease.txt", "--out", "docs"], 2, "another place"),
        (["docs", "--out", "a.jsonl", "--kinds", "cloze,nonsense"], 2, "nonsense"),
        (["docs", "--out", "a.jsonl", "--kinds", "generated"], 2, "--llm"),
        (["docs/lease.txt", "--out", "set", "--holdout", "0.5"], 2, "at least two"),
        (["docs", "--out", "a.jsonl", "--include", "*.nothing"], 2, "there are no documents in docs"),
        (["docs", "--out", "docs/lease.txt/a.jsonl"], 2, "cannot write"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(work: Path, arguments: list[str], code: int, message: str) -> None:
    result = run("pairs", *arguments, cwd=work)
    assert (result.returncode, message in result.stderr) == (code, True), result.stderr
    assert "Traceback" not in result.stderr
