"""Lines of context: the right line for every chunk, asked for in the cheapest order, and nothing paid for twice."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ctxindex.errors import GenerationError, UnreachableError, UsageError
from ctxindex.evaluation.contextual import (
    LONGEST,
    PROMPT,
    describe_usage,
    estimate,
    prompt_for,
    to_line,
    write_contexts,
)
from ctxindex.llm import CachedGenerator, Generation, Price, Tokens, Usage, estimate_tokens
from ctxindex.types import Chunk, ChunkedDocument, Document
from tests.conftest import REPOSITORY
from tests.fake_generator import FakeGenerator


def chunked(name: str, pieces: list[str], title: str | None = None) -> ChunkedDocument:
    """A document of these pieces, a space between them, and each a chunk."""
    text = " ".join(pieces)
    chunks, start = [], 0
    for ordinal, piece in enumerate(pieces):
        chunks.append(Chunk(ordinal, start, start + len(piece), piece))
        start += len(piece) + 1
    return ChunkedDocument(Document(name, text, title), tuple(chunks))


def corpus(documents: int, chunks: int) -> list[ChunkedDocument]:
    return [
        chunked(f"d{number}", [f"({number}/{ordinal}) lorem" for ordinal in range(chunks)])
        for number in range(documents)
    ]


def passage(prompt: str) -> str:
    """The passage that a prompt asks about."""
    (found,) = re.findall(r"=== Passage ===\n(.*)\n=== End of the passage ===\Z", prompt, re.DOTALL)
    return str(found)


def common_prefix(texts: list[str]) -> str:
    first, last = min(texts), max(texts)
    return first[: next((place for place, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))]


def echo() -> FakeGenerator:
    return FakeGenerator(lambda prompt: f"About {passage(prompt)}")


@pytest.mark.parametrize("workers", [1, 3, 50])
def test_every_chunk_gets_its_own_line(workers: int) -> None:
    documents = [*corpus(7, 4), chunked("one", ["alone"])]
    lines = write_contexts(documents, echo(), workers=workers)
    assert lines == [tuple(f"About {chunk.text}" for chunk in document.chunks) for document in documents]


def test_no_documents_no_lines() -> None:
    assert write_contexts([], echo()) == []


def test_the_chunks_of_a_document_are_asked_for_in_a_row_by_one_thread() -> None:
    fake = echo()
    fake.seconds = 0.002
    write_contexts(corpus(6, 5), fake, workers=3)
    asked: dict[str, list[tuple[str, int]]] = {}
    for prompt, thread in zip(fake.prompts, fake.threads, strict=True):
        document, ordinal = re.findall(r"\d+", passage(prompt))
        asked.setdefault(document, []).append((ordinal, thread))
    for requests in asked.values():
        assert [ordinal for ordinal, _ in requests] == list("01234")
        assert len({thread for _, thread in requests}) == 1
    assert 1 < len(set(fake.threads)) <= 3


def test_documents_are_asked_for_at_the_same_time() -> None:
    fake = echo()
    fake.seconds = 0.2
    begin = time.perf_counter()
    write_contexts(corpus(8, 1), fake, workers=8)
    assert time.perf_counter() - begin < 0.8  # one after the other, 1.6 seconds


def test_progress_counts_every_line_in_the_callers_thread() -> None:
    counted: list[tuple[int, int]] = []
    write_contexts(corpus(3, 4), echo(), progress=lambda lines: counted.append((lines, threading.get_ident())))
    assert sum(lines for lines, _ in counted) == 12
    assert {thread for _, thread in counted} == {threading.get_ident()}


@pytest.mark.parametrize("settings", [{"workers": 0}, {"document_chars": 0}])
def test_settings_that_can_do_nothing_are_refused(settings: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="at least 1"):
        write_contexts(corpus(1, 1), echo(), **settings)  # type: ignore[arg-type]


def test_the_document_comes_first_and_is_the_same_for_all_its_chunks(samples: Path) -> None:
    text = sorted(samples.glob("*.txt"))[0].read_text(encoding="utf-8")[:60_000]
    document = chunked("contract", [text[start : start + 800] for start in range(0, len(text), 800)], "The {title}")
    prompts = [prompt_for(document.document, chunk) for chunk in document.chunks]
    common = common_prefix(prompts)
    assert document.document.text in common
    assert "The {title}" in common
    assert common.index("=== Document ===") == 0
    for prompt, chunk in zip(prompts, document.chunks, strict=True):
        assert passage(prompt) == chunk.text
        # All that is not shared is the passage and what closes it.
        assert len(prompt) - len(common) <= len(chunk.text) + 40


def test_a_long_document_is_given_as_its_head_and_the_stretch_around_the_chunk() -> None:
    document = chunked("long", [f"[{number:05d}]" + "." * 92 for number in range(500)])
    room = 8_000
    heads, stretches = set(), set()
    for chunk in document.chunks:
        prompt = prompt_for(document.document, chunk, room)
        given = prompt.split("=== End of the document ===")[0]
        assert len(given) <= room + 40
        assert chunk.text in given
        text = document.document.text
        around = text[max(0, chunk.start - 500) : chunk.end + 500]
        assert around in given.replace("\n[...]\n", "\n") or chunk.start < room
        heads.add(given[: room // 2])
        stretches.add(given)
    assert len(heads) == 1
    # Neighbours share a stretch, so that these too are read from the endpoint's cache.
    assert len(stretches) <= 2 + len(document.document.text) // (room // 8)


def test_a_document_that_just_fits_is_given_whole() -> None:
    document = chunked("short", ["word"] * 100)
    chunk = document.chunks[50]
    length = len(document.document.text)
    assert "[...]" not in prompt_for(document.document, chunk, length)
    assert "[...]" in prompt_for(document.document, chunk, length - 1)


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        ("  A line,\r\n\tfolded\u2028into one. ", "A line, folded into one."),
        ("", ""),
        (" \n ", ""),
        ("half \ud83d a pair", "half ? a pair"),
        ("x" * LONGEST, "x" * LONGEST),
        ("First Inc. is it. " + "Second. " * 100, ("First Inc. is it. " + "Second. " * 72).strip()),
        ("\u6f22" * 300 + "\u3002" + "\u5b57" * 400, "\u6f22" * 300 + "\u3002"),
        ("word " * 200, ("word " * 119 + "word").strip()),
        ("x" * 700, "x" * LONGEST),
    ],
)
def test_an_answer_becomes_a_short_line(answer: str, line: str) -> None:
    assert to_line(answer) == line
    assert len(line) <= LONGEST
    assert write_contexts([chunked("d", ["text"])], FakeGenerator(lambda _: answer)) == [(line,)]


def test_a_failure_says_what_is_kept_and_the_same_call_goes_on(tmp_path: Path) -> None:
    documents = corpus(5, 4)
    fake = echo()
    fake.fail_after = 7
    generator = CachedGenerator(fake, tmp_path / "answers.jsonl")
    said = r"refused \(7 of 20 lines of context are kept; the same command goes on from there\)"
    with pytest.raises(GenerationError, match=said):
        write_contexts(documents, generator, workers=1)
    later = echo()
    lines = write_contexts(documents, CachedGenerator(later, tmp_path / "answers.jsonl"), workers=3)
    assert len(later.prompts) == 13
    assert lines == write_contexts(documents, echo())


def test_without_a_cache_nothing_is_said_to_be_kept() -> None:
    with pytest.raises(GenerationError, match=r"refused \(3 of 4 lines of context are written\)"):
        write_contexts(corpus(2, 2), FakeGenerator(fail_after=3), workers=1)


def test_other_errors_come_out_as_they_are_and_stop_the_work() -> None:
    class Broken(FakeGenerator):
        def generate(self, prompt: str) -> Generation:
            super().generate(prompt)
            raise UnreachableError("the disk is full")

    broken = Broken(seconds=0.01)
    with pytest.raises(UnreachableError, match="the disk is full"):
        write_contexts(corpus(50, 50), broken, workers=4)
    time.sleep(0.1)
    assert len(broken.prompts) <= 4


INTERRUPTED = """
import sys
from ctxindex.evaluation.contextual import write_contexts
from ctxindex.llm import CachedGenerator
from tests.evaluation.test_contextual import corpus
from tests.fake_generator import FakeGenerator

