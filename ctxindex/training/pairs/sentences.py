"""Pairs from the sentences that matter most in a document, turned to questions that they answer.

A sentence with a date, an amount or a number asks for it in its own words; one that begins with its subject and an
auxiliary verb is turned round; and of every other, the words that matter most are asked about. Questions are made of
English words; in other languages, the words that matter stand after the document's subject.
"""

from __future__ import annotations

import re

from ctxindex.training.pairs.salience import Salience
from ctxindex.training.pairs.text import STOP_WORDS, content_words, fold, words_of
from ctxindex.training.pairs.values import Candidate, Material

_MONTH = r"(?:January|February|March|April|May|June|July|August|September|October|November|December)"
_ASKED: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(rf"\bon (?:the )?{_MONTH} \d{{1,2}}(?:st|nd|rd|th)?(?:, \d{{4}})?\b,?"), "on which date"),
    (re.compile(rf"\b(?P<keep>in|by|until|since|from|of) {_MONTH},? \d{{4}}\b,?"), "{keep} which month and year"),
    (re.compile(r"\b(?P<keep>in|by|until|since|from) (?:1\d{3}|20\d{2})\b(?![-–%])"), "{keep} which year"),
    (re.compile(r"(?:US|USD|EUR|GBP)? ?[$€£] ?\d[\d.,]*\d?(?: (?:million|billion|trillion|thousand))?"), "how much"),
    (re.compile(r"\b\d[\d.,]*(?: ?%| percent\b| per cent\b)(?P<of> of\b)?"), "what percentage{of}"),
    (re.compile(r"\b(?:[a-z]+(?:-[a-z]+)? \(\d+\)|\d{1,3}(?:,\d{3})*)(?= (?:[a-z]+ )?(?!was|is|has)[a-z]{3,}s\b)"), "how many"),
)
"""What is asked for, and the words that stand in its place. The question keeps the order of the sentence."""

_AUXILIARY = re.compile(
    r"^(?P<who>(?:[A-Z][\w'’\-]*|[a-z]+)(?: (?:[A-Z][\w'’\-]*|of|the|and|for|in|[a-z]+)){0,5}?) "
    r"(?P<verb>is|are|was|were|has|have|had|can|may|shall|must|will|should) (?P<rest>(?!not\b).+)$"
)
_PRONOUN = re.compile(r"^(?:It|He|She|They|This|These|Those|That|Its|His|Her|Their|There|Such|Here|If|When|While|Where|"
                      r"In|On|At|By|For|As|With|After|Before|During|Since|Although|However|Except|Upon|Unless|Any|Each|No|"
                      r"What|Who|Which|How|Because|Under|From|To|Nothing|Notwithstanding|Neither|Both)\b")  # fmt: skip
_FEWEST, _MOST = 6, 26
_KEY_WORDS = 4


def propose(material: Material) -> list[Candidate]:
    """A candidate for each sentence that can be asked about."""
    text = material.document.text
    salience = Salience.of(text, material.statistics)
    candidates = []
    for sentence in material.sentences:
        told = text[sentence.start : sentence.end]
        query, worth = _query(material, fold(told), salience)
        if query is not None:
            score = salience.score(told) * worth
            candidates.append(Candidate(material.pair(query, sentence.span, "sentences"), score))
    return candidates


def _query(material: Material, sentence: str, salience: Salience) -> tuple[str | None, float]:
    """The question, and how much such questions are worth beside others."""
    if material.english:
        for make in (_for_value, _turned):
            asked = make(sentence)
            if asked is not None:
                return material.subject.before(asked), 1.3
    words = salience.best(_without(sentence, material.subject.name), _KEY_WORDS)
    if len(words) < 2:
        return None, 0.0
    if material.english and material.random.random() < 0.5:
        listed = f"{', '.join(words[:-1])} and {words[-1]}"
        return material.subject.ask(f"What is said about {listed}"), 0.8
    return material.subject.before(" ".join(words)), 0.8


def _for_value(sentence: str) -> str | None:
    """The sentence with its date, amount or number asked for; None where there is none, or more than one."""
    body = sentence.rstrip(".!?”\"' ")
    if not _FEWEST <= len(words_of(body)) <= _MOST or _is_broken(body):
        return None
    for pattern, words in _ASKED:
        found = pattern.findall(body)
        if len(found) == 1 and (match := pattern.search(body)):
            kept = {name: value or "" for name, value in match.groupdict().items()}
            asked = words.format(**kept)
            comma = "," if match.group().endswith(",") else ""
            return _begun(f"{body[: match.start()]}{' ' if match.group()[0] == ' ' else ''}{asked}{comma}{body[match.end() :]}")
    return None


def _turned(sentence: str) -> str | None:
    """ "The fee is due at once." as "is the fee due at once?"; None where the words do not allow it."""
    body = sentence.rstrip(".!?”\"' ")
    found = _AUXILIARY.match(body)
    if found is None or len(words_of(body)) > _MOST or _PRONOUN.match(body) or _is_broken(body):
        return None
    who = found["who"]
    if who.split()[-1].casefold() in STOP_WORDS or re.search(r"[,;:]", who) or not content_words(who):
        return None
    return f"{found['verb']} {_small(who)} {found['rest']}?"


def _is_broken(body: str) -> bool:
    """Whether a sentence has parts that make a question of it hard to read."""
    return bool(re.search(r"[;:\"“”()\[\]]| - |\bwhereas\b|https?", body, re.I))


def _begun(body: str) -> str:
    return f"{_small(body)}?"


def _small(body: str) -> str:
    """The first letter small where the word is one that only stands first."""
    first = body.split(" ", 1)[0]
    return body[0].lower() + body[1:] if first.casefold() in STOP_WORDS else body


def _without(sentence: str, name: str) -> str:
    """The sentence without the words of the subject, which the query names anyway."""
    own = {word.casefold() for word in content_words(name)}
    return " ".join(word for word in words_of(sentence) if word.casefold() not in own)
