"""Pairs from headings: a heading with the document's subject asks, the paragraphs under it answer.

Headings come from the document's structure where the loader knows it; else from short lines and from the titles that
open a paragraph, as in "Best Efforts. The Company agrees …".
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ctxindex.chunking.spans import Span, shrink
from ctxindex.training.pairs.text import (
    content_words,
    ends_as_sentences_do,
    fold,
    is_content,
    split_sentences,
    word_set,
    words_of,
)
from ctxindex.training.pairs.values import Candidate, Material

_LONGEST_HEADING = 90
_MOST_WORDS = 10
_MOST_DIGITS = 10
"""One character of so many may be a digit."""
_LONGEST_GOLD, _SHORTEST_GOLD = 700, 60
_NUMBER = re.compile(
    r"^(?:(?:article|section|chapter|part)\s+)?(?:[\dIVXivx]*(?:[.\d]+)?[.):]?|\(?[a-z][.)])\s+(?=\w)", re.I
)
_EMPTY = word_set(
    "abstract acknowledgements annex appendix background conclusion conclusions contents description details "
    "discussion examples exhibit general introduction miscellaneous notes other overview page preamble recitals "
    "references results schedule section source summary whereas witnesseth see also links external reading"
)
"""Headings that say nothing of their own."""
_ATTACHED = re.compile(r"^(?:exhibit|schedule|annex|appendix|table|figure|attachment|rev)\b|\d\.\d|\b\d{4}$", re.I)
_MARKS = re.compile(r"[?!]*\?[?!]*$")
_QUESTION = re.compile(r"^(?:what|who|when|where|why|which|how|is|are|can|do|does|should)\b.*\?$", re.I)


def propose(material: Material) -> list[Candidate]:
    """A candidate for each heading that says what is under it."""
    document = material.document
    found = list(_of_structure(material)) if document.sections else list(_of_lines(material))
    candidates = []
    for path, span in found:
        query = _query(material, path)
        if query is not None:
            gain = len(set(map(str.casefold, content_words(" ".join(path)))))
            candidates.append(Candidate(material.pair(query, span, "headings"), gain + (span[1] - span[0]) / 1000))
    return candidates


def _query(material: Material, path: tuple[str, ...]) -> str | None:
    heading = _MARKS.sub("?", fold(path[-1]).rstrip(".:"))
    heading = heading.capitalize() if heading.isupper() and " " in heading else heading
    own = [word for word in content_words(heading) if word.casefold() not in _EMPTY and not word.isdigit()]
    if not own or _ATTACHED.search(heading) or heading.casefold() == material.subject.name.casefold():
        return None
    if material.english and _QUESTION.match(heading):
        return heading if material.subject.name in heading else material.subject.before(heading)
    parent = fold(path[-2]) if len(path) > 1 else ""
    if parent and not material.subject.shares_a_word_with(parent) and _says_something(parent):
        return material.subject.before(f"{heading} ({parent})")
    if not material.english or material.random.random() < 0.5:
        return material.subject.before(heading)
    return material.subject.ask(f"What is said about {_in_a_sentence(heading)}")


def _in_a_sentence(heading: str) -> str:
    """Title case taken back, which leaves abbreviations alone."""
    words = heading.split()
    if all(word[:1].isupper() or not is_content(word) for word in words) or heading.isupper():
        return " ".join(word if word.isupper() and not heading.isupper() else word.lower() for word in words)
    return heading if words[0].isupper() else heading[0].lower() + heading[1:]


def _says_something(heading: str) -> bool:
    return any(word.casefold() not in _EMPTY for word in content_words(heading))


def _of_structure(material: Material) -> Iterator[tuple[tuple[str, ...], Span]]:
    """Heading paths and the first paragraphs of their sections."""
    text, sections = material.document.text, material.document.sections
    for number, section in enumerate(sections):
        end = sections[number + 1].start if number + 1 < len(sections) else len(text)
        inside = [block for block in material.blocks if section.start <= block[0] and block[1] <= end]
        if not section.path or len(section.path[-1]) > _LONGEST_HEADING:
            continue
        named = fold(section.path[-1]).casefold()
        inside = [one for one in inside if fold(text[one[0] : one[1]]).strip("#=- ").casefold() != named]
        if span := _gold(text, inside):
            yield (tuple(section.path), span)


def _of_lines(material: Material) -> Iterator[tuple[tuple[str, ...], Span]]:
    """Short lines before paragraphs, and titles that open a paragraph."""
    text, blocks = material.document.text, material.blocks
    for number, (start, end) in enumerate(blocks):
        line = text[start : min(end, start + _LONGEST_HEADING + 1)]
        if end - start <= _LONGEST_HEADING and _is_heading(line) and number + 1 < len(blocks):
            if span := _gold(text, blocks[number + 1 : number + 2]):
                yield (_NUMBER.sub("", line),), span
        elif end - start > _LONGEST_HEADING:
            first = next(split_sentences(text, start, min(end, start + 4 * _LONGEST_HEADING)), (start, start))
            opening = text[first[0] : first[1]]
            is_title = opening.endswith(".") and _is_heading(opening[:-1]) and first[1] < end
            if is_title and (span := _gold(text, [shrink(text, (first[1], end))])):
                yield (_NUMBER.sub("", opening[:-1]),), span


def _is_heading(line: str) -> bool:
    if len(line) > _LONGEST_HEADING or "\n" in line or line[-1:] in ".;,?!)" or ":" in line or '"' in line:
        return False
    words = words_of(_NUMBER.sub("", line))
    content = [word for word in words if is_content(word) and not word.isdigit()]
    return bool(content) and len(words) <= _MOST_WORDS and all(word[0].isupper() for word in content)


def _gold(text: str, blocks: list[Span]) -> Span | None:
    """The first paragraphs together, or the first sentences of a long one; None where there is too little."""
    if not blocks:
        return None
    start, end = blocks[0]
    for block in blocks[1:]:
        if end - start >= _SHORTEST_GOLD * 2 or block[1] - start > _LONGEST_GOLD:
            break
        end = block[1]
    if end - start > _LONGEST_GOLD:
        whole = [stop for _, stop in split_sentences(text, start, min(end, start + _LONGEST_GOLD))]
        end = whole[-2] if len(whole) > 1 else start + _LONGEST_GOLD
    start, end = shrink(text, (start, end))
    if _MOST_DIGITS * sum(map(str.isdigit, text[start:end])) > end - start:
        return None  # a table
    is_whole = ends_as_sentences_do(text[start:end]) or end - start >= 3 * _SHORTEST_GOLD
    return (start, end) if is_whole and end - start >= _SHORTEST_GOLD else None
