"""Pairs from the sentences that matter most in a document, turned to questions that they answer.

A sentence with a date, an amount or a number asks for it in its own words; one that begins with its subject and an
auxiliary verb is turned round, up to what it adds as a reason, condition or example; and of every other, the words that
matter most are asked about. Questions are made of English words; in other languages, the words that matter stand after
the document's subject.
"""

from __future__ import annotations

import re

from ctxindex.training.pairs.salience import Salience
from ctxindex.training.pairs.text import STOP_WORDS, content_words, fold, is_content, word_set, words_of
from ctxindex.training.pairs.values import Candidate, Material

_MONTH = r"(?:January|February|March|April|May|June|July|August|September|October|November|December)"
_ASKED: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(rf"\bon (?:the )?{_MONTH} \d{{1,2}}(?:st|nd|rd|th)?(?:, \d{{4}})?\b,?"), "on which date"),
    (re.compile(rf"\b(?P<keep>in|by|until|since|from|of) {_MONTH},? \d{{4}}\b,?"), "{keep} which month and year"),
    (re.compile(r"\b(?P<keep>in|by|until|since|from) (?:1\d{3}|20\d{2})\b(?![-\u2013%])"), "{keep} which year"),
    (
        re.compile(r"(?:(?:US|USD|EUR|GBP) ?)?[$€£] ?\d[\d.,]*\d?(?: (?:million|billion|trillion|thousand))?"),
        "how much",
    ),
    (re.compile(r"(?<![\w.,])\d[\d.,]*(?: ?%| percent\b| per cent\b)(?P<of> of\b)?"), "what percentage{of}"),
    (
        re.compile(
            r"(?<![\w.,-])(?:[a-z]+(?:-[a-z]+)? \(\d+\)|\d{1,3}(?:,\d{3})*)(?= (?:[a-z]+ )?(?!was|is|has)[a-z]{3,}s\b)"
        ),
        "how many",
    ),
)
"""What is asked for, and the words that stand in its place. The question keeps the order of the sentence."""

_MORE_OF_IT = re.compile(r"(?: ?[&/\u2013-] ?|,? (?:and|or|to|through|until) )\d")
"""Behind a date or an amount: it is one of several, or a part of a longer one."""

_AUXILIARY = re.compile(
    r"^(?P<who>(?:The|An?|Each|All|This|These) [\w'\u2019\-]+(?: [\w'\u2019\-]+)?|"
    r"[A-Z][\w'\u2019\-]*(?: (?:[A-Z][\w'\u2019\-]*|of|the|and)){0,5}) "
    r"(?P<verb>is|are|was|were|has|have|had|can|may|shall|must|will|should) (?P<rest>(?!not\b|no\b|also not\b).+)$"
)
_ADVERB = re.compile(
    r"^(?:However|Additionally|Also|For example|For instance|In addition|Therefore|Thus|Finally|Furthermore|Moreover|"
    r"Typically|Usually|Often|Generally|As a result|In general|Instead|Similarly|Likewise), "
)
_ADDED = re.compile(
    r",? (?:because|unless|if|when|while|although|though|so that|provided that|except|whereas|such as|including|"
    r"in order to|as well as)\b|, (?:but|where|which|who)\b"
)
"""What begins the part of a sentence that a question can do without."""
_PAIRED = re.compile(r"\b(?:both|either|neither|not only|whether|more|less|rather|between|so|such)\b", re.I)
"""Words that want others later in the sentence."""
_LEAST_ASKED, _MOST_SAID = 3, 0.75
"""Words that say something: a question has so many besides what it is about, and at most so many of the sentence's."""
_PERFECT = re.compile(
    r"(?:also |often |never |always |recently )?[a-z]+(?:ed|en|wn|ne|de|ade|ut|ept|ought|eld|ost|und|een)\b"
)
_ARTICLES = word_set(
    "a an the its their his her this that these those all every each article section paragraph clause chapter page no"
)
_CLAUSES = word_set("although because for if since so unless when where whereas while")
_UNFIT = word_set(
    "after although any as at because before both by during except for from he her here his how however i if "
    "in it its many most neither no nothing notwithstanding on several she since some such that their there they "
    "those to under unless upon we what when where which while who with you"
)
"""Words that no question begins with in place of a name."""
_OPENING_YEAR = re.compile(rf"In (?P<month>{_MONTH},? )?(?:1\d{{3}}|20\d{{2}}), (?=[A-Z]|the )(?!.*,)(?!.*\b\d{{4}}\b)")
_BREAKS = re.compile(
    r"[;:\"“”()\[\]]| - |[\u2013—]|\bwhereas\b|https?|,? (?:but|and|which) (?:\w+s|none|it|they) ", re.I
)
_NOUNS = re.compile(
    r"\b(?:the|an?|its|their) (?P<nouns>[^\W\d][\w'\u2019\-]+(?: [\w'\u2019\-]+){1,3})"
    r"(?=[,.;)]| (?P<next>[a-z]+))"
)
_NO_NOUNS = word_set(
    "according across again ago along already although among anymore anyway apart around aside away back based became "
    "become becomes becoming beyond concerning despite early elsewhere except first following forth forward given "
    "hence here including instead known last late later less like likewise near next notwithstanding often onwards "
    "prior pursuant rather regarding satisfactory second set several soon still third thereto throughout together "
    "toward towards twice unlike using various versus via whereby worldwide yes yet"
)
"""Words of which a phrase of nouns has none, though they are no stop words: the pattern cannot tell."""
_VERBS = word_set(
    "affects agrees allows appears applies becomes begins cannot consists contains decides depends determines develops "
    "disrupt disrupts exists expires gives goes has helps includes indicates involves keeps leads made makes met needs "
    "occur occurs paid produces provides receives reflects remains requires resolve said says seen seems shows "
    "suggests supports takes tells tends terminates turns wants"
)
"""The same of verbs that stand in sentences of all kinds, in the form that they have behind a subject."""
_NOUNS_IN_LY = word_set("ally anomaly assembly butterfly family fly italy july monopoly reply supply")
_LAST_OF_NONE = re.compile(r"(?:ing|ed|ly|less|ful|ous|[a-z]{4}(?:able|ible))$")
"""The end of a word that is seldom a noun's; "variable" and "table" are."""
_ADJECTIVE = re.compile(r"(?:al|ic|ous|ive|ful|ary|able|ible|less|ish|ern)$")
"""The end of a word that "and" or "or" joins to another before the noun that both are of."""
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
        plain = _ADVERB.sub("", sentence, count=1)
        for make in (_for_value, _turned):
            asked = make(plain[:1].upper() + plain[1:], material)
            if asked is not None:
                return material.subject.before(asked), 1.3
        # Key words of English sentences are what cloze pairs have.
        phrases = _phrases(sentence, material, salience)
        return (material.subject.ask(f"What is said about {' and '.join(phrases)}"), 1.0) if phrases else (None, 0.0)
    words = salience.best(_without(sentence, material.subject.name), _KEY_WORDS)
    if len(words) < 2:
        return None, 0.0
    return material.subject.before(" ".join(words)), 0.7


