"""Bytes -> text, or the reason why not; never a guess that would mangle it.

In this order: byte order mark, UTF-8, UTF-16 and UTF-32 without a mark, legacy encodings (`legacy`). Knows no formats,
but for the charset that a page of HTML declares.
"""

from __future__ import annotations

import codecs
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from ctxindex.errors import DocumentError
from ctxindex.loading.legacy import decode_cp1252, decode_iso2022, decode_legacy
from ctxindex.loading.values import NotTextError, check_bytes, check_chars

# UTF-32 first: its mark begins with that of UTF-16.
_MARKS: Final = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# Control characters that no text has, NUL among them. Text has BEL, BS, TAB, LF, VT, FF, CR and ESC.
_CONTROLS: Final = bytes((*range(7), *range(14, 27), *range(28, 32)))
_ASCII: Final = bytes(range(128))
_LETTERS: Final = b" " + bytes((*range(0x41, 0x5B), *range(0x61, 0x7B)))
_FEW_CONTROLS: Final = 2
_CONTROL_SHARE: Final = 0.02
# Nothing vouches for text in a legacy encoding as valid UTF-8 does for itself.
_CONTROL_SHARE_LEGACY: Final = 0.001
_SAMPLE_BYTES: Final = 65_536
_IMPLAUSIBLE: Final = frozenset({"Cc", "Cn", "Co", "Cs"})
_ENCODED_SURROGATE: Final = re.compile(rb"\xed[\xa0-\xbf][\x80-\xbf]")
_META_CHARSET: Final = re.compile(
    rb"""<meta\s[^>]{0,500}?charset\s*=\s*["']?\s*([A-Za-z0-9_:.-]{2,40})""", re.IGNORECASE
)
_META_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class Decoded:
    """A text and the encoding it was in, by Python's name."""

    text: str
    encoding: str

    @property
    def metadata(self) -> Mapping[str, str]:
        """What is worth keeping of the encoding: nothing where it is UTF-8."""
        return {} if self.encoding == "utf-8" else {"encoding": self.encoding}


def decode_text(data: bytes, *, max_chars: int) -> Decoded:
    """The text of a file. Line ends and NULs stay as they are; a byte order mark is left out.

    Raises:
        NotTextError: for binary data and for encodings that can't be told.
        DocumentError: for broken Unicode, and for more than `max_chars` characters.
    """
    check_bytes(len(data), max_chars)
    decoded = _decode(data)
    check_chars(len(decoded.text), max_chars)
    return decoded


def decode_html(data: bytes, *, max_chars: int) -> Decoded:
    """Like `decode_text`, but a charset that the page declares counts, where the page is in fact so encoded."""
    check_bytes(len(data), max_chars)
    decoded = _declared(data) or _decode(data)
    check_chars(len(decoded.text), max_chars)
    return decoded


def _declared(data: bytes) -> Decoded | None:
    match = _META_CHARSET.search(data[:_META_BYTES])
    if match is None or data.startswith(tuple(mark for mark, _ in _MARKS)):
        return None
    try:
        name = codecs.lookup(match[1].decode("ascii")).name
        # As browsers do: who declares Latin-1 or ASCII means Windows' superset of it.
        if name in ("iso8859-1", "ascii", "cp1252"):
            return Decoded(decode_cp1252(data), "cp1252") if not data.isascii() else Decoded(data.decode(), "utf-8")
        text = data.decode(name)
    except (LookupError, UnicodeError):
        return None
    # A charset that can be read byte by byte is no UTF-16, whatever it says; and no codec may smuggle in surrogates.
    if name.startswith(("utf-16", "utf-32", "utf-7")) or _ENCODED_SURROGATE.search(text.encode("utf-8", "replace")):
        return None
    return Decoded(text, name)


def _decode(data: bytes) -> Decoded:
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return _decode_marked(data, mark, encoding)
    n_controls = len(data) - len(data.translate(None, _CONTROLS))
    has_controls = n_controls > max(_FEW_CONTROLS, _CONTROL_SHARE * len(data))
    text = _strict(data, "utf-8")
    if text is not None and not n_controls:
        if mail := decode_iso2022(data):
            return Decoded(*mail)
        return Decoded(text, "utf-8")
    if n_controls and (wide := _decode_wide(data)):
        return wide
    if has_controls:
        raise NotTextError("binary data, not text")
    if text is not None:
        return Decoded(text, "utf-8")
    _refuse_broken_utf8(data)
    if n_controls > _CONTROL_SHARE_LEGACY * len(data):
        raise NotTextError("binary data, not text")
    text, encoding = decode_legacy(data)
    return Decoded(text, encoding)


