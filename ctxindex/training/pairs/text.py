"""Text taken apart: paragraphs, sentences, words. Spans are exact; what is no prose is left out.

The rules are few and plain, and every one of them works on the text of any language or finds nothing in it. All of
them take time that grows with the length of the text and no faster.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ctxindex.chunking.spans import Span, shrink

SHORTEST_SENTENCE, LONGEST_SENTENCE = 30, 400
"""Characters of a sentence that pairs are made from; in scripts without blanks a third of the least is enough."""

_HEAD = 20_000
_BLANK_LINES = re.compile(r"\r?\n(?:[^\S\n]*\n)+")
_FENCE = re.compile(r"^[ ]{0,3}(`{3,}|~{3,})[^\n]*$", re.MULTILINE)
_HEADING_LINE = re.compile(r"^[ ]{0,3}#{1,6}[ \t][^\n]*$", re.MULTILINE)
_TABLE = re.compile(r"\||\t.*\t|(?:\.\s?){5}|_{4}|={4}")
_NUMBERED = re.compile(r"\s\d{1,2}\.\d{1,2}\.?\s+[A-Z]|\s\([a-z]\)\s")
_LABELLED = re.compile(r"[^\W\d]\)?:\s+\D?\d")
_POINTER = re.compile(r"(?:has|have) the (?:respective )?meanings? |is intentionally|reserved\.$", re.I)
_MARKUP = re.compile(r"^\s*(?:[-*+>•·●]|\(?[0-9ivx]{1,4}[.)]|[0-9]+(?:\.[0-9]+)*\.?|\(?[A-Za-z]\))\s+")
_ENDS = re.compile(r"(?<![.!?…])[.!?…]++[\"'”\u2019)\]]*+(?=\s)|[。\uff01\uff1f]+[」』”\uff09]*|[؟\u06d4।]+(?=\s)")
_ABBREVIATION = re.compile(
    r"(?:^|[\s(\"“])(?:[A-Za-z]|(?:[A-Za-z]\.)+[A-Za-z]?|Mr|Mrs|Ms|Dr|Prof|St|No|Nos|Inc|Ltd|Co|Corp|LLC|Jr|Sr|vs|etc|"
    r"Art|Sec|Fig|Ste|Ave|Blvd|approx|ca|cf|al|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec)$"
)
_LIST_NUMBER = re.compile(r"\s*\(?(?:[ivxIVX]{1,5}|\d{1,3}(?:\.\d{1,3})*)\)?\.")
_LAST = re.compile(r"[.!?…。\uff01\uff1f؟\u06d4।][\"'”\u2019)\]」』\uff09]*$")
_WORD = re.compile(r"[^\W_]+(?:['\u2019\-][^\W_]+)*")
_WIDE = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\u0e00-\u0e7f]")
_LONGEST_WORD = 30
_WIDE_WORD = 8
_LONGEST_MARK = 40


def word_set(words: str) -> frozenset[str]:
    """Words between blanks, as a set."""
    return frozenset(words.split())


STOP_WORDS = word_set(
    "a about above after again against all also am an and any are as at be because been before being below "
    "between both but by can could did do does doing down during each either else etc even every exist exists few "
    "for from further had has have having he her here hereby herein hereof hereto hereunder hers him his how "
    "however i if in into is it its itself just may me might more most much must my neither no none nor not now "
    "of off on once one only onto or other our out over own per said same shall she should since so some such "
    "than that the their them themselves then there thereof these they this those through thus to too under until "
    "up upon us very was we well were what when where whether which while who whom whose why will with within "
    "without would you your"
)
"""English words that say nothing of what a text is about."""


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence `[start, end)` of the text, and the number of the block it is in."""

    start: int
    end: int
    block: int

    @property
    def span(self) -> Span:
        """Its characters."""
        return self.start, self.end


def blocks_of(text: str) -> Iterator[Span]:
    """The paragraphs of a text in order, without outer white space; fenced code and tables are left out.

    A Markdown heading is a block of its own.
    """
    for start, end in _outside_of_fences(text):
        place = start
        for gap in [*_BLANK_LINES.finditer(text, start, end), None]:
            stop = end if gap is None else gap.start()
            yield from (one for one in _lines_apart(text, place, stop) if _is_prose(text, one))
            place = stop if gap is None else gap.end()


def sentences_of(text: str, blocks: Iterable[Span]) -> list[Sentence]:
    """The sentences of these blocks that end as sentences do, are of a useful length and occur once in the text."""
    found = []
    for number, (start, end) in enumerate(blocks):
        for span in split_sentences(text, start, end):
            if span[1] - span[0] <= LONGEST_SENTENCE and _is_sentence(text[slice(*span)]):
                found.append(Sentence(*span, number))  # noqa: PERF401  # three loops deep
    known = Counter(_folded(text, one) for one in found)
    return [one for one in found if known[_folded(text, one)] == 1]


