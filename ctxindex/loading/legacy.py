"""Text in 8-bit encodings from before Unicode, told by what languages look like in them.

An encoding fits where the letters beyond ASCII are those of one language's alphabet, in places where letters stand.
Encodings of East Asia and Thailand are left to charset-normalizer. Where nothing fits, there is no text.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Final, TypeAlias

from ctxindex.loading.values import NotTextError

# Letters beyond ASCII, in lower case, language by language.
_WESTERN: Final = (
    "àâæçéèêëîïôœùûüÿ",  # French
    "äöüßéà",  # German, with its French words
    "áéíóúüñªº",  # Spanish
    "áâãàçéêíóôõúüªº",  # Portuguese
    "àèéìíîòóùú",  # Italian
    "åäöéüà",  # Swedish, Finnish
    "æøåéèêóòôäöü",  # Danish, Norwegian
    "áðéíóúýþæö",  # Icelandic, Faroese
    "áéëïíóöüèê",  # Dutch
    "àçèéíïòóúü",  # Catalan
    "äöüõšž",  # Estonian
    "áéíóúâêîôûŵŷ",  # Irish, Welsh
)
_CENTRAL: Final = (
    "ąćęłńóśźż",  # Polish
    "áčďéěíňóřšťúůýž",  # Czech
    "áäčďéíĺľňóôŕšťúýž",  # Slovak
    "áéíóöőúüű",  # Hungarian
    "ăâîşţșț",  # Romanian
    "čćđšž",  # Croatian, Slovene
)
_TURKISH: Final = ("çğıöşüâîû",)
_BALTIC: Final = ("ąčęėįšųūž", "āčēģīķļņōŗšūž", "äöüõšž")
# For scripts of their own: the letters that make up most of any text, and so tell the encodings apart.
_CYRILLIC: Final = ("оеаинтсрвлкмдпуяызь", "оаинвтерісулкдпмязьї")
_GREEK: Final = ("αοιετσνηυρπκλμςάέήίόύώ",)
_HEBREW: Final = ("ויהלאמרתבשנדסכעםחקפ",)
_ARABIC: Final = ("اليمنترودبةسعهكأفق",)

_LATIN_ENCODINGS: Final = (
    ("cp1252", _WESTERN),
    ("cp1250", _CENTRAL),
    ("iso8859-2", _CENTRAL),
    ("cp1254", _TURKISH),
    ("cp1257", _BALTIC),
    ("cp850", _WESTERN),
    ("mac_roman", _WESTERN),
    ("cp852", _CENTRAL),
)
_SCRIPT_ENCODINGS: Final = (
    ("cp1251", _CYRILLIC),
    ("koi8_u", _CYRILLIC),
    ("cp866", _CYRILLIC),
    ("iso8859-5", _CYRILLIC),
    ("mac_cyrillic", _CYRILLIC),
    ("cp1253", _GREEK),
    ("iso8859-7", _GREEK),
    ("cp1255", _HEBREW),
    ("cp1256", _ARABIC),
    ("iso8859-6", _ARABIC),
)
_MULTIBYTE: Final = ("cp932", "euc_jp", "gb18030", "big5", "cp949", "cp874")

# Signs that also stand between letters (no-break space, soft hyphen, dashes, apostrophe), and those that don't.
_WITHIN_WORDS: Final = frozenset("\u00a0\u00ad\u2013\u2014\u2019·®°")
_PUNCTUATION: Final = _WITHIN_WORDS | frozenset("\u2018\u201a\u2039\u203a\u00d7“”„…•«»€£¥¢§¶©™¿¡±÷½¼¾²³¹µ‰†‡№")
_SAMPLE_BYTES: Final = 65_536
_DENSE_RUN: Final = re.compile(rb"[\x80-\xff]{3,}")
_ASCII: Final = bytes(range(128))
_Table: TypeAlias = tuple[tuple[str, tuple[str, ...]], ...]
_ISO2022_ESCAPE: Final = re.compile(rb"\x1b(?:\$[@B]|\$\([A-D]|\$\)[A-C]|\([IJ])")
_HALF_WIDTH: Final = re.compile("[\uff61-\uff9f]")
_MULTIBYTE_LEAST: Final = 16
_MANY: Final = 20
_CAPITALS_COST: Final = 0.25
_LATIN_SCORE: Final = 0.9
_SCRIPT_SCORE: Final = 0.7
_C1_TO_CP1252: Final = {
    byte: bytes((byte,)).decode("cp1252") for byte in range(0x80, 0xA0) if byte not in (0x81, 0x8D, 0x8F, 0x90, 0x9D)
}


def decode_cp1252(data: bytes) -> str:
    """Windows' Latin-1; the five bytes that it leaves open are the control characters they are in Latin-1."""
    try:
        return data.decode("cp1252")
    except UnicodeDecodeError:
        return data.decode("latin-1").translate(_C1_TO_CP1252)