class Slow(FakeGenerator):
    def generate(self, prompt):
        self.seconds = 60.0 if len(self.prompts) > 4 else 0.0
        return super().generate(prompt)

write_contexts(corpus(4, 50), CachedGenerator(Slow(), sys.argv[1]), progress=lambda lines: print(lines, flush=True))
"""


def test_an_interrupt_stops_at_once(tmp_path: Path) -> None:
    command = [sys.executable, "-c", INTERRUPTED, str(tmp_path / "answers.jsonl")]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=REPOSITORY
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "1\n"
        time.sleep(0.3)  # by now all threads wait for answers that take a minute
        process.send_signal(signal.SIGINT)
        begin = time.perf_counter()
        _, errors = process.communicate(timeout=30)
        assert time.perf_counter() - begin < 5
    assert errors.rstrip().endswith("KeyboardInterrupt")


def test_an_estimate_is_near_what_is_asked() -> None:
    documents = [*corpus(5, 6), chunked("titled", ["lorem ipsum " * 50] * 40, "A title")]
    for room in (100_000, 5_000):
        fake = echo()
        write_contexts(documents, fake, document_chars=room)
        calls, prompt_tokens = estimate(documents, room)
        assert calls == len(fake.prompts) == 70
        assert prompt_tokens == pytest.approx(sum(estimate_tokens(len(prompt)) for prompt in fake.prompts), rel=0.02)
    assert estimate([]) == (0, 0)


def test_a_bill_is_one_line() -> None:
    usage = Usage(1200, 0, Tokens(2_000_000, 50_000, 1_500_000))
    assert describe_usage(usage) == (
        "1,200 calls, 2,000,000 prompt tokens (1,500,000 from the endpoint's cache) and 50,000 completion tokens"
    )
    assert describe_usage(usage, Price(1.0, 4.0, cached=0.1)).endswith("50,000 completion tokens for 0.8500 USD")
    cached = Usage(0, 3, Tokens(), Tokens(1000, 30), estimated=True)
    assert describe_usage(cached, Price(1000.0, 100_000.0, currency="EUR")) == (
        "0 calls, about 0 prompt tokens and 0 completion tokens for 0.0000 EUR; 3 answers were there already and had "
        "taken about 1,000 prompt tokens and 30 completion tokens for 4.00 EUR"
    )


def test_the_prompt_has_room_for_a_document_and_a_passage_and_nothing_else() -> None:
    assert re.findall(r"{(\w*)}", PROMPT) == ["document", "passage"]
    assert PROMPT.index("{document}") < PROMPT.index("{passage}")