def _for_value(sentence: str, material: Material) -> str | None:
    """The sentence with its date, amount or number asked for; None where there is none, or more than one."""
    body = sentence.rstrip(".!?”\"' ")
    if not _FEWEST <= len(words_of(body)) <= _MOST or _is_broken(body) or _begins_clause(body):
        return None
    for pattern, words in _ASKED:
        found = pattern.findall(body)
        if len(found) == 1 and (match := pattern.search(body)):
            kept = {name: value or "" for name, value in match.groupdict().items()}
            asked = words.format(**kept)
            before, after = body[: match.start()], body[match.end() :]
            if before.split(" ")[-2:-1] and before.split(" ")[-2].casefold() in _ARTICLES:
                continue
            if before and (match.group().endswith(",") or after.startswith(",")):
                continue
            if _MORE_OF_IT.match(after):
                continue
            return f"{material.inside(f'{before}{asked}{after}')}?"
    if (opening := _OPENING_YEAR.match(body)) and not _begins_unfit(body[opening.end() :]):
        return f"{material.inside(body[opening.end() :])} in which {'month and ' * bool(opening['month'])}year?"
    return None


def _turned(sentence: str, material: Material) -> str | None:
    """Turns "The fee is due at once, unless …" to "is the fee due at once?"; None where the words do not allow it.

    The whole sentence as a question would be its own answer, so something must be left to be found.
    """
    body = sentence.rstrip(".!?”\"' ")
    found = _AUXILIARY.match(body)
    if found is None or len(words_of(body)) > _MOST or _begins_unfit(body) or _is_broken(body):
        return None
    who = found["who"]
    if found["verb"] in ("has", "have", "had") and not _PERFECT.match(found["rest"]):
        return None
    if who.split()[-1].casefold() in STOP_WORDS or re.search(r"[,;:]", who) or not content_words(who):
        return None
    added = _ADDED.search(found["rest"])
    kept = found["rest"][: added.start()] if added else found["rest"]
    asked, words = content_words(kept), content_words(body)
    if len(asked) < _LEAST_ASKED or _PAIRED.search(kept) or kept.split()[-1].casefold() in STOP_WORDS:
        return None
    if len(asked) + len(content_words(who)) > _MOST_SAID * len(words):
        return None
    return f"{found['verb']} {material.inside(who)} {kept}?"


def _phrases(sentence: str, material: Material, salience: Salience) -> list[str]:
    """At most two phrases of the sentence that are surely nouns: between an article and a word that ends them."""
    found = [
        match["nouns"]
        for match in _NOUNS.finditer(sentence)
        if (match["next"] is None or match["next"] in STOP_WORDS)
        and _are_nouns(match["nouns"].split())
        and not (match["next"] in ("and", "or") and _ADJECTIVE.search(match["nouns"]))
        and not material.subject.shares_a_word_with(match["nouns"])
    ]
    found = list(dict.fromkeys(found))
    best = set(sorted(found, key=lambda one: (-salience.score(one), one))[:2])
    return [f"the {one}" for one in found if one in best]


def _begins_unfit(body: str) -> bool:
    return body.split(" ", 1)[0].casefold() in _UNFIT


def _are_nouns(words: list[str]) -> bool:
    first, *more = folded = [word.casefold() for word in words]
    if (_NO_NOUNS | _VERBS) & set(folded) or not all(map(is_content, words)):
        return False
    if any(word.endswith("ed") or (word.endswith("ly") and word not in _NOUNS_IN_LY) for word in more):
        return False  # "the gene likely …", "the States showed …"
    last = (more or [first])[-1]
    if any(word.endswith("-") for word in words):  # "non-" of "non- exclusive"
        return False
    return last[-1].isalpha() and (last.endswith("variable") or last in _NOUNS_IN_LY or not _LAST_OF_NONE.search(last))


def _begins_clause(body: str) -> bool:
    return body.split(" ", 1)[0].casefold() in _CLAUSES


def _is_broken(body: str) -> bool:
    """Whether a sentence has parts that make a question of it hard to read."""
    return bool(_BREAKS.search(re.sub(r"\(\d+\)", "", body)))


def _without(sentence: str, name: str) -> str:
    """The sentence without the words of the subject, which the query names anyway."""
    own = {word.casefold() for word in content_words(name)}
    return " ".join(word for word in words_of(sentence) if word.casefold() not in own)
