# ruff: noqa: RUF001 - letters of other scripts are what this tests
from __future__ import annotations

import codecs
import random
import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxindex.errors import DocumentError
from ctxindex.loading.encodings import decode_html, decode_text
from ctxindex.loading.values import NotTextError

LIMIT = 10_000_000
SAMPLES = {
    "english": "The parties agree as follows.\r\nThis is the second line.",
    "french": "Le présent contrat entre en vigueur à la date de sa signature.",
    "russian": "Договор вступает в силу с момента подписания.",
    "hebrew": "הסכם זה ייכנס לתוקף ביום חתימתו",
    "arabic": "يدخل هذا الاتفاق حيز التنفيذ من تاريخ التوقيع عليه",
    "hindi": "यह समझौता हस्ताक्षर की तारीख से लागू होगा।",
    "thai": "ข้อตกลงนี้มีผลใช้บังคับ ตั้งแต่วันที่ลงนาม",
    "japanese": "この契約は、署名した日から効力を生じる。\n日本語のテキストです。",
    "chinese": "本协议自双方签字之日起生效。\n中文文本为准,英文文本仅供参考。",
    "korean": "본 계약은 양 당사자가 서명한 날로부터 효력이 발생한다.",
    "emoji": "Signed 🎉👩‍👩‍👧 and 𝔰𝔢𝔞𝔩𝔢𝔡",
}
# Words of one script at a time, as text has them.
WORDS = [
    st.text(alphabet=letters, min_size=2, max_size=9)
    for letters in (
        "abcdefghijklmnopqrstuvwxyz",
        "àéèüößñøåabcdefghijklmnop",
        "абвгдежзийклмнопрстуфхцчшщъыьэюя",
        "αβγδεζηθικλμνξοπρστυφχψω",
        "אבגדהוזחטיכלמנסעפצקרשת",
        "この契約は署名した日から本協議生効",
    )
]
TEXTS = st.one_of([st.lists(word, min_size=8, max_size=40).map(" ".join) for word in WORDS])
UTF8_TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Co", "Cn"]), max_size=200)


def decoded(data: bytes) -> str:
    return decode_text(data, max_chars=LIMIT).text


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le"])
@pytest.mark.parametrize("language", SAMPLES)
def test_unicode_round_trips(language: str, encoding: str) -> None:
    assert decoded(SAMPLES[language].encode(encoding)) == SAMPLES[language]


@given(text=TEXTS, encoding=st.sampled_from(["utf-8", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"]))
def test_words_round_trip_without_mark(text: str, encoding: str) -> None:
    assert decoded(text.encode(encoding)) == text


@given(text=UTF8_TEXTS)
def test_any_utf8_round_trips(text: str) -> None:
    assert decoded(text.encode()) == text.removeprefix("\ufeff")


@given(text=UTF8_TEXTS, encoding=st.sampled_from(["utf-8-sig", "utf-16", "utf-32"]))
def test_any_text_with_mark_round_trips(text: str, encoding: str) -> None:
    assert decoded(text.encode(encoding)) == text


@given(data=st.binary(max_size=300))
def test_any_bytes_give_text_or_a_reason(data: bytes) -> None:
    with suppress(DocumentError):
        decoded(data).encode()


def test_line_ends_and_mark() -> None:
    result = decode_text(codecs.BOM_UTF8 + b"a\r\nb\rc\n", max_chars=LIMIT)
    assert (result.text, dict(result.metadata)) == ("a\r\nb\rc\n", {})
    assert decode_text("a b".encode("utf-16"), max_chars=LIMIT).metadata == {"encoding": "utf-16-le"}


@pytest.mark.parametrize("text", ["one\0two three four", "abc\0", "a name\0another name\0", "x" * 200 + "\0" * 3])
def test_few_nuls_are_kept(text: str) -> None:
    assert decoded(text.encode()) == text


@pytest.mark.parametrize(
    "data",
    [
        bytes(100),
        struct.pack("<50I", *range(50)),
        struct.pack("<50d", *(number / 7 for number in range(50))),
        bytes(range(256)) * 4,
        b"header text\0\0\0\0\0\0\0\0\x01\x02\x03\x04 and more" * 3,
    ],
)
def test_binary_is_refused(data: bytes) -> None:
    with pytest.raises(NotTextError, match="binary data"):
        decoded(data)


def test_broken_utf8_is_not_read_as_latin() -> None:
    data = "Größe und Maß für Ärzte".encode()
    broken = data[:20] + b"\xff" + data[20:]
    with pytest.raises(DocumentError, match=r"broken UTF-8 at byte 20$"):
        decoded(broken)


@pytest.mark.parametrize("data", [b"plain \xed\xa0\x80 text", "café ".encode() + b"\xed\xbf\xbf"])
def test_encoded_lone_surrogate(data: bytes) -> None:
    with pytest.raises(DocumentError, match=r"broken UTF-8 at byte 6 \(a lone surrogate\)"):
        decoded(data)


def test_marked_but_broken() -> None:
    with pytest.raises(DocumentError, match="broken UTF-16-LE at byte 4"):
        decoded(codecs.BOM_UTF16_LE + b"a\0\x00\xd8")
    with pytest.raises(DocumentError, match="broken UTF-8 at byte 4"):
        decoded(codecs.BOM_UTF8 + b"a\xff")


def test_too_long() -> None:
    with pytest.raises(DocumentError, match="oversized: 11 characters, limit 10") as error:
        decode_text(b"x" * 11, max_chars=10)
    assert error.value.transient
    with pytest.raises(DocumentError, match="oversized: 41 bytes"):
        decode_text(b"x" * 41, max_chars=10)


@pytest.mark.parametrize("charset", ["shift_jis", "windows-1251", "euc-kr", "gb2312", "utf-8"])
def test_html_declares_its_charset(charset: str) -> None:
    body = {"shift_jis": "東京", "windows-1251": "да", "euc-kr": "계약", "gb2312": "合同", "utf-8": "é"}[charset]
    page = f'<html><head><meta charset="{charset}"></head><body>{body}</body></html>'
    assert decode_html(page.encode(charset), max_chars=LIMIT).text == page


def test_html_old_style_declaration_and_windows_quotes() -> None:
    page = '<meta http-equiv="Content-Type" content="text/html; charset=iso-8859-1"><p>\u201cdéjà\u201d</p>'
    result = decode_html(page.encode("cp1252"), max_chars=LIMIT)
    assert (result.text, result.encoding) == (page, "cp1252")


@pytest.mark.parametrize("charset", ["utf-8", "utf-16", "no-such-charset"])
def test_html_wrong_declaration_is_not_believed(charset: str) -> None:
    page = f'<meta charset="{charset}"><p>Le café de la société</p>'
    assert decode_html(page.encode("cp1252"), max_chars=LIMIT).text == page


def test_random_bytes_are_no_text() -> None:
    generator = random.Random(1)
    for _ in range(200):
        with pytest.raises(DocumentError):
            decoded(generator.randbytes(500))
