"""`ctxindex finetune`: flags that would change nothing, what cannot be read, and what is said to come next."""

from __future__ import annotations

from pathlib import Path

import pytest

from ctxindex.errors import ConfigError
from ctxindex.training import finetune as finetuning
from tests.cli.test_finetune import CHUNKS, Asked, refused, run, train
from tests.encoding.test_colbert import PYLATE, pylate
from tests.training.sets import PLACES, pair, text_of, write_documents, write_jsonl, write_set


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, which is the user's home, too, with the set `towns`."""
    write_set(tmp_path / "towns")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    return tmp_path


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    stand_in = Asked()
    monkeypatch.setattr(finetuning, "finetune", stand_in)
    return stand_in


def test_what_changes_nothing_here_is_told(
    home: Path, asked: Asked, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    train("--gather-negatives", "--withhold-titles", "0.1")
    assert "--gather-negatives changes nothing on one device" in caplog.text
    assert "--withhold-titles" not in caplog.text
    caplog.clear()
    monkeypatch.setenv("WORLD_SIZE", "2")
    write_set(home / "untitled")
    rows = [{"doc_id": place, "text": text_of(place)} for place in PLACES]
    write_jsonl(home / "untitled" / "documents.jsonl", rows)
    run("untitled", "--out", "other", *CHUNKS, "--gather-negatives", "--withhold-titles", "0.1")
    assert len(asked.calls) == 2
    assert "--withhold-titles changes nothing: no document has a title" in caplog.text
    assert "--gather-negatives" not in caplog.text


def test_late_interaction_has_two_views_where_it_is_blended(home: Path, asked: Asked) -> None:
    pylate(home / "colbert", PYLATE)
    flags = ("--distil", "--skip-contextual", "--skip-isolated")
    for flag in flags:
        error = refused("towns", "--model", "colbert", flag, "0.1")
        assert isinstance(error, ConfigError)
        assert str(error).startswith(f"{flag} is about the two vectors of a chunk")
        assert str(error).endswith("leave it out, or say how much with --blend")
    assert not asked.calls
    train("--model", "colbert", "--blend", "0.3", *(part for flag in flags for part in (flag, "0.1")))
    encoder, shares = asked.plan.encoder, asked.plan.shares
    assert (encoder.method, encoder.blend, encoder.isolated) == ("late-interaction", 0.3, "opening")
    assert (shares.contextual, shares.isolated, asked.plan.objective.distil) == (0.1, 0.1, 0.1)


def test_what_comes_next_is_a_command_that_the_model_understands(home: Path, asked: Asked) -> None:
    pylate(home / "colbert", PYLATE)
    result = train("--model", "colbert")
    read = "late-interaction,anchor=32,anchor-title,blend=0.0"
    assert f"eval OTHER-SET --model colbert --method {read} --compare late-interaction,windows=chunk" in result.stdout


def test_a_home_folder_is_found_wherever_it_is_named(home: Path, asked: Asked) -> None:
    folder = write_documents(home / "docs", PLACES[:6])
    rows = [{**pair(place, 1), "doc_id": f"docs/{place}.txt"} for place in PLACES[:6]]
    write_jsonl(folder / "asked.jsonl", rows)
    write_set(home / "measured", PLACES[6:])
    result = run("~/docs", "--pairs=~/docs/asked.jsonl", "--validation=~/measured", "--out", "tuned", *CHUNKS)
    assert result.exit_code == 0, (result.output, result.exception)
    data = asked.call["data"]
    assert {name: len(corpus.documents) for name, corpus in data.sources.items()} == {"asked": 6}
    assert {name: len(corpus.documents) for name, corpus in data.held.items()} == {"measured": 6}


def test_what_a_model_cannot_read_is_told_and_left_out(
    home: Path, asked: Asked, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [{"query_id": place, **pair(place, 0)} for place in PLACES]
    rows += [{"query_id": f"nothing {place}", **pair(place, 1, "\u200b\u200b")} for place in PLACES[:3]]
    write_jsonl(home / "towns" / "queries.jsonl", rows)
    train("--held-out", "0")
    assert "towns: 3 queries left out (the model can read nothing of them)" in caplog.text
    assert len(asked.call["data"].sources["towns"].queries) == len(PLACES)
