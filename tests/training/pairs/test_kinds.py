"""What each kind of pair makes of a document, by the words."""

from __future__ import annotations

import random
import re

import pytest

from ctxindex.training.pairs import cloze, definitions, headings, sentences
from ctxindex.training.pairs.salience import Salience, Statistics
from ctxindex.training.pairs.subject import subjects_of
from ctxindex.training.pairs.text import (
    blocks_of,
    content_words,
    looks_english,
    sentences_of,
    split_sentences,
    words_of,
)
from ctxindex.training.pairs.values import Material, Proposer
from ctxindex.types import Document, Section
from tests.training.pairs.documents import CHINESE, FRENCH, ISLAND, LEASE, island, lease

YES_OR_NO = re.compile(r": (?:is|are|was|were|has|have|had|can|may|shall|must|will|should) ")


def material(document: Document, *others: Document) -> Material:
    documents = [document, *others]
    return Material(document, subjects_of(documents)[0], Statistics.of(documents), random.Random("one"))


def asked(propose: Proposer, document: Document) -> dict[str, str]:
    """The answers by query."""
    return {one.pair.query: document.text[one.pair.start : one.pair.end] for one in propose(material(document))}


def test_a_term_is_asked_for_by_its_name() -> None:
    found = asked(definitions.propose, lease())
    (query,) = [query for query in found if "Premises" in query]
    assert query == "What does “Premises” mean in the Lease Agreement of Harbour Storage Ltd.?"
    assert found[query].startswith('"Premises" means the cold store')
    assert asked(definitions.propose, island())["What is Saint Helena?"].startswith("Saint Helena is a volcanic island")


@pytest.mark.parametrize(
    "sentence",
    [
        '"Premises" has the meaning set forth in Section 8.1 of the agreement between the parties.',
        "It is a volcanic island in the South Atlantic Ocean, as everybody knows by now.",
        "Another means of supplying water to the boiler is an injector, which uses a jet of steam.",
        "This is a sentence that defines nothing at all, and it is not a term either.",
    ],
)
def test_what_defines_nothing_is_no_definition(sentence: str) -> None:
    assert asked(definitions.propose, Document("a.txt", f"On boats and water\n\n{sentence}")) == {}


def test_headings_are_answered_by_what_is_under_them() -> None:
    found = asked(headings.propose, island())
    (economy,) = [query for query in found if "conomy" in query]
    assert "Saint Helena" in economy
    assert found[economy].startswith("The economy of the island")
    lines = asked(headings.propose, lease())
    (rent,) = [query for query in lines if "rent" in query.casefold()]
    assert lines[rent].startswith("The tenant pays")
    (storage,) = [query for query in lines if "cold storage" in query.casefold()]
    assert lines[storage].startswith("The landlord keeps"), "a title that opens a paragraph"


def test_sentences_ask_for_their_values() -> None:
    found = asked(sentences.propose, lease())
    assert any(query.endswith("the tenant pays a rent of how much a month?") for query in found)
    found = asked(sentences.propose, island())
    assert any("was discovered in which year by sailors" in query for query in found)
    assert any(query == "Saint Helena: was the airport opened in 2016 near Prosperous Bay?" for query in found) or any(
        query == "Saint Helena: the airport was opened in which year near Prosperous Bay?" for query in found
    )


def test_cloze_keeps_about_half_of_the_words() -> None:
    for document in (lease(), Document("f.txt", FRENCH), Document("c.txt", CHINESE)):
        proposed = cloze.propose(material(document))
        assert proposed
        for one in proposed:
            own = words_of(one.pair.query.removeprefix(f"{material(document).subject.name}: "))
            said = document.text[one.pair.start : one.pair.end]
            assert 3 <= len(own) <= 8
            assert set(own) < set(words_of(said))


