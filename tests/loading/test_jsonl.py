from __future__ import annotations

import io
import json

import pytest

from ctxindex.loading.jsonl import LineError, iterate_lines, parse_line

LIMIT = 1_000_000


def parse(values: object) -> object:
    return parse_line(json.dumps(values).encode(), max_chars=LIMIT)


def test_lines_know_their_place() -> None:
    data = b"\xef\xbb\xbf {}\r\n\n\t[1]  \nlast"
    lines = list(iterate_lines(io.BytesIO(data), max_chars=LIMIT))
    assert [(line.number, line.data) for line in lines] == [(1, b"{}"), (3, b"[1]"), (4, b"last")]
    assert [data[line.offset : line.offset + line.length] for line in lines] == [b"{}", b"[1]", b"last"]


def test_long_lines_are_not_held() -> None:
    data = b"x" * 5_000_000 + b"\n{}\n" + b"y" * 3_000_000
    lines = list(iterate_lines(io.BytesIO(data), max_chars=10))
    assert [(line.number, line.data) for line in lines] == [(1, None), (2, b"{}"), (3, None)]
    assert data[lines[1].offset :].startswith(b"{}")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"[1]", "not a JSON object"),
        (b"nope", "broken JSON"),
        (b'{"a": "\xff"}', "broken UTF-8 at byte 7"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"doc_id": "a", "text": "b", "metadata": {"x": NaN}}', "NaN is not JSON"),
        (b'{"doc_id": "a", "text": "b", "metadata": {"x": 1e999}}', "number too big"),
        (b'{"doc_id": "a", "text": "b", "metadata": {"x": ' + b"9" * 5000 + b"}}", "unusable JSON"),
        (b'{"text": "b"}', 'has no "doc_id"'),
        (b'{"doc_id": true, "text": "b"}', '"doc_id" is true or false'),
        (b'{"doc_id": 1.5, "text": "b"}', '"doc_id" is a number'),
        (b'{"doc_id": " ", "text": "b"}', '"doc_id" is empty'),
        (b'{"doc_id": "\\ud800", "text": "b"}', r"lone surrogate \(\\ud800\)"),
        (b'{"doc_id": "a"}', 'has no "text"'),
        (b'{"doc_id": "a", "text": ["b"]}', '"text" is a list'),
        (b'{"doc_id": "a", "text": "\\ud800"}', '"text" holds a lone surrogate'),
        (b'{"doc_id": "a", "text": "b", "title": 3}', '"title" is a number'),
        (b'{"doc_id": "a", "text": "b", "title": "\\udfff"}', '"title" holds a lone surrogate'),
        (b'{"doc_id": "a", "text": "b", "metadata": [1]}', '"metadata" is a list'),
        (b'{"doc_id": "a", "text": "b", "metadata": {"x": [[1]]}}', "a list in the list"),
        (b'{"doc_id": "a", "text": "b", "metadata": {"x": [{"y": 1}]}}', "an object in the list"),
        (b'{"doc_id": "a", "text": "b", "metadata": {"\\ud800": 1}}', "lone surrogate"),
        (b'{"doc_id": "a", "text": "b", "metadata": {"x": ["\\ud800"]}}', "lone surrogate"),
        (b'{"doc_id": "a", "text": "b", "metadata": {"x.y": 1, "x": {"y": 2}}}', "twice"),
    ],
)
def test_bad_lines(line: bytes, reason: str) -> None:
    with pytest.raises(LineError, match=reason):
        parse_line(line, max_chars=LIMIT)


def test_failure_knows_the_doc_id_where_there_is_one() -> None:
    with pytest.raises(LineError) as error:
        parse({"doc_id": "a", "text": None})
    assert error.value.doc_id == "a"
    with pytest.raises(LineError) as error:
        parse({"text": "x"})
    assert error.value.doc_id is None


def test_good_line() -> None:
    metadata = {"n": None, "deep": {"er": {"est": [1, "x", True]}}, "f": 0.5}
    doc_id, parsed = parse_line(
        json.dumps({"doc_id": 12, "text": "a\r\n\U0001f389", "title": "", "metadata": metadata, "more": 1}).encode(),
        max_chars=LIMIT,
    )
    assert (doc_id, parsed.text, parsed.title) == ("12", "a\r\n\U0001f389", None)
    assert parsed.metadata == {"n": None, "f": 0.5, "deep.er.est": [1, "x", True]}
