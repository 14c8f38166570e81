"""What documents are said to be about."""

from __future__ import annotations

import pytest

from ctxindex.training.pairs import subject
from ctxindex.training.pairs.subject import LONGEST_SUBJECT, subjects_of
from ctxindex.types import Document, Section
from tests.training.pairs.documents import HOSTILE, lease


def names(*documents: Document) -> list[str]:
    return [subject.name for subject in subjects_of(documents)]


def test_a_title_comes_before_headings_and_lines() -> None:
    sections = (Section(0, ("A Heading",)),)
    assert names(Document("a", "The first line\n", "The Title", sections=sections)) == ["The Title"]
    assert names(Document("a", "The first line\n", sections=sections)) == ["A Heading"]
    assert names(Document("a", "Exhibit 10.1\n\nThe first line of a text\n")) == ["The first line of a text"]
    assert names(Document("folder/annual-report_2020.txt", "12\n34\n")) == ["annual report 2020"]


def test_a_general_name_gets_that_of_the_company() -> None:
    assert names(lease()) == ["Lease Agreement of Harbour Storage Ltd."]


def test_no_two_documents_have_one_subject() -> None:
    documents = [Document(f"{folder}/same.txt", "x", "One Title") for folder in "abc"]
    documents += [lease("one.txt"), lease("two.txt")]
    found = names(*documents)
    assert len({name.casefold() for name in found}) == len(found)
    assert all("One Title" in name for name in found[:3])


@pytest.mark.parametrize("name", HOSTILE)
def test_every_document_has_one(name: str) -> None:
    (subject,) = names(Document("some/hostile-file.txt", HOSTILE[name]))
    assert subject.strip()
    assert len(subject) <= LONGEST_SUBJECT


def test_a_paper_and_a_topic_are_asked_about_in_other_words() -> None:
    paper, topic = subjects_of([Document("a", "x", "The Lease Agreement"), Document("b", "x", "Normans")])
    assert paper.ask("What is due") == "What is due in the Lease Agreement?"
    assert topic.ask("What is due") == "What is due in connection with Normans?"
    assert topic.is_named_in("where did the normans live")
    assert not topic.is_named_in("where did they live")


def test_a_word_that_others_have_does_not_name_the_subject() -> None:
    documents = [
        Document("a", "The services of this agreement end in May.", "Services Agreement of Acme Inc"),
        Document("b", "The services of this agreement end in June.", "Services Agreement of Blue Harbour Inc"),
    ]
    subject = subjects_of(documents)[0]
    assert not subject.is_named_in("When does the agreement end?")
    assert not subject.is_named_in("Which services does the inc. provide?")
    assert subject.is_named_in("When does Acme\u2019s agreement end?")
    assert subject.is_named_in("When does the services agreement of Acme Inc end?")
    (alone,) = subjects_of(documents[:1])
    assert alone.is_named_in("What does Acme pay?")
    assert not alone.is_named_in("Which services are there?"), "no name, as the document writes it small"


def test_a_word_of_many_documents_does_not_name_the_subject_of_one() -> None:
    documents = [
        Document(str(number), f"Matter {number} is about the Harbour.", f"Text {number}") for number in range(8)
    ]
    subject = subjects_of([Document("a", "Ships", "Harbour Ships"), *documents])[0]
    assert not subject.is_named_in("Who owns the harbour?")
    assert subject.is_named_in("Who owns the ships?")


TRANSCRIPT = """\
Grad E: I guess.
Grad A: OK, we are on. So just make sure that your wireless microphone is on, if you are wearing a wireless at all.
Grad E: Are we supposed to read digits at the same time??
Professor C: Meeting Notes
"""


@pytest.mark.parametrize(
    "text",
    [
        TRANSCRIPT,
        TRANSCRIPT.replace("Grad", "[00:01:02] Grad"),
        TRANSCRIPT.rpartition("Professor")[0].replace(": ", ":\n"),
        "Are we supposed to read digits at the same time??\n\nNobody has said so.\n",
        "Welcome to all of you!\n\nThis is what was said that day\n",
        "Anna: Hello there\nBob: Good morning\n",
    ],
)
def test_what_somebody_says_is_no_title(text: str) -> None:
    assert names(Document("meetings/Bed002.txt", text)) == ["Bed002"]


def test_a_title_may_have_a_colon_and_stand_before_a_transcript() -> None:
    assert names(Document("a.txt", f"Meeting of the Digits Group\n\n{TRANSCRIPT}")) == ["Meeting of the Digits Group"]
    text = "Harbours: a short history\n\nThey are old.\n\nNobody knows who built the first of them.\n"
    assert names(Document("a.txt", text)) == ["Harbours: a short history"]


def test_marks_of_a_name_are_not_doubled() -> None:
    question, call = subjects_of([Document("a", "x", "What is asthma?"), Document("b", "x", "Hello, Dolly!")])
    assert (
        question.ask("What is said about the cause")
        == "What is said about the cause in connection with What is asthma?"
    )
    assert question.before("the cause") == "What is asthma: the cause"
    assert call.before("who sings it?") == "Hello, Dolly: who sings it?"


def test_a_name_that_is_cut_short_ends_in_a_word_that_says_something() -> None:
    name = "Agency Agreement between General Electric Capital Corporation and its successors, if any, and "
    assert subject._shortened(name + "x" * 50) == name.removesuffix(", if any, and ")
    assert subject._shortened(name) == name
