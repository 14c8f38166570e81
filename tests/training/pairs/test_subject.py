"""What documents are said to be about."""

from __future__ import annotations

import pytest

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