def test_a_removed_sentence_leaves_its_neighbours() -> None:
    document = lease()
    proposed = cloze.propose(material(document), remove=True)
    assert proposed
    for one in proposed:
        assert one.pair.remove is not None
        start, end = one.pair.remove
        left = document.text[one.pair.start : start] + document.text[end : one.pair.end]
        assert len(words_of(left)) > 3


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("He met Dr. Smith of Acme Inc. in the U.S. last year. It rained.", 2),
        ("The fee is 3.5 percent. The term is Sec. 4 long! Is it?", 3),
        ("今天下雨。明天呢？晴天！", 3),  # noqa: RUF001
        ("No end", 1),
        ("", 0),
    ],
)
def test_sentences_end_where_readers_end_them(text: str, expected: int) -> None:
    assert len(list(split_sentences(text, 0, len(text)))) == expected


def test_what_is_said_twice_is_no_sentence_to_ask_about() -> None:
    text = "Source: the annual report of the company.\n\nThis sentence stands here once and is long enough.\n\n"
    text += "Source: the annual report of the company."
    assert [text[one.start : one.end] for one in sentences_of(text, blocks_of(text))] == [
        "This sentence stands here once and is long enough."
    ]


def test_code_is_no_block() -> None:
    assert not any("code of this block" in ISLAND[start:end] for start, end in blocks_of(ISLAND))


def test_english_is_told_from_other_languages() -> None:
    assert looks_english(ISLAND)
    assert not looks_english(FRENCH)
    assert not looks_english(CHINESE)
    assert not looks_english("")


@pytest.mark.parametrize(
    ("sentence", "question"),
    [
        ("The duchy began in 911 and the castle was built in 1204.", "the castle was built in which year"),
        ("The tenant pays within thirty (30) days after the notice of arrival.", "within how many days after"),
        ("About 40 percent of the goods were sold before the harvest.", "what percentage of the goods"),
        ("In 1066 a duke came, and article 288 states that nothing is due here.", ""),
        ("Because the rent was paid in 1999 the landlord was content with it.", ""),
        ("The island demanded a fair share of its trade in 1999 and 2001.", ""),
        ("The boats of the island shall be ready on October 22 & 23, 2011 in the harbour of the duke.", ""),
        ("The castle was built in 1204 and sold in 1310 to the next duke.", ""),
        ("The island has a very long history of trade with its many neighbours.", ""),
        (
            "However, the island has lost its trade with all of its neighbours because the ships of dukes were burned.",
            "has the island lost its trade with all of its neighbours?",
        ),
        ("However, the island has lost its trade with all of its neighbours.", ""),
        (
            "The Normans are noted both for their culture, such as their unique architecture, and for their musical "
            "traditions.",
            "",
        ),
    ],
)
def test_only_what_reads_well_becomes_a_question(sentence: str, question: str) -> None:
    found = asked(sentences.propose, Document("a.txt", f"{ISLAND}\n\n{sentence}", "Boats"))
    (own,) = [query for query, answer in found.items() if answer == sentence] or [""]
    assert (
        (question in own) if question else ("which" not in own and "how many" not in own and not YES_OR_NO.search(own))
    )


@pytest.mark.parametrize(
    ("words", "nouns"),
    [
        ("computer system via", False),
        ("License Fees set forth", False),
        ("event occurs", False),
        ("gene likely disrupt", False),
        ("United States showed decreases", False),
        ("auditor reasonably acceptable", False),
        ("non- exclusive", False),
        ("dialect becoming known", False),
        ("mutated gene", True),
        ("spatial variable", True),
        ("host family", True),
        ("Option Period", True),
        ("tenants' deposit", True),
        ("p120-RasGAP protein", True),
    ],
)
def test_a_phrase_is_of_nouns_as_far_as_its_words_tell(words: str, nouns: bool) -> None:
    assert sentences._are_nouns(words.split()) is nouns


def test_an_adjective_before_another_is_no_noun() -> None:
    sentence = "They were drawn into the major political and economic life of an old trading port."
    found = sentences._phrases(sentence, material(island()), Salience.of(sentence, Statistics.of([island()])))
    assert found == ["the old trading port"]


