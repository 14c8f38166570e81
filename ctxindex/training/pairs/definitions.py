"""Pairs from definitions: "X" means …, X is a …, … (the "X"). English only; elsewhere nothing is found."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ctxindex.chunking.spans import shrink
from ctxindex.training.pairs.text import LONGEST_SENTENCE, STOP_WORDS, content_words, fold, split_sentences, word_set
from ctxindex.training.pairs.values import Candidate, Material

_SHORTEST, _LONGEST = 40, 2 * LONGEST_SENTENCE
_QUOTED = r"[\"“\u2018']{1,2}(?P<term>[A-Z][^\"“”\u2018\u2019']{1,60})[\"”\u2019']{1,2}"
_MEANS = re.compile(rf"^{_QUOTED}[\s,)]*(?:shall |will )?(?:means?|refers? to|is defined as)\b(?! given)")
_BARE_MEANS = re.compile(
    r"^(?P<term>[A-Z][\w'\u2019&/-]*(?: [A-Z][\w'\u2019&/-]*| of| and){0,5}):?\s+(?:shall |will )?"
    r"(?:means|refers to|is defined as)\b"
)
_ALIAS = re.compile(
    r"\((?:the|each an?|an?|hereinafter[\w ,]{0,30}|referred to (?:\w+ )?as)?\s*" + _QUOTED + r"[^()]{0,40}\)"
)
_IS_A = re.compile(
    r"^(?:The |An? )?(?P<term>(?!The |An? )\w[\w'\u2019\-]*(?: [\w'\u2019\-]+){0,4}?) (?P<verb>is|are) "
    r"(?:an?|one of|the (?:process|study|practice|name|term)|any|a (?:type|kind|form) of)\b (?!result|part|case|matter)"
)
_ELSEWHERE = re.compile(r"has the meaning|meaning (?:set forth|given|specified|assigned)|as defined in|see ", re.I)
_PART = re.compile(r";\s")
_NOTHING = re.compile(r"\W*(?:(?:and|or)\b\W*)?")
"""Between two names of one thing."""
_OPENING = re.compile(r"[\s,;:]*(?:(?:and|or)\s+)?")
_NO_TERM = word_set(
    "agreement contract "
    "it this that these those there he she they we you what who such each if when while because although as some "
    "many most all one another however also therefore here the in its their his her no neither both people"
)


def propose(material: Material) -> list[Candidate]:
    """A candidate for each term that the document says the meaning of."""
    return list(_all(material)) if material.english else []


def _all(material: Material) -> Iterator[Candidate]:
    text, seen = material.document.text, set[str]()
    for start, end in material.blocks:
        for span in split_sentences(text, start, end):
            if not _SHORTEST <= span[1] - span[0] <= _LONGEST:
                continue
            for term, question, score, place in _terms(text[span[0] : span[1]], material):
                if term.casefold() not in seen:
                    seen.add(term.casefold())
                    query = _with_subject(material, question, term)
                    own = shrink(text, (span[0] + place, span[1]))
                    yield Candidate(material.pair(query, own, "definitions"), score)


def _terms(sentence: str, material: Material) -> Iterator[tuple[str, str, float, int]]:
    """The terms that a sentence defines, each with its question, how good a definition it is, and where it begins."""
    if (found := _MEANS.match(sentence) or _BARE_MEANS.match(sentence)) and not _ELSEWHERE.search(sentence[:160]):
        term = _cleaned(found["term"])
        if _is_term(term):
            yield term, f"What does “{term}” mean", 3.0, 0
        return
    begin = last = 0
    for alias in _ALIAS.finditer(sentence):
        # A sentence may name several things one after the other: what came before is what others mean.
        if not _NOTHING.fullmatch(sentence, last, alias.start()):
            begin = _clause(sentence, last, alias.start())
        term = _cleaned(alias["term"])
        if _is_term(term):
            yield term, f"What does “{term}” refer to", 1.5, begin
        last = alias.end()
    found = _IS_A.match(sentence)
    if found and _is_term(found["term"]) and (" " in found["term"] or not sentence.startswith("The ")):
        yield _cleaned(found["term"]), f"What {found['verb']} {_article(sentence, found, material)}", 2.0, 0


def _clause(sentence: str, start: int, end: int) -> int:
    """Where the words before `end` begin that belong together, from `start` on."""
    for part in _PART.finditer(sentence, start, end):
        start = part.end()
    opening = _OPENING.match(sentence, start, end) if start else None
    return start if opening is None else opening.end()


def _article(sentence: str, found: re.Match[str], material: Material) -> str:
    """The term with its article as it is written inside a sentence."""
    before = sentence[: found.start("term")].strip().lower()
    term: str = found["term"]
    return f"{before} {term}" if before else material.inside(term)


def _is_term(term: str) -> bool:
    words = term.split()
    if words[0].casefold() in _NO_TERM or words[-1].casefold() in STOP_WORDS:
        return False
    return bool(content_words(term)) and not any(word.casefold() in _NO_TERM for word in words[1:])


def _with_subject(material: Material, question: str, term: str) -> str:
    subject = material.subject
    if subject.name.casefold() in question.casefold():
        return f"{question}?"
    return subject.ask(question)


def _cleaned(term: str) -> str:
    return fold(term).strip(" ,.;:")
