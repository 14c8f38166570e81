"""Pairs by a language model: what is asked, how answers are read, and that nothing is asked twice."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from ctxindex.errors import GenerationError
from ctxindex.llm import CachedGenerator, Price
from ctxindex.training.pairs import OFFLINE, PairOptions, QueryWriter, draw
from ctxindex.training.pairs.generated import PASSAGE_CHARS, most_tokens, parse, passages_of
from ctxindex.training.pairs.subject import subjects_of
from ctxindex.types import Document
from tests.fake_generator import FakeGenerator
from tests.training.pairs.documents import HOSTILE, corpus, lease

ONLY = PairOptions(12, ("generated",))


def quoting(prompt: str) -> str:
    """Questions about the outer words of the passage."""
    words = prompt.split("=== Passage ===\n")[1].split("\n=== End")[0].split()
    lines = [
        {"query": f"What do they say about {words[0]} and {words[1]}?", "quote": " ".join(words[-4:])},
        {"query": f"Who knows {words[-1]} in Saint Helena or the lease?", "quote": "words that are not there"},
    ]
    return "\n".join(json.dumps(line) for line in lines)


def writer(file: Path, fake: FakeGenerator, said: list[str] | None = None) -> QueryWriter:
    told = [] if said is None else said
    return QueryWriter(CachedGenerator(fake, file), price=Price(1, 2), say=told.append, workers=1)


def test_queries_name_the_subject_and_quotes_give_the_span(tmp_path: Path) -> None:
    documents, said = corpus(), list[str]()
    drawn = draw(documents, ONLY, writer=writer(tmp_path / "a.jsonl", FakeGenerator(quoting), said))
    assert drawn.pairs
    texts = {document.doc_id: document.text for document in documents}
    subjects = {one.doc_id: subject for one, subject in zip(documents, subjects_of(documents), strict=True)}
    for pair in drawn.pairs:
        assert pair.kind == "generated"
        assert subjects[pair.doc_id].is_named_in(pair.query)
        answer = texts[pair.doc_id][pair.start : pair.end]
        if "What do they" in pair.query:
            assert len(answer.split()) <= 4
        else:
            assert len(answer) >= 100, "the whole passage where the quote is not in it"
    assert "USD" in said[0]
    assert "calls" in said[1]


def test_the_prompt_names_the_subject_and_holds_the_passage(tmp_path: Path) -> None:
    fake = FakeGenerator(quoting)
    draw([lease()], ONLY, writer=writer(tmp_path / "a.jsonl", fake))
    assert fake.prompts
    for prompt in fake.prompts:
        assert "about: Lease Agreement of Harbour Storage Ltd." in prompt
        assert prompt.split("=== Passage ===\n")[1].split("\n=== End")[0] in lease().text


def test_a_run_that_failed_goes_on_and_asks_nothing_twice(tmp_path: Path) -> None:
    whole = FakeGenerator(quoting)
    expected = draw(corpus(), ONLY, writer=writer(tmp_path / "whole.jsonl", whole))
    fake = FakeGenerator(quoting, fail_after=2)
    with pytest.raises(GenerationError, match="answers are kept"):
        draw(corpus(), ONLY, writer=writer(tmp_path / "a.jsonl", fake))
    fake.fail_after = None
    assert draw(corpus(), ONLY, writer=writer(tmp_path / "a.jsonl", fake)) == expected
    assert sorted(fake.prompts) == sorted(whole.prompts)
    again = writer(tmp_path / "a.jsonl", fake)
    assert draw(corpus(), ONLY, writer=again) == expected
    assert len(fake.prompts) == len(whole.prompts)
    assert "0 calls" in again.cost


def test_a_query_without_a_word_of_its_own_gets_the_subject(tmp_path: Path) -> None:
    documents = [
        Document(f"{name}.txt", f"The agreement of {name} ends in May. " * 6, f"Services Agreement of {name} Inc")
        for name in ("Acme", "Bolt")
    ]
    fake = FakeGenerator(
        lambda prompt: '{"query": "When does the agreement end?"}\n{"query": "When does Acme leave us?"}'
    )
    drawn = draw(documents, ONLY, writer=writer(tmp_path / "a.jsonl", fake))
    assert {pair.query for pair in drawn.pairs if pair.doc_id == "Acme.txt"} == {
        "When does Acme leave us?",
        "Services Agreement of Acme Inc: When does the agreement end?",
    }


def test_passages_whose_answers_are_empty_are_counted(tmp_path: Path) -> None:
    said = list[str]()
    fake = FakeGenerator(lambda prompt: "" if "Saint Helena" in prompt else quoting(prompt))
    written = writer(tmp_path / "a.jsonl", fake, said)
    assert draw(corpus(), ONLY, writer=written).pairs
    assert 0 < written.unanswered < len(fake.prompts)
    assert said[-1].startswith(f"queries: {written.unanswered} of {len(fake.prompts)} passages skipped")
    assert "--llm-max-tokens" in said[-1]


def test_an_answer_may_be_as_long_as_its_questions() -> None:
    assert most_tokens(10) >= 10 * 120
    assert most_tokens(3) > 3 * 120


@pytest.mark.parametrize("answer", ["", "I cannot help with that.", "{}", "[]", "null", "\x00", "{" * 100_000])
def test_a_refusal_gives_no_pairs_and_stops_nothing(tmp_path: Path, answer: str) -> None:
    fake = FakeGenerator(lambda prompt: answer)
    options = PairOptions(10, (*OFFLINE, "generated"))
    drawn = draw(corpus(), options, writer=writer(tmp_path / "a.jsonl", fake))
    assert drawn.pairs
    assert "generated" not in drawn.by_kind()


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ('{"query": "Who pays the rent?", "quote": "the tenant"}', [("Who pays the rent?", "the tenant")]),
        ('```json\n[{"query": "Who pays the rent?"}]\n```', [("Who pays the rent?", "")]),
        ('[\n  {"query": "Who pays\\n the rent?",\n "quote": "x"}\n]', [("Who pays the rent?", "x")]),
        ('1. {"query": "Who pays the rent?", "quote": "cut o', [("Who pays the rent?", "")]),
        ('{"query": "Who pays the rent?"}\n{"query": "who pays the RENT?"}', [("Who pays the rent?", "")]),
        ('{"query": 7}\n{"query": "short"}\n{"question": "Who pays the rent?"}', []),
        ('{"query": "????????????"}', []),
        ('{"query": "Who \\ud83d pays the rent?", "quote": null}', [("Who ? pays the rent?", "")]),
    ],
)
def test_answers_are_read_in_any_dress(answer: str, expected: list[tuple[str, str]]) -> None:
    assert list(parse(answer)) == expected


@pytest.mark.parametrize("name", HOSTILE)
def test_passages_are_short_and_in_order(name: str) -> None:
    document = Document("a", HOSTILE[name])
    spans = passages_of(document)
    assert spans == sorted(spans)
    for start, end in spans:
        assert 100 <= end - start <= PASSAGE_CHARS
        assert document.text[start:end].strip() == document.text[start:end]


def test_passages_are_spread_over_the_document(tmp_path: Path) -> None:
    paragraphs = [
        f"Paragraph {n} tells of the matter {n} at length. " + "It says so in many words. " * 40 for n in range(40)
    ]
    document = Document("long.txt", "\n\n".join(paragraphs), "A Long Story")
    fake = FakeGenerator(quoting)
    draw([document], ONLY, writer=writer(tmp_path / "a.jsonl", fake))
    numbers = sorted(
        int(found)
        for prompt in fake.prompts
        for found in re.findall(r"matter (\d+)", prompt.split("=== Passage")[1])[:1]
    )
    assert len(fake.prompts) == 4
    assert [number // 10 for number in numbers] == [0, 1, 2, 3]
