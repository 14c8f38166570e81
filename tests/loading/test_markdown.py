from __future__ import annotations

import pytest

from ctxindex.loading.markdown import load_markdown
from ctxindex.loading.values import Parsed
from ctxindex.types import Section

LIMIT = 1_000_000


def load(text: str) -> Parsed:
    return load_markdown(text.encode(), max_chars=LIMIT)


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_sections_begin_at_their_headings(line_end: str) -> None:
    text = (
        "intro\n\n# One *bold* [link](http://x)\n\ntext\n\n## Two `code`\n\n```\n# no heading\n```\n\n"
        "Three\n=====\n\n> # quoted\n"
    ).replace("\n", line_end)
    parsed = load(text)
    assert parsed.text == text
    assert parsed.title == "One bold link"
    assert parsed.sections == (
        Section(text.index("# One"), ("One bold link",)),
        Section(text.index("## Two"), ("One bold link", "Two code")),
        Section(text.index("Three"), ("Three",)),
    )


@pytest.mark.parametrize(
    "front",
    [
        '---\ntitle: "From: the front"\ntags: [a]\n---\n',
        "---\r\ndate: 2020\r\ntitle: 'From: the front'\r\n---\r\n",
        '+++\ntitle = "From: the front"\n+++\n',
        "---\ntitle: From: the front\n...\n",
    ],
)
def test_front_matter(front: str) -> None:
    parsed = load(f"{front}# Heading\n\ntext")
    assert parsed.title == "From: the front"
    assert parsed.sections == (Section(len(front), ("Heading",)),)


def test_rule_at_the_top_is_no_front_matter() -> None:
    parsed = load("---\n\n# Heading\n\ntext\n\n---\n\nmore\n")
    assert parsed.title == "Heading"
    assert parsed.sections == (Section(5, ("Heading",)),)


def test_no_heading_no_title() -> None:
    parsed = load("just text\n#hashtag\n#\n")
    assert parsed.title is None
    assert parsed.sections == ()


def test_title_of_the_front_matter_that_goes_on_below_is_left_to_the_heading() -> None:
    assert load("---\ntitle: >\n  folded\n---\n# Heading\n").title == "Heading"


def test_levels_may_be_skipped() -> None:
    parsed = load("### c\n\n# a\n\n### d\n\n## b\n")
    assert [section.path for section in parsed.sections] == [("c",), ("a",), ("a", "d"), ("a", "b")]