def split_sentences(text: str, start: int, end: int) -> Iterator[Span]:
    """The stretches of `[start, end)` up to the end of each sentence, without outer white space and list marks."""
    place = start
    for stop in [*(match.end() for match in _ENDS.finditer(text, start, end)), end]:
        if stop != end and _ABBREVIATION.search(text[max(place, stop - 12) : stop].rstrip(".")):
            continue
        if stop - place < _LONGEST_MARK and _LIST_NUMBER.fullmatch(text, place, stop):
            continue
        first = place
        while mark := _MARKUP.match(text[first : min(stop, first + _LONGEST_MARK)]):
            first += mark.end()
        span = shrink(text, (first, stop))
        if span[0] < span[1]:
            yield span
        place = stop


def words_of(text: str) -> list[str]:
    """The words of a text in order; of a script that is written without blanks, stretches of a few characters."""
    found: list[str] = []
    for match in _WORD.finditer(text):
        word = match.group()
        if _WIDE.search(word):
            found += [word[place : place + _WIDE_WORD] for place in range(0, len(word), _WIDE_WORD)]
        elif len(word) <= _LONGEST_WORD:
            found.append(word)
    return found


def content_words(text: str) -> list[str]:
    """The words that say something of what the text is about, as they stand there."""
    return [word for word in words_of(text) if is_content(word)]


def is_content(word: str) -> bool:
    """Whether a word may say what a text is about."""
    return word.casefold() not in STOP_WORDS and (len(word) > 1 or word.isdigit() or bool(_WIDE.match(word)))


def looks_english(text: str) -> bool:
    """Whether one in seven words is an English stop word; told from the beginning of the text."""
    words = [word.casefold() for word in words_of(text[:_HEAD])]
    return bool(words) and 7 * sum(word in STOP_WORDS for word in words) >= len(words)


def ends_as_sentences_do(text: str) -> bool:
    """Whether a full stop or the like is the last character, closing quotes and brackets aside."""
    return bool(_LAST.search(text[-4:]))


def fold(text: str) -> str:
    """White space folded, so that a query is one line."""
    return " ".join(text.split())


def _outside_of_fences(text: str) -> Iterator[Span]:
    """The text before, between and after fenced code; a fence that is never closed takes all that follows."""
    place, open_mark = 0, ""
    for fence in _FENCE.finditer(text):
        mark = fence.group(1)
        if not open_mark:
            yield place, fence.start()
            open_mark = mark
        elif mark[0] == open_mark[0] and len(mark) >= len(open_mark):
            open_mark, place = "", fence.end()
    if not open_mark:
        yield place, len(text)


def _lines_apart(text: str, start: int, end: int) -> Iterator[Span]:
    """A block, with Markdown headings in it on their own."""
    place = start
    for line in _HEADING_LINE.finditer(text, start, end):
        if line.start() > place:
            yield shrink(text, (place, line.start()))
        yield shrink(text, line.span())
        place = line.end()
    yield shrink(text, (place, end))


def _is_prose(text: str, span: Span) -> bool:
    start, end = span
    return start < end and any(map(str.isalpha, text[start : start + 200]))


def _is_sentence(sentence: str) -> bool:
    least = SHORTEST_SENTENCE // 3 if _WIDE.search(sentence) else SHORTEST_SENTENCE
    if not least <= len(sentence) <= LONGEST_SENTENCE or _TABLE.search(sentence):
        return False
    if sentence[0].islower() or sentence[0] in "#(*,;:)" or not ends_as_sentences_do(sentence):
        return False
    words = words_of(sentence)
    if _POINTER.search(sentence) or 3 * sum(word[0].isupper() or word[0].isdigit() for word in words) > 2 * len(words):
        return False
    if _lists_numbers(sentence):
        return False
    letters = sum(map(str.isalpha, sentence))
    capitals = sum(map(str.isupper, sentence))
    return 2 * letters > len(sentence) and 3 * capitals < letters and not _NUMBERED.search(sentence)


def _lists_numbers(sentence: str) -> bool:
    """Whether a sentence is a table in a line, as "exports: 28 kWh (2023 est.); imports: 6 kWh", which nobody asks for.

    A date and an amount are three words with digits, which a sentence of nine words may hold.
    """
    words = sentence.split()
    numbers = sum(any(map(str.isdigit, word)) for word in words)
    labelled = len(_LABELLED.findall(sentence))
    return 3 * numbers > len(words) or labelled > 1 or (labelled == 1 and 5 * numbers >= len(words))


def _folded(text: str, sentence: Sentence) -> str:
    return fold(text[sentence.start : sentence.end]).casefold()
