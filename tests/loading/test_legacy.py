# ruff: noqa: RUF001 - letters of other scripts are what this tests
from __future__ import annotations

import pytest

from ctxindex.loading.encodings import decode_text
from ctxindex.loading.legacy import decode_cp1252
from ctxindex.loading.values import NotTextError

CASES = [
    ("cp1252", "café"),
    ("cp1252", "é"),
    ("cp1252", "Größe"),
    ("cp1252", "ÄÖÜ"),
    ("cp1252", "Keep below 20 °C, £5 the piece"),
    ("cp1252", "L\u2019été, où l\u2019œuvre — « élève » — à 5 € n\u2019a coûté"),
    ("cp1252", "Der Vertrag tritt in Kraft. Für Änderungen gilt die Schriftform – „Anlage“ § 5."),
    ("cp1252", "¿Qué año? El contrato entrará en vigor mañana, según la cláusula 3ª."),
    ("cp1252", "O presente contrato entra em vigor na data da assinatura. Irmã, não, ações."),
    ("cp1252", "Il contratto è valido perché la società può."),
    ("cp1252", "Avtalet träder i kraft när båda parter har undertecknat det på nytt."),
    ("cp1252", "Aftalen træder i kraft på dagen for underskrift; køber."),
    ("cp1252", "Samningurinn tekur gildi þegar báðir aðilar hafa undirritað hann."),
    ("cp1252", "Sopimus tulee voimaan. Äänestys päättyy yöllä."),
    ("cp1252", "één coördinatie, geïnd"),
    ("cp1252", "Müller, Ærø, São Paulo, Françoise, Åse, Niño, Ørsted, Straße"),
    ("cp1250", "Umowa wchodzi w życie. Zażółć gęślą jaźń, łódź."),
    ("iso8859-2", "Umowa wchodzi w życie. Zażółć gęślą jaźń, łódź."),
    ("cp1250", "Smlouva nabývá účinnosti. Příliš žluťoučký kůň úpěl ďábelské ódy."),
    ("cp1250", "A szerződés az aláírás napján lép hatályba. Árvíztűrő tükörfúrógép."),
    ("cp1254", "Bu sözleşme taraflarca imzalandığı tarihte yürürlüğe girer. Şişli, ığdır."),
    ("cp850", "Le présent contrat entre en vigueur à la date de sa signature par les deux parties."),
    ("mac_roman", "Le présent contrat entre en vigueur à la date de sa signature par les deux parties."),
    ("cp1251", "Привет, мир"),
    ("cp1251", "ДОГОВОР ПОСТАВКИ ТОВАРОВ МЕЖДУ СТОРОНАМИ"),
    ("cp1251", "Договор вступает в силу с момента подписания сторонами."),
    ("koi8-r", "Договор вступает в силу с момента подписания сторонами."),
    ("cp866", "Договор вступает в силу с момента подписания сторонами."),
    ("cp1251", "Цей договір набирає чинності з моменту підписання сторонами."),
    ("cp1253", "Η παρούσα συμφωνία τίθεται σε ισχύ από την ημερομηνία υπογραφής της."),
    ("cp1255", "הסכם זה ייכנס לתוקף ביום חתימתו על ידי שני הצדדים"),
    ("cp1256", "يدخل هذا الاتفاق حيز التنفيذ من تاريخ التوقيع عليه من قبل الطرفين"),
    ("cp874", "ข้อตกลงนี้มีผลใช้บังคับตั้งแต่วันที่ลงนามโดยคู่สัญญาทั้งสองฝ่าย"),
    ("cp932", "この契約は、両当事者が署名した日から効力を生じる。日本語のテキストです。"),
    ("euc_jp", "この契約は、両当事者が署名した日から効力を生じる。日本語のテキストです。"),
    ("iso2022_jp", "この契約は、両当事者が署名した日から効力を生じる。"),
    ("gb18030", "本协议自双方签字之日起生效。中文文本为准,英文文本仅供参考。"),
    ("big5", "本協議自雙方簽字之日起生效。中文文本為準,英文文本僅供參考。"),
    ("cp949", "본 계약은 양 당사자가 서명한 날로부터 효력이 발생한다."),
]


@pytest.mark.parametrize(("encoding", "text"), CASES)
@pytest.mark.parametrize("repeat", [1, 40])
def test_legacy_text_is_not_mangled(encoding: str, text: str, repeat: int) -> None:
    whole = f"{text}\r\n" * repeat
    result = decode_text(whole.encode(encoding), max_chars=1_000_000)
    assert result.text == whole
    assert result.metadata["encoding"]


def test_accent_after_much_ascii() -> None:
    text = "plain words and lines\n" * 20_000 + "une société anonyme\n"
    assert decode_text(text.encode("cp1252"), max_chars=1_000_000).text == text


def test_unmapped_bytes_of_cp1252_are_latin1() -> None:
    assert decode_cp1252(b"\x93caf\xe9\x94\x81") == "\u201ccafé\u201d\x81"


@pytest.mark.parametrize("data", [b"ab\x81\x8d\x8f\x90cd" * 3, "東京都".encode("euc_jp")])
def test_no_guess_is_better_than_a_wrong_one(data: bytes) -> None:
    with pytest.raises(NotTextError, match="encoding not recognised"):
        decode_text(data, max_chars=1000)
