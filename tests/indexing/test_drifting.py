"""What `status` says of a corpus since the context of its index was frozen."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from ctxindex import Index
from ctxindex.encoding.cde.folder import make_native_cde
from ctxindex.encoding.cde.settings import NativeCde
from ctxindex.errors import UsageError
from ctxindex.types import ContextStatus
from tests.cli.command_line import answer, run
from tests.encoding.tiny import save_sentence_transformer

SIZE = 6
LAW = ["party", "shall", "terminate", "agreement", "notice", "law", "delaware", "governs", "early", "either"]
LIFE = ["napoleon", "emperor", "corsica", "exile", "born", "died", "year", "became", "island", "french"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    place = tmp_path_factory.mktemp("models")
    base = save_sentence_transformer(place / "base")
    return str(make_native_cde(str(base), place / "cde", NativeCde(context_size=SIZE)))


def write(folder: Path, name: str, words: list[str], count: int) -> None:
    folder.mkdir(exist_ok=True)
    chance = random.Random(name)
    for number in range(count):
        (folder / f"{name}{number}.txt").write_text(" ".join(chance.choices(words, k=30)), encoding="utf-8")


def context_of(index: Index, **more: Any) -> ContextStatus:
    found = index.status(**more).context
    assert found is not None
    return found


@pytest.mark.parametrize("store", ["lancedb", "qdrant"])
def test_growth_and_loss_are_counted(tmp_path: Path, model: str, store: str) -> None:
    write(tmp_path / "docs", "law", LAW, 8)
    with Index.open(model=model, store=store, path=tmp_path / "db", device="cpu") as index:
        index.ingest(tmp_path / "docs")
        first = context_of(index)
        assert (first.size, first.texts, first.sampled, first.changed, first.gone) == (SIZE, SIZE, SIZE, 0, 0)
        assert (first.documents_then, first.documents_now, first.growth, first.drift) == (8, 8, 1.0, None)
        assert index.spec is not None
        assert first.context_id == index.spec.encoder.context
        write(tmp_path / "docs", "more", LAW, 8)
        write(tmp_path / "docs", "law", LIFE, 8)  # all eight say something else now
        index.ingest(tmp_path / "docs")
        index.delete(["docs/law0.txt", "docs/law1.txt", "docs/law2.txt"])  # of which at least one is in the context
        later = context_of(index)
        assert (later.documents_then, later.documents_now, later.growth) == (8, 13, 13 / 8)
        assert 1 <= later.gone <= 3
        assert later.changed == SIZE - later.gone
        assert later.made_at == first.made_at


def test_drift_is_chance_in_the_same_corpus_and_more_in_another(tmp_path: Path, model: str) -> None:
    write(tmp_path / "docs", "law", LAW, 40)
    with Index.open(model=model, path=tmp_path / "db", device="cpu") as index:
        index.ingest(tmp_path / "docs")
        same = context_of(index, drift=True).drift
        index.delete([record.doc_id for record in index.records()])
        write(tmp_path / "other", "life", LIFE, 40)
        index.ingest(tmp_path / "other")
        moved = context_of(index, drift=True).drift
    assert same is not None
    assert moved is not None
    assert same < 2 < moved


def test_a_new_index_has_a_new_context_and_the_old_one_keeps_its_own(tmp_path: Path, model: str) -> None:
    write(tmp_path / "docs", "law", LAW, 8)
    with Index.open("old", model=model, path=tmp_path / "db", device="cpu") as index:
        index.ingest(tmp_path / "docs")
        before = context_of(index)
    write(tmp_path / "docs", "life", LIFE, 20)
    with Index.open("new", model=model, path=tmp_path / "db", device="cpu") as index:
        assert index.ingest(tmp_path / "docs").new == 28
        made = context_of(index)
        assert (made.documents_then, made.growth) == (28, 1.0)
        assert made.context_id != before.context_id
    with Index.open("old", path=tmp_path / "db", device="cpu") as index:
        assert context_of(index) == before


def test_too_few_texts_say_nothing_of_drift(tmp_path: Path, model: str) -> None:
    write(tmp_path / "docs", "law", LAW[:1], 1)
    with Index.open(model=model, path=tmp_path / "db", device="cpu") as index:
        index.ingest(tmp_path / "docs")
        assert context_of(index, drift=True).drift is None


def test_texts_that_are_all_the_same_say_nothing_of_drift(tmp_path: Path, model: str) -> None:
    (tmp_path / "docs").mkdir()
    for number in range(4):
        (tmp_path / "docs" / f"{number}.txt").write_text("The party shall terminate.", encoding="utf-8")
    with Index.open(model=model, path=tmp_path / "db", device="cpu") as index:
        index.ingest(tmp_path / "docs")
        assert context_of(index, drift=True).drift is None
    shown = run("status", "--drift", "--path", "db", "--device", "cpu", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert "too few texts" in shown.stdout


@pytest.mark.parametrize("broken", ["a", "z"])
def test_documents_that_cannot_be_read_are_no_growth(tmp_path: Path, model: str, broken: str) -> None:
    """Whether or not reading came to them before the sample was full."""
    write(tmp_path / "docs", "law", LAW, 2 * SIZE)
    for number in range(SIZE):
        (tmp_path / "docs" / f"{broken}{number}.pdf").write_bytes(b"%PDF-1.4 no more of it")
    (tmp_path / "docs" / "lines.jsonl").write_text("no JSON\n", encoding="utf-8")
    with Index.open(model=model, path=tmp_path / "db", device="cpu") as index:
        assert len(index.ingest(tmp_path / "docs").failures) == SIZE + 1
        found = context_of(index)
        assert (found.documents_then, found.documents_now, found.growth) == (3 * SIZE + 1, 3 * SIZE + 1, 1.0)
    if broken == "a":
        shown = run("status", "--path", "db", cwd=tmp_path).stdout
        assert f"{3 * SIZE + 1} documents now with those that failed, 1.0 times as many" in shown
        assert found.sampled < found.documents_then
        assert f"texts of {found.sampled} documents, made" in shown


def test_without_a_context_there_is_nothing_to_drift_from(tmp_path: Path) -> None:
    write(tmp_path / "docs", "law", LAW, 2)
    with Index.open(model="minilm", path=tmp_path / "db", device="cpu") as index:
        index.ingest(tmp_path / "docs")
        assert index.status().context is None
        with pytest.raises(UsageError, match="leave out --drift"):
            index.status(drift=True)


def test_the_command_line_tells_all_of_it(tmp_path: Path, model: str) -> None:
    write(tmp_path / "docs", "law", LAW, 4)
    result = run("ingest", "docs", "--model", model, "--device", "cpu", "-q", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "Its corpus context, 4 texts of 4 documents, is frozen" in result.stdout
    shown = run("status", cwd=tmp_path).stdout
    assert "4 texts of 4 documents, made 20" in shown
    assert "by-document, seed 0" in shown
    assert "4 documents now, 1.0 times as many" in shown
    assert "--index NEW" not in shown
    write(tmp_path / "docs", "life", LIFE, 6)
    again = run("ingest", "docs", "-q", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "is frozen" not in again.stdout
    result = run("status", "--drift", "--device", "cpu", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "10 documents now, 2.5 times as many" in result.stdout
    assert "Drift " in result.stdout
    assert "the corpus has 2.5 times as many documents as it had" in result.stdout.lower()
    assert f"ctxindex ingest PATH --model {model} --index NEW" in result.stdout
    assert "what this index was given (method, settings, chunker and drawn above) has to be given again" in (
        result.stdout.replace("\n", " ")
    )
    assert "ctxindex status --drift --path .ctxindex" in run("status", "--path", ".ctxindex", cwd=tmp_path).stdout
    values = answer(run("status", "--json", cwd=tmp_path))["corpus_context"]
    assert (values["texts"], values["documents_now"], values["growth"], values["drift"]) == (4, 10, 2.5, None)
    refused = run("status", "--drift", "--index", "none", cwd=tmp_path)
    assert refused.returncode == 4


def test_documents_that_went_are_a_reason_for_a_new_context(tmp_path: Path, model: str) -> None:
    write(tmp_path / "docs", "law", LAW, 4)
    assert run("ingest", "docs", "--model", model, "--device", "cpu", "-q", cwd=tmp_path).returncode == 0
    for number, file in enumerate(sorted((tmp_path / "docs").iterdir())):
        if number < 2:
            file.write_text("Something else is said here, of the sea and of ships.\n", encoding="utf-8")
    assert run("ingest", "docs", "-q", cwd=tmp_path).returncode == 0
    shown = run("status", cwd=tmp_path).stdout
    assert "Of the 4 documents in the context 2 changed or are gone." in shown
    assert "ctxindex status --drift" in shown
    with Index.open(path=tmp_path / ".ctxindex", device="cpu") as index:
        index.delete([record.doc_id for record in index.records()])
    shown = run("status", cwd=tmp_path).stdout
    assert "no document is in the index: where the first ingest was interrupted, run it again" in shown
    assert "--index NEW" not in shown


def test_the_command_line_draws_by_another_seed(tmp_path: Path, model: str) -> None:
    write(tmp_path / "docs", "law", LAW, 4)
    drawn = ("--context-seed", "7", "--context-sampling", "uniform-chunk")
    result = run("ingest", "docs", "--model", model, "--device", "cpu", "-q", *drawn, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    values = answer(run("status", "--json", cwd=tmp_path))["corpus_context"]
    assert (values["seed"], values["sampling"]) == (7, "uniform-chunk")
    assert "uniform-chunk, seed 7" in run("status", cwd=tmp_path).stdout
    assert run("ingest", "docs", "-q", *drawn, cwd=tmp_path).returncode == 0
    refused = run("ingest", "docs", "-q", "--context-seed", "8", cwd=tmp_path)
    assert refused.returncode == 5
    assert "context_seed: index 7, asked for 8" in refused.stderr
    refused = run("ingest", "docs", "-q", cwd=tmp_path, CTXINDEX_CONTEXT_SEED="8")
    assert refused.returncode == 5


def test_chunks_in_their_corpus_alone_verify(tmp_path: Path, model: str) -> None:
    write(tmp_path / "docs", "law", LAW, 3)
    with Index.open(model=model, windows="chunk", chunk_size=16, path=tmp_path / "db", device="cpu") as index:
        index.ingest(tmp_path / "docs")
        report = index.verify(tmp_path / "docs")
        assert report.agrees
        assert "corpus alone" in str(report.context.note)