def decode_legacy(data: bytes) -> tuple[str, str]:
    """The text, and the encoding by Python's name. `data` is neither UTF-8 nor binary.

    Raises:
        NotTextError: where no encoding makes sense of the bytes.
    """
    sample = _sample(data)
    beyond = len(sample.translate(None, _ASCII))
    dense = 2 * sum(map(len, _DENSE_RUN.findall(sample))) > beyond
    # Where bytes beyond ASCII come in runs, words are written in another script. Latin letters come in ones and twos.
    searches = (_by_script, _by_charset_normalizer, _by_latin) if dense else (_by_latin, _by_script, _by_mixed_western)
    for search in (*searches, _by_charset_normalizer):
        for encoding in search(sample):
            try:
                return (decode_cp1252(data) if encoding == "cp1252" else data.decode(encoding)), encoding
            except UnicodeDecodeError:
                continue
    raise NotTextError("encoding not recognised (neither Unicode nor text in a common legacy encoding)")


def _sample(data: bytes) -> bytes:
    """Enough to tell the encoding by: from the first byte beyond ASCII on, to the end of a word if possible."""
    first = next(iter(re.finditer(rb"[\x80-\xff]", data)))
    start = data.rfind(b"\n", 0, first.start()) + 1 if first.start() < 1000 else first.start()
    sample = data[start : start + _SAMPLE_BYTES]
    if start + len(sample) < len(data) and (end := sample.rfind(b" ")) > len(sample) // 2:
        return sample[:end]
    return sample


def _by_latin(sample: bytes) -> Iterator[str]:
    return _by_alphabet(sample, _LATIN_ENCODINGS, _LATIN_SCORE)


def _by_script(sample: bytes) -> Iterator[str]:
    return _by_alphabet(sample, _SCRIPT_ENCODINGS, _SCRIPT_SCORE, capitals_cost=_CAPITALS_COST)


def _by_mixed_western(sample: bytes) -> Iterator[str]:
    """A text in several Western languages has letters of all of them."""
    every = "".join(_WESTERN)
    return _by_alphabet(sample, (("cp1252", (every,)),), _LATIN_SCORE)


def _by_alphabet(sample: bytes, encodings: _Table, enough: float, *, capitals_cost: float = 0.0) -> Iterator[str]:
    """The encodings in which `sample` has at least the share `enough` of letters that some language has; best first."""
    scores = []
    for encoding, alphabets in encodings:
        text = decode_cp1252(sample) if encoding == "cp1252" else sample.decode(encoding, "replace")
        score, capitals, n_total = _score(text, alphabets)
        # Another encoding of the script, or another script, often shows as capitals only. That is no reason to
        # refuse a long text, which may well be in capitals, but it decides between candidates.
        ranked = score - capitals_cost * capitals
        if (score if n_total >= _MANY else ranked) >= enough:
            scores.append((-ranked, encoding))
    # A stable sort: of equals, the encoding that stands first in the table.
    return iter([encoding for _, encoding in sorted(scores, key=lambda scored: scored[0])])


def _score(text: str, alphabets: tuple[str, ...]) -> tuple[float, float, int]:
    """How well the characters beyond ASCII fit the language that fits best.

    Returns:
        The share of them that are its letters, or signs in a sign's place; the share of capitals; their number.
    """
    letters: Counter[str] = Counter()
    n_signs = n_capitals = n_total = 0
    for match in re.finditer(r"[^\x00-\x7f]", text):
        char, at = match[0], match.start()
        n_total += 1
        n_capitals += char.isupper()
        if char in _PUNCTUATION:
            inside = text[at - 1 : at].isalpha() and text[at + 1 : at + 2].isalpha()
            n_signs += char in _WITHIN_WORDS or not inside
        elif not (text[at - 1 : at].islower() and char.isupper()):
            # Capitals within words are what one script's encodings make of each other's small letters.
            letters[char.lower()] += 1
    best = max(sum(letters[char] for char in alphabet) for alphabet in alphabets)
    total = max(1, n_total)
    return (n_signs + best) / total, n_capitals / total, n_total


def _by_charset_normalizer(sample: bytes) -> Iterator[str]:
    from charset_normalizer import from_bytes

    # A word or two fit several of these encodings equally well: better no text than a wrong one.
    if len(sample.translate(None, _ASCII)) < _MULTIBYTE_LEAST:
        return
    # The sample may end within a character of two bytes.
    for end in (len(sample), len(sample) - 1):
        matches = from_bytes(
            sample[:end], cp_isolation=list(_MULTIBYTE), enable_fallback=False, preemptive_behaviour=False
        )
        if len(matches):
            break
    for match in matches:
        text = str(match)
        # Half-width katakana is what Shift JIS makes of accented letters; hardly any text is written in it.
        if 2 * len(_HALF_WIDTH.findall(text)) < sum(not char.isascii() for char in text):
            yield match.encoding


def decode_iso2022(data: bytes) -> tuple[str, str] | None:
    """Japanese or Korean mail encodings, which are ASCII with escape sequences; None where there are none."""
    if not _ISO2022_ESCAPE.search(data):
        return None
    for encoding in ("iso2022_jp", "iso2022_jp_2", "iso2022_kr"):
        try:
            return data.decode(encoding), encoding
        except UnicodeDecodeError:
            continue
    return None
