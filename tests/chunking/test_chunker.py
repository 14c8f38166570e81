from __future__ import annotations

import itertools
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxindex.chunking import SpanChunker, load_chunker
from ctxindex.encoding.checkpoint import open_checkpoint
from ctxindex.encoding.tokenizer import ModelTokenizer
from ctxindex.errors import ConfigError, DocumentError
from ctxindex.loading import load_documents
from ctxindex.spec import ChunkerSpec
from ctxindex.types import Chunk, Document, Section

TOKENIZER = ModelTokenizer(open_checkpoint("minilm").backbone)

# Repeated words and lines, several scripts, invisible characters, literal special tokens, every kind of white space.
ATOMS = st.sampled_from(
    [
        *("the ", "agreement", " shall", "terminate. ", "internationalisation", "x" * 130, "# Title\n"),
        *("\n", "\n\n", "\r\n", "\t", " ", "\u00a0", "\u2003", "\u200b", "\x00", "\x1c"),
        *("é", "漢字", "中", "🙂", "👩‍👩‍👧", "\u0627", "هذا ", "[SEP]", "[CLS] ", "…", ""),
    ]
)
TEXTS = st.lists(ATOMS, min_size=1, max_size=120).map("".join)
SETTINGS = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["recursive", "markdown", "tokens"]),
        "size": st.integers(8, 40),
        "overlap": st.sampled_from([0, 0, 1, 4]),
        "unit": st.sampled_from(["tokens", "chars"]),
    }
)


def chunker(**values: Any) -> SpanChunker:
    if values["name"] == "tokens":
        values["unit"] = "tokens"
    return load_chunker(ChunkerSpec(**values), TOKENIZER)


def check(document: Document, chunks: tuple[Chunk, ...], values: dict[str, Any]) -> None:
    text = document.text
    assert [chunk.ordinal for chunk in chunks] == list(range(len(chunks)))
    covered = 0
    for chunk in chunks:
        assert chunk.text == text[chunk.start : chunk.end] == chunk.text.strip() != ""
        length = len(chunk.text) if values["unit"] == "chars" else TOKENIZER.count([chunk.text])[0]
        assert length <= values["size"]
        assert TOKENIZER.count([chunk.text])[0] > 0
        assert chunk.end > covered, "every chunk goes on where the last one ended"
        # What no chunk covers is white space, or something the model has no token for.
        assert not any(TOKENIZER.count(text[covered : max(covered, chunk.start)].split()))
        covered = chunk.end
    assert not any(TOKENIZER.count(text[covered:].split()))
    if not values["overlap"]:
        assert all(one.end <= two.start for one, two in itertools.pairwise(chunks))


@settings(deadline=None, max_examples=300)
@given(TEXTS, SETTINGS)
def test_spans_are_exact_ordered_and_never_too_large(text: str, values: dict[str, Any]) -> None:
    document = Document("a", text)
    try:
        chunks = chunker(**values).chunk(document)
    except DocumentError:
        assert not any(TOKENIZER.count(text.split()))
        return
    check(document, chunks, {**values, "unit": "tokens" if values["name"] == "tokens" else values["unit"]})


@pytest.mark.parametrize("name", ["recursive", "tokens"])
def test_repeated_sentences_keep_their_places(name: str) -> None:
    text = "The same sentence again and again. " * 60
    chunks = chunker(name=name, size=16, overlap=0, unit="tokens").chunk(Document("a", text))
    check(Document("a", text), chunks, {"size": 16, "unit": "tokens", "overlap": 0})
    assert len(chunks) >= 60 * 7 // 16


def test_chunks_are_about_as_large_as_asked_for(samples: Path) -> None:
    for document in load_documents(samples, include=["*.txt"]):
        assert isinstance(document, Document)
        chunks = chunker(name="recursive", size=128, overlap=0, unit="tokens").chunk(document)
        counts = TOKENIZER.count([chunk.text for chunk in chunks])
        assert max(counts) <= 128
        assert sum(counts) / len(counts) > 64, "packed, not crumbled"


@pytest.mark.parametrize("name", ["recursive", "tokens"])
def test_overlap_repeats_the_end_of_the_chunk_before(name: str) -> None:
    words = " ".join(f"word{number}" for number in range(300))
    document = Document("a", words)
    chunks = chunker(name=name, size=64, overlap=16, unit="tokens").chunk(document)
    for before, after in itertools.pairwise(chunks):
        shared = document.text[after.start : before.end]
        assert 0 < TOKENIZER.count([shared])[0] <= 16
        assert TOKENIZER.count([after.text])[0] <= 64


def test_the_place_of_a_chunk_is_that_of_its_own_text() -> None:
    text = "first page words here " * 12 + "second page words there " * 12
    document = Document("a.pdf", text, pages=(0, text.index("second")))
    chunks = chunker(name="recursive", size=48, overlap=16, unit="tokens").chunk(document)
    assert any(chunk.start < document.pages[1] <= chunk.end - 30 for chunk in chunks), "one repeats the page before"
    for before, chunk in pairwise(chunks):
        assert chunk.metadata["page"] == (1 if before.end < document.pages[1] - 1 else 2)


def test_overlap_does_not_cross_a_heading_with_the_markdown_chunker() -> None:
    text = "# One\n" + "alpha beta " * 40 + "\n# Two\n" + "gamma delta " * 40
    starts = (0, text.index("# Two"))
    document = Document("a.md", text, sections=(Section(starts[0], ("One",)), Section(starts[1], ("Two",))))
    for chunk in chunker(name="markdown", size=32, overlap=8, unit="tokens").chunk(document):
        own = "alpha" in chunk.text or "One" in chunk.text
        other = "gamma" in chunk.text or "Two" in chunk.text
        assert (own, other) == (chunk.metadata["headings"] == ["One"], chunk.metadata["headings"] == ["Two"])