def test_a_question_never_holds_all_of_its_answer() -> None:
    sentence = (
        "The Normans are famed for their architecture and music, which spread with their many conquests in Europe."
    )
    found = asked(sentences.propose, Document("a.txt", f"{ISLAND}\n\n{sentence}", "Boats"))
    assert "Boats: are the Normans famed for their architecture and music?" in found
    for query, answer in found.items():
        if YES_OR_NO.search(query):
            assert len(content_words(query)) < len(content_words(answer))


NUMBERS = [
    "Land use: agricultural land: 31.5% (2023 est.); arable land: 16% (2023 est.); permanent crops: 0.8% (2023 est.).",
    "Coal: consumption: 8.4 metric tons (2021 est.); imports: 3.9 metric tons (2022 est.).",
    "Electricity access: electrification of the total population: 100% (2022 est.).",
    "Wheat 12 14 and 16 tons, rye 3 4 and 5 tons in all.",
]
PROSE = [
    "On May 1, 2021 the rent of the store rises to $4,500.",
    "The lease of the store began on May 1, 2021 and runs for ten years at a rent of $4,500.",
    "The tenant pays the following rent: $4,500 a month for the store with its loading ramp.",
    "Depuis le 3 mai 2021 le loyer du magasin est de 4.500 euros par mois.",
]


@pytest.mark.parametrize("sentence", NUMBERS)
def test_a_list_of_numbers_is_no_sentence(sentence: str) -> None:
    assert sentences_of(sentence, [(0, len(sentence))]) == []


@pytest.mark.parametrize("sentence", PROSE)
def test_a_sentence_may_hold_a_date_and_an_amount(sentence: str) -> None:
    assert [one.span for one in sentences_of(sentence, [(0, len(sentence))])] == [(0, len(sentence))]


def test_a_definition_begins_with_what_defines_the_term() -> None:
    text = (
        'The purpose of this content Agreement (hereinafter "Agreement") is to say how a licensee may use the content '
        '("Content" as set forth below) that is owned by the licensor in its own territory ("Territory" as set forth '
        'below); and who pays the yearly fee (the "Fee") to the licensor and to its heirs.'
    )
    found = asked(definitions.propose, Document("a.txt", text, "Boats"))
    answers = {query.split("“")[1].split("”")[0]: answer for query, answer in found.items()}
    assert answers["Territory"].startswith('that is owned by the licensor in its own territory ("Territory"')
    assert answers["Fee"].startswith('who pays the yearly fee (the "Fee")')
    assert asked(definitions.propose, Document("a.txt", text[:50].replace("hereinafter ", "the "), "Boats")) == {}


@pytest.mark.parametrize("between", [" ", ", ", " and ", "; "])
def test_names_of_one_thing_have_one_definition(between: str) -> None:
    thing = "Harbour Storage Ltd., a company of Dover (the “Company”)"
    text = f"This lease is made by {thing}{between}(the “Licensor”) and shall begin in May."
    found = asked(definitions.propose, Document("a.txt", f"On boats and water\n\n{text}", "Boats"))
    answers = {query.split("“")[1].split("”")[0]: answer for query, answer in found.items()}
    assert answers == {"Company": text, "Licensor": text}
    # Between things of their own, a definition begins with what the earlier one does not mean.
    other = text.replace(f"{between}(the", "; and with Mr. Brown of Calais (the")
    found = asked(definitions.propose, Document("a.txt", f"On boats and water\n\n{other}", "Boats"))
    assert [answer for query, answer in found.items() if "Licensor" in query] == [
        "with Mr. Brown of Calais (the “Licensor”) and shall begin in May."
    ]


def test_no_question_ends_in_two_marks() -> None:
    text = (
        "## Why does this happen??\n\n"
        + "It happens because the ships of the island are old and the harbour is small. " * 2
    )
    sections = (Section(0, ("What is this?",)), Section(0, ("What is this?", "Why does this happen??")))
    document = Document("a.md", f"{text}\n\n{LEASE}", "Harbours!", sections=sections)
    queries = [query for one in (headings, sentences, cloze, definitions) for query in asked(one.propose, document)]
    assert any("happen?" in query for query in queries)
    assert not any(query.endswith(("??", "!?")) or "!:" in query for query in queries)
