"""What a document is about, in a few words that tell it from the others: queries name it.

Its title; else its first heading; else the first line that says something; else the name of its file. Where that is
not one document's alone, the names of those concerned go with it, or in the end the name of the file.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ctxindex.training.pairs.salience import Statistics
from ctxindex.training.pairs.text import STOP_WORDS, content_words, fold, word_set, words_of
from ctxindex.types import Document

LONGEST_SUBJECT = 120
_HEAD_CHARS = 6000
_FEW_WORDS = 4
_LOOSE = " ,;:-\u2013\u2014(/&"
"""What no name ends with where it is cut short."""
_SOURCE = re.compile(
    r"^\d*\s*(?:exhibit|source|page|dated?|ex|appendix|schedule|annex|table of contents|contents|index|certain|"
    r"recitals|execution|confidential|execution copy|by and between|between|and|rev|draft)\b",
    re.I,
)
_NO_NAME = re.compile(r"^(?:source|exhibit|the|this|co|and|between|by)\b", re.I)
_GAP = re.compile(r"\s{3,}|\t")
_SPEAKER = re.compile(
    r"[\s>*_\-]*(?:[\[(]?\d{1,2}:\d\d(?::\d\d)?(?:[.,]\d+)?[\])]?\s+)?"
    r"(?P<name>[A-Z][\w.'\u2019\-]*(?: [\w.'\u2019\-]+){0,3})[*_]*:(?=[*_\s]|$)"
)
"""The beginning of a line of a transcript: who speaks, after the time where there is one."""
_FEW_TURNS = 3
_CALLS = ("?", "!", "\uff1f", "\uff01")
"""Ends of what somebody asks or calls out."""
_MARK = re.compile(r"^[#=\s>*\-\u2013•|_]+|[#=\s*|_:,;]+$")
_COMPANY = re.compile(
    r"(?:[A-Z][\w&'\u2019.\-]*,?[ ]){1,5}(?:Inc|INC|LLC|Ltd|LTD|Limited|LIMITED|Corp|CORP|Corporation|CORPORATION|GmbH|"
    r"AG|LP|L\.P|L\.L\.C|PLC|plc|N\.V|B\.V|S\.A|University|UNIVERSITY)\b\.?"
)
_POSSESSIVE = re.compile(r"['\u2019]s$")
_PAPER = re.compile(
    r"\b(?:agreement|contract|amendment|addendum|lease|licen[cs]e|policy|report|manual|handbook|guide|act|treaty|terms|"
    r"plan|proposal|minutes|meeting|specification|charter|regulations?|prospectus|memorandum|letter|statement|study|"
    r"trial|paper|review|documentation|notes|tutorial|readme|protocol)\b",
    re.I,
)
_COMPANY_FORMS = word_set("inc llc ltd limited corp corporation company co gmbh ag lp plc university")
_RARE = 10
"""One document of so many may have a word that tells a subject from the others."""
_CAPITALS = re.compile(r"\b(?:[A-Z&]{2,}[ ]){1,8}(?:AGREEMENT|CONTRACT|LEASE|POLICY|REPORT|PLAN)\b")
_OPENING = re.compile(r"^(?:THIS|EXHIBIT|EXECUTION|COPY|VERSION|CONFIDENTIAL|[ ])+\b ?")


@dataclass(frozen=True, slots=True)
class Subject:
    """What a document is about.

    `name` goes into queries. `is_paper` says that the name is that of a document (an agreement, a report) and not that
    of a topic. `telling` are those of its words, folded, that tell it from the subjects of other documents.
    """

    name: str
    is_paper: bool
    telling: frozenset[str] = frozenset()

    def ask(self, question: str) -> str:
        """A question of English words, without its mark, with the subject named at its end."""
        said = f"in the {self._said.removeprefix('The ').removeprefix('the ')}" if self.is_paper else ""
        return f"{question} {said or f'in connection with {self._said}'}?"

    def before(self, words: str) -> str:
        """The subject, then words of any language."""
        return f"{self._said}: {words}"

    def is_named_in(self, text: str) -> bool:
        """Whether who reads a text alone knows that it is about this subject, and no other of those there are."""
        said = {_POSSESSIVE.sub("", word.casefold()) for word in words_of(text)}
        return bool(self.telling & said) or self._said.casefold() in text.casefold()

    def shares_a_word_with(self, text: str) -> bool:
        """Whether a word of the subject that says something is in a text."""
        own = {word.casefold() for word in content_words(self.name)}
        return bool(own & {word.casefold() for word in words_of(text)}) or self.name.casefold() in text.casefold()

    @property
    def _said(self) -> str:
        """The name inside a query, which has marks of its own."""
        return self.name.rstrip("?!:\uff1f\uff01\uff1a ") or self.name


def subjects_of(documents: Sequence[Document], statistics: Statistics | None = None) -> list[Subject]:
    """The subject of each document, in their order; no two have the same, letter case aside.

    Args:
        documents: all that are asked about.
        statistics: those of the documents, where they are known.
    """
    names = [_first_name(document) for document in documents]
    for more in (_with_companies, _with_file):
        shared = Counter(name.casefold() for name in names)
        names = [
            name if shared[name.casefold()] == 1 else _shortened(more(name, document))
            for name, document in zip(names, documents, strict=True)
        ]
    names = _numbered(names, documents)
    papers = [bool(_PAPER.search(name) and not name.endswith("?")) for name in names]
    telling = _telling(names, statistics or Statistics.of(documents))
    return [
        Subject(name, is_paper, words - _small(document) if is_paper else words)
        for name, is_paper, words, document in zip(names, papers, telling, documents, strict=True)
    ]


def _telling(names: Sequence[str], statistics: Statistics) -> list[frozenset[str]]:
    """The words of each name that few other names and documents have, no word for a paper or company, and no number."""
    words = [
        {_POSSESSIVE.sub("", word.casefold()) for word in content_words(name) if not _PAPER.fullmatch(word)}
        for name in names
    ]
    shared = Counter(word for own in words for word in own)
    most = max(1, len(names) // _RARE)

    def tells(word: str) -> bool:
        is_rare = shared[word] <= most and statistics.occurrences[word] <= most
        return is_rare and word not in _COMPANY_FORMS and any(map(str.isalpha, word))

    return [frozenset(filter(tells, own)) for own in words]


def _small(document: Document) -> frozenset[str]:
    """The words that a document writes with a small letter: its paper is of a kind, and they are not its name."""
    return frozenset(word for word in words_of(document.text) if word[:1].islower())


def _first_name(document: Document) -> str:
    if document.title and _says_something(document.title):
        return _cleaned(document.title)
    for name in (section.path[-1] for section in document.sections if section.path):
        if _says_something(name):
            return _cleaned(name)
    line = _first_line(document)
    if line is None:
        return _with_file("", document)
    name = line
    # A line such as "Services agreement" is the name of very many documents.
    return _shortened(_with_companies(name, document)) if len(words_of(name)) <= _FEW_WORDS else name


def _first_line(document: Document) -> str | None:
    """The first line that is the title of a paper, else the first short one that says something, if it is a title.

    What somebody says, asks or calls out is none, and what comes after it in a transcript is none either.
    """
    turns, lines = _turns(document.text[:_HEAD_CHARS].splitlines())
    short = [part for line in lines for part in _parts(line) if _is_title_line(part)]
    named = next((part for part in short if _PAPER.search(part) and _is_set_as_title(part)), None)
    if named is None and (found := _CAPITALS.search(" ".join(" ".join(lines).split()))):
        named = re.split(r" THIS\b", _OPENING.sub("", found.group()))[0].strip() or None
    before = [part for line in lines[: turns[0] if turns else None] for part in _parts(line) if _is_title_line(part)]
    line = named or next((part for part in before if not part.rstrip().endswith((".", ";", ","))), None)
    return None if line is None or line.rstrip().endswith(_CALLS) else _cleaned(line)


def _parts(line: str) -> list[str]:
    return [part for part in _GAP.split(line.strip()) if part.strip()]


def _turns(lines: Sequence[str]) -> tuple[list[int], list[str]]:
    """Where in the other lines those of speakers were, and these other lines.

    A line of "Name: words" is a speaker's where half of all lines are so, or where the name comes back.
    """
    found = [_SPEAKER.match(line) for line in lines]
    names = Counter(match["name"] for match in found if match)
    filled = sum(bool(line.strip()) for line in lines)
    all_speak = names.total() > 1 and 2 * names.total() >= filled
    turns: list[int] = []
    others: list[str] = []
    for line, match in zip(lines, found, strict=True):
        if match and (all_speak or (names[match["name"]] > 1 and names.total() >= _FEW_TURNS)):
            turns.append(len(others))
        else:
            others.append(line)
    return turns, others


def _is_title_line(line: str) -> bool:
    cleaned = _MARK.sub("", line.strip())
    return len(cleaned) <= LONGEST_SUBJECT and not _SOURCE.match(cleaned) and _says_something(cleaned)


def _is_set_as_title(line: str) -> bool:
    words = [word for word in content_words(line) if word[0].isalpha()]
    return (
        line[-1] not in ".;?!"
        and '"' not in line
        and len(words) > 1
        and 2 * sum(word[0].isupper() for word in words) > len(words)
    )


def _says_something(name: str) -> bool:
    words = [word for word in content_words(name) if not word.isdigit()]
    return any(len(word) > 2 or not word.isascii() for word in words)


def _cleaned(name: str) -> str:
    name = fold(_MARK.sub("", name))
    letters = [letter for letter in name if letter.isalpha()]
    if 5 * sum(map(str.isupper, letters)) > 4 * len(letters) and len(name) > 5:
        # What is set in capitals reads like shouting inside a question.
        name = " ".join(_lowered(word) for word in name.split())
    return _shortened(name) or fold(name)[:LONGEST_SUBJECT]


def _lowered(word: str) -> str:
    small = word.casefold()
    if small in {"and", "or", "of", "the", "for", "by", "between", "to", "in", "with", "on", "a", "an"}:
        return small
    return word.capitalize() if len(word) > 3 or not word.isalpha() else word


def _shortened(name: str) -> str:
    if len(name) <= LONGEST_SUBJECT:
        return name
    words = (name[:LONGEST_SUBJECT].rpartition(" ")[0] or name[:LONGEST_SUBJECT]).split(" ")
    while len(words) > 1 and words[-1].casefold().strip(_LOOSE) in STOP_WORDS | {""}:  # "Company A and", cut short
        words.pop()
    return " ".join(words).rstrip(_LOOSE)


def _with_companies(name: str, document: Document) -> str:
    """The name with that of the company that the beginning of the document has most often, if there is any."""
    found = Counter(
        _cleaned(match.group().rstrip(",")) for match in _COMPANY.finditer(fold_lines(document.text[:_HEAD_CHARS]))
    )
    new = [one for one in found if one.casefold() not in name.casefold() and not _NO_NAME.match(one)]
    if not new:
        return name
    best = max(new, key=lambda one: (found[one], -new.index(one)))
    return f"{name} of {best}"


def fold_lines(text: str) -> str:
    """Blanks folded and lines kept, so that no name runs over the end of a line."""
    return "\n".join(" ".join(line.split()) for line in text.splitlines())


def _with_file(name: str, document: Document) -> str:
    stem = os.path.splitext(document.doc_id.rstrip("/").rsplit("/", 1)[-1])[0]
    spoken = fold(re.sub(r"[_\-.]+", " ", stem)) or fold(document.doc_id)
    room = max(LONGEST_SUBJECT - len(name) - 3, LONGEST_SUBJECT // 2)
    spoken = spoken[-room:].strip()
    return f"{name[: LONGEST_SUBJECT - len(spoken) - 3].strip()} ({spoken})" if name else spoken


def _numbered(names: Iterable[str], documents: Iterable[Document]) -> list[str]:
    """The names, with the whole doc_id where nothing else tells two documents apart."""
    listed = list(names)
    shared = Counter(name.casefold() for name in listed)
    return [
        name if shared[name.casefold()] == 1 else f"{name} ({fold(document.doc_id)})"
        for name, document in zip(listed, documents, strict=True)
    ]