def _decode_marked(data: bytes, mark: bytes, encoding: str) -> Decoded:
    if encoding == "utf-32-le" and _strict(data, encoding) is None:
        # Then it was the mark of UTF-16 and a NUL.
        mark, encoding = codecs.BOM_UTF16_LE, "utf-16-le"
    body = data[len(mark) :]
    try:
        return Decoded(body.decode(encoding), encoding)
    except UnicodeDecodeError as error:
        if encoding == "utf-8":
            raise _broken_utf8(data) from None
        raise DocumentError(f"broken {encoding.upper()} at byte {len(mark) + error.start}: {error.reason}") from None


def _strict(data: bytes, encoding: str) -> str | None:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError:
        return None


def _refuse_broken_utf8(data: bytes) -> None:
    """Raise DocumentError where most bytes beyond ASCII form UTF-8: any legacy encoding would mangle those."""
    n_beyond = len(data.translate(None, _ASCII))
    intact = data.decode("utf-8", "ignore").encode()
    n_intact = len(intact.translate(None, _ASCII))
    if 2 * n_intact >= n_beyond or 2 * 3 * len(_ENCODED_SURROGATE.findall(data)) >= n_beyond:
        raise _broken_utf8(data)


def _broken_utf8(data: bytes) -> DocumentError:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        surrogate = _ENCODED_SURROGATE.match(data, error.start)
        detail = " (a lone surrogate)" if surrogate else ""
        return DocumentError(f"broken UTF-8 at byte {error.start}{detail}")
    return DocumentError("broken UTF-8")


def _decode_wide(data: bytes) -> Decoded | None:
    """UTF-32 or UTF-16 without a mark. Called where there are control bytes, which text in no other encoding has."""
    if _is_words_with_controls(data):
        return None
    for encoding in ("utf-32-le", "utf-32-be"):
        if len(data) % 4 == 0 and (text := _strict(data, encoding)) and _plausible(text[:_SAMPLE_BYTES]):
            return Decoded(text, encoding)
    if len(data) % 2:
        return None
    sample = data[:_SAMPLE_BYTES]
    candidates = []
    for encoding in ("utf-16-le", "utf-16-be"):
        # A cut through a surrogate pair is no fault of the sample's.
        text = codecs.getincrementaldecoder(encoding)("replace").decode(sample, final=len(sample) == len(data))
        if _plausible(text):
            candidates.append((_evidence(text), encoding))
    for _, encoding in sorted(candidates, reverse=True):
        if (text := _strict(data, encoding)) is not None:
            return Decoded(text, encoding)
    return None


def _is_words_with_controls(data: bytes) -> bool:
    """Whether this is ASCII with some NULs in it, which UTF-16 would read as Chinese."""
    sample = data[:_SAMPLE_BYTES]
    n_controls = len(sample) - len(sample.translate(None, _CONTROLS))
    n_letters = len(sample) - len(sample.translate(None, _LETTERS))
    return 3 * n_controls <= len(sample) and n_letters > 0.6 * len(sample)


def _plausible(text: str) -> bool:
    """Whether nearly all characters are assigned and no controls, and most of them belong to one script."""
    strange = sum(unicodedata.category(char) in _IMPLAUSIBLE or char == "\ufffd" for char in text)
    if strange - sum(map(text.count, "\t\n\v\f\r\b\a\x1b")) > 0.01 * len(text):
        return False
    n_ascii = sum(map(str.isascii, text))
    scripts = Counter(_script(char) for char in text if not char.isascii())
    script, n_script = scripts.most_common(1)[0] if scripts else (0, 0)
    # Numbers below 592, read as characters, are Latin; but text in Latin letters is ASCII for the most part.
    if script == 0 and n_script > n_ascii:
        return False
    return n_script + n_ascii >= 0.85 * len(text)


def _script(char: str) -> int:
    """A rough number of the script: 0 for Latin and signs, one for East Asia, the block of 256 for any other."""
    code = ord(char)
    if code < 0x250 or 0x2000 <= code < 0x2070:
        return 0
    return 1 if 0x3000 <= code < 0xD7B0 or code >= 0xFF00 else code >> 8


def _evidence(text: str) -> tuple[float, float]:
    """How much `text` looks like words: the share of spaces, line ends and ASCII; then how few scripts it mixes.

    Bytes swapped, a space is U+2000 and a line end U+0A00, and the letters of one script come from all over.
    """
    common = sum(char.isascii() or char in "\u3000\u3001\u3002\uff0c" for char in text)
    blocks = {ord(char) >> 8 for char in text}
    return common / len(text), -len(blocks) / len(text)
