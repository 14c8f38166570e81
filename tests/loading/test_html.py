from __future__ import annotations

import pytest

from ctxindex.errors import DocumentError
from ctxindex.loading.html import load_html
from ctxindex.loading.values import Parsed
from ctxindex.types import Section


def load(page: str) -> Parsed:
    return load_html(page.encode(), max_chars=1_000_000)


def test_blocks_and_sections() -> None:
    parsed = load(
        """<!doctype html><html><head><title> The
        title </title><style>p {}</style><script>var x = "<p>no</p>"</script></head>
        <body><!-- no --><nav>Menu</nav><h1>One <em>and</em> all</h1><p>First &amp; <b>bo</b>ld&nbsp;text
        goes   on.<br>New line</p><template>no</template><noscript>no</noscript>
        <h2>Two</h2><ul><li>a</li><li> b </li></ul><h2>  </h2><p>End</p></body></html>"""
    )
    text = "Menu\n\nOne and all\n\nFirst & bold\xa0text goes on.\nNew line\n\nTwo\n\na\nb\n\nEnd"
    assert parsed.text == text
    assert parsed.title == "The title"
    assert parsed.sections == (
        Section(text.index("One"), ("One and all",)),
        Section(text.index("Two"), ("One and all", "Two")),
    )


def test_preformatted_text_is_verbatim() -> None:
    assert load("<p>a</p><pre>\nx =  1\n   y\n</pre><p>b</p>").text == "a\n\nx =  1\n   y\n\n\nb"


def test_tables() -> None:
    page = "<table><caption>T</caption><tr><th>a<th>b</tr><tr><td>1</td><td> 2 <i>x</i></td></tr></table><p>after"
    assert load(page).text == "T\na\tb\n1\t2 x\n\nafter"


@pytest.mark.parametrize(
    ("page", "title"),
    [
        ("<h2>Low</h2><h1>High</h1>", "High"),
        ("<h3>Only</h3>", "Only"),
        ("<title> </title><h1>Heading</h1>", "Heading"),
        ("<p>none</p>", None),
        ("<body><svg><title>Icon</title></svg><p>x", None),
    ],
)
def test_title(page: str, title: str | None) -> None:
    assert load(page).title == title


def test_two_breaks_make_a_paragraph() -> None:
    assert load("a<br><br>b<br>c").text == "a\n\nb\nc"


def test_hostile_pages() -> None:
    assert load("<div>" * 5000 + "deep").text == "deep"
    assert load("&#xD800;x&#0;").text == "\ufffdx\ufffd"
    assert load("<p>1 < 2 & 3 <").text == "1 < 2 & 3 <"
    assert load("<script>").text == ""
    with pytest.raises(DocumentError, match="oversized"):
        load_html(b"<p>long text</p>", max_chars=5)


def test_too_deep() -> None:
    with pytest.raises(DocumentError, match="nested too deeply"):
        load("<div>" * 20_000)
    wide = "<div><p>a<br><b>b</b></div>" * 20_000
    assert load(f"<script>x = '{'<div>' * 20_000}'</script>{wide}").text.startswith("a\nb\n\na")


def test_declared_charset_is_kept_in_metadata() -> None:
    parsed = load_html('<meta charset="shift_jis"><h1>契約</h1>'.encode("shift_jis"), max_chars=1000)
    assert (parsed.title, dict(parsed.metadata)) == ("契約", {"encoding": "shift_jis"})