def test_a_row_of_headings_stays_with_the_text_below_them() -> None:
    text = "# A\n\n## B\n\n### C\n\nthe text\n\nTitle\n=====\n\n## D\n\nmore"
    starts = [text.index(heading) for heading in ("# A", "## B", "### C", "Title", "## D")]
    paths = [("A",), ("A", "B"), ("A", "B", "C"), ("Title",), ("Title", "D")]
    document = Document("a.md", text, sections=tuple(map(Section, starts, paths)))
    chunks = chunker(name="markdown", size=64, overlap=0, unit="tokens").chunk(document)
    assert [(chunk.text.split()[0], chunk.text.split()[-1], chunk.metadata["headings"]) for chunk in chunks] == [
        ("#", "text", ["A", "B", "C"]),
        ("Title", "more", ["Title", "D"]),
    ]


@pytest.mark.parametrize("text", ["a" + " " * 4_000_000 + "b", "word " * 200_000, "x" * 1_000_000])
def test_the_time_is_in_proportion_to_the_text(text: str) -> None:
    began = time.perf_counter()
    chunker(name="recursive", size=128, overlap=0, unit="tokens").chunk(Document("a", text))
    assert time.perf_counter() - began < 20, "a second or two; quadratic would be minutes"


def test_overlap_works_where_there_are_no_spaces() -> None:
    document = Document("a", "合同双方同意遵守本协议的所有条款" * 40)
    chunks = chunker(name="recursive", size=32, overlap=8, unit="tokens").chunk(document)
    assert all(before.end - after.start == 8 for before, after in itertools.pairwise(chunks))


def test_a_word_without_end_is_cut_and_nothing_is_lost() -> None:
    document = Document("a", "A" * 100_000)
    chunks = chunker(name="recursive", size=128, overlap=0, unit="tokens").chunk(document)
    assert "".join(chunk.text for chunk in chunks) == document.text
    assert max(len(chunk.text) for chunk in chunks) <= 128 * 20


def test_no_chunk_crosses_a_heading_with_the_markdown_chunker() -> None:
    text = "intro words\n# One\n## One A\nfirst text\n## One B\nsecond text\n# Two\nlast text\n"
    starts = [text.index(heading) for heading in ("# One\n", "## One A", "## One B", "# Two")]
    paths = [("One",), ("One", "One A"), ("One", "One B"), ("Two",)]
    document = Document("a.md", text, sections=tuple(map(Section, starts, paths)))
    chunks = chunker(name="markdown", size=128, overlap=0, unit="tokens").chunk(document)
    assert [(chunk.text, chunk.metadata.get("headings")) for chunk in chunks] == [
        ("intro words", None),
        ("# One\n## One A\nfirst text", ["One", "One A"]),  # a heading without text goes with what follows
        ("## One B\nsecond text", ["One", "One B"]),
        ("# Two\nlast text", ["Two"]),
    ]


def test_crumbs_are_joined_to_what_stands_beside_them() -> None:
    paragraph = "word " * 120
    document = Document("a", f"{paragraph}\n\n1\n\n{paragraph}\n\n{paragraph}\n\n22")
    chunks = chunker(name="recursive", size=128, overlap=0, unit="tokens").chunk(document)
    check(document, chunks, {"size": 128, "unit": "tokens", "overlap": 0})
    assert [len(chunk.text.split()) for chunk in chunks] == [121, 120, 121]


def test_pages_are_told() -> None:
    text = "first page " * 30 + "second page " * 30
    document = Document("a.pdf", text, pages=(0, 11 * 30))
    chunks = chunker(name="recursive", size=40, overlap=0, unit="tokens").chunk(document)
    for chunk in chunks:
        assert chunk.metadata["page"] == (1 if chunk.start < 330 else 2)
        assert chunk.metadata["page_end"] == (1 if chunk.end <= 330 else 2)


@pytest.mark.parametrize("text", ["", " \n\t", "\u200b\u200b", "\x00\x01"])
def test_a_text_the_model_cannot_read_is_refused(text: str) -> None:
    with pytest.raises(DocumentError, match="no text"):
        chunker(name="recursive", size=64, overlap=0, unit="tokens").chunk(Document("a", text))


@pytest.mark.parametrize(
    ("values", "flag"),
    [
        ({"name": "semantic", "size": 64, "unit": "tokens", "overlap": 0}, "--chunker semantic"),
        ({"name": "recursive", "size": 7, "unit": "tokens", "overlap": 0}, "--chunk-size 7"),
        ({"name": "recursive", "size": 64, "unit": "words", "overlap": 0}, "--chunk-unit words"),
        ({"name": "recursive", "size": 64, "unit": "tokens", "overlap": 33}, "--chunk-overlap 33"),
        ({"name": "recursive", "size": 64, "unit": "tokens", "overlap": -1}, "--chunk-overlap -1"),
        ({"name": "tokens", "size": 64, "unit": "chars", "overlap": 0}, "--chunker tokens"),
    ],
)
def test_settings_that_cannot_work_name_their_flag(values: dict[str, Any], flag: str) -> None:
    with pytest.raises(ConfigError, match=flag):
        load_chunker(ChunkerSpec(**values), TOKENIZER)
