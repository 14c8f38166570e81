"""Contextual retrieval by a language model, the expensive way to give a chunk its context: a baseline.

A model reads the whole document once a chunk and writes a line that says what the chunk is about and where it stands.
The line goes before the chunk, which is then embedded, or indexed by its words, alone. This module writes the lines.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue

from ctxindex.errors import GenerationError, UsageError
from ctxindex.llm import CachedGenerator, Price, TextGenerator, Tokens, Usage, estimate_tokens
from ctxindex.types import Chunk, ChunkedDocument, Document

# The document and all that is said about the task stand before the passage, so that the prompts of one document differ
# only at their end: an endpoint that caches prefixes reads the document once and not once a chunk.
PROMPT = """\
=== Document ===
{document}
=== End of the document ===

Below is one passage of this document. A search engine will show it to people who do not see the rest. Write one short \
sentence, in the language of the document, that puts the passage in its place: name the subject it is about (the \
people, companies, products or places that the passage itself may call only "it" or "they") and the part of the \
document it belongs to. Do not repeat or judge what the passage says. Your whole answer is that sentence.

=== Passage ===
{passage}
=== End of the passage ==="""
"""Asks for the context of one passage; our own words."""

_COMPLETION = 40
"""Tokens of a line, to tell the cost beforehand."""

LONGEST = 600
"""Characters of the longest line of context. The prompt asks for one sentence; more is no longer context."""

_EVERY = 10.0
"""Seconds between words on how far it is."""

_GAP = "\n[...]\n"
_WHOLE_SENTENCES = re.compile(rf".{{1,{LONGEST - 1}}}(?:[.!?](?=\s|$)|[\u3002\uff01\uff1f])")


def write_contexts(
    documents: Sequence[ChunkedDocument],
    generator: TextGenerator,
    *,
    workers: int = 8,
    document_chars: int = 100_000,
    progress: Callable[[int], None] | None = None,
) -> list[tuple[str, ...]]:
    """One line of context for every chunk, per document, in the order of documents and chunks.

    A line is the model's answer with its white space folded. Where the model answers with nothing, the line is empty:
    the chunk is then indexed as it is, which is what a person would get who used the method. An answer of more than
    `LONGEST` characters is cut to the whole sentences that fit. A short refusal cannot be told from an answer, and is
    kept.

    The chunks of a document are asked for one after the other, by one thread, so that every prompt finds the document
    in the endpoint's prefix cache; different documents are asked for at the same time.

    Args:
        documents: what to write for.
        generator: who writes; a `CachedGenerator` makes the work resumable.
        workers: how many documents are worked on at once, each in a thread.
        document_chars: a longer document is given as its head and the stretch around the chunk, half of it each.
        progress: called in the caller's thread with the number of lines that are new since the last call.

    Raises:
        UsageError: `workers` or `document_chars` is not positive.
        GenerationError: a request failed after all retries. The message says how many lines are kept.
        KeyboardInterrupt: at once; requests in flight are abandoned.
    """
    if workers < 1 or document_chars < 1:
        raise UsageError("workers and document_chars are at least 1")
    lines = [[""] * len(document.chunks) for document in documents]
    total, done = sum(map(len, lines)), 0
    work = _Work(documents, generator, document_chars)
    try:
        work.start(min(workers, len(documents)))
        while done < total:
            written = work.results.get()
            if isinstance(written, BaseException):
                raise written
            lines[written.document][written.ordinal] = written.line
            done += 1
            if progress is not None:
                progress(1)
    except GenerationError as error:
        kept = "kept; the same command goes on from there" if isinstance(generator, CachedGenerator) else "written"
        raise GenerationError(f"{error} ({done:,} of {total:,} lines of context are {kept})") from error
    finally:
        work.stop.set()
    return [tuple(of_document) for of_document in lines]


def estimate(documents: Sequence[ChunkedDocument], document_chars: int = 100_000) -> tuple[int, int]:
    """Roughly what `write_contexts` would ask for: the calls, and the prompt tokens of all of them together.

    Takes no account of a cache: neither of answers on disk, nor of prefixes at the endpoint.
    """
    calls = chars = 0
    for chunked in documents:
        document = min(len(chunked.document.text), document_chars) + len(chunked.document.title or "")
        calls += len(chunked.chunks)
        chars += len(chunked.chunks) * (document + len(PROMPT)) + sum(len(chunk.text) for chunk in chunked.chunks)
    return calls, estimate_tokens(chars)


def describe_usage(usage: Usage, price: Price | None = None) -> str:
    """What was asked and spent, in one line for a person; without a price, in tokens alone."""
    about = "about " if usage.estimated else ""
    said = f"{usage.calls:,} calls, {about}{_counts(usage.spent)}{_cost(usage.spent, price)}"
    if usage.cached_answers:
        said += f"; {usage.cached_answers:,} answers were there already"
        said += f" and had taken {about}{_counts(usage.saved)}{_cost(usage.saved, price)}"
    return said


def prompt_for(document: Document, chunk: Chunk, document_chars: int = 100_000) -> str:
    """What the model is asked about `chunk`; neighbouring chunks have all but the passage in common."""
    text = _excerpt(document.text, chunk, document_chars)
    if document.title:
        text = f"{document.title}\n\n{text}"
    return PROMPT.format(document=text, passage=chunk.text)


def to_line(answer: str) -> str:
    """The answer as a line of at most `LONGEST` characters, see `write_contexts`."""
    # A model's answer may hold half of a surrogate pair, which no tokenizer takes.
    line = " ".join(answer.encode("utf-8", "replace").decode().split())
    if len(line) <= LONGEST:
        return line
    if sentences := _WHOLE_SENTENCES.match(line):
        return sentences.group()
    return line[:LONGEST].rpartition(" ")[0] or line[:LONGEST]


def _excerpt(text: str, chunk: Chunk, room: int) -> str:
    """The text where it has at most `room` characters, else its head and the stretch around the chunk, half each.

    Stretches begin at every eighth of `room` only, so that neighbouring chunks share one and the endpoint's prefix
    cache is of use here too. The middle of the chunk is in the middle quarter of its stretch, but for the last.
    """
    if len(text) <= room:
        return text
    half = room // 2
    step = max(half // 4, 1)
    start = ((chunk.start + chunk.end) // 2 - half * 3 // 8) // step * step
    start = min(start, len(text) - half)
    if start <= half:
        return text[: half + half] + _GAP
    end = start + half
    return text[:half] + _GAP + text[start:end] + (_GAP if end < len(text) else "")


class ContextWriter:
    """Writes the lines that an evaluation asks for, and says what they cost, before and after.

    Args:
        generator: who writes.
        price: of its tokens, where it is known.
        say: told the statements, each one line.
    """

    def __init__(
        self, generator: CachedGenerator, price: Price | None = None, say: Callable[[str], None] = lambda line: None
    ) -> None:
        self._generator = generator
        self._price = price
        self._say = say
        self._cost = ""

    def __call__(self, documents: Sequence[ChunkedDocument]) -> dict[str, tuple[str, ...]]:
        """A line for every chunk, by doc_id; errors as of `write_contexts`."""
        calls, prompt = estimate(documents)
        tokens = Tokens(prompt, calls * _COMPLETION)
        self._say(
            f"{self._generator.name} writes {calls:,} lines of context: about {_counts(tokens)}"
            f"{_cost(tokens, self._price)}, less what is kept from earlier runs"
        )
        before = self._generator.usage
        lines = write_contexts(documents, self._generator, progress=_Lines(calls, self._say).add)
        self._cost = describe_usage(self._generator.usage.since(before), self._price)
        self._say(f"contexts: {self._cost}")
        return {one.document.doc_id: written for one, written in zip(documents, lines, strict=True)}

    def notes(self) -> dict[str, str]:
        """What is told of a run with the lines that were written last: by whom, at what cost, asked how."""
        return {"llm": self._generator.name, "llm_cost": self._cost, "llm_prompt": PROMPT}


class _Lines:
    """Says how many lines are written, now and then."""

    def __init__(self, total: int, say: Callable[[str], None]) -> None:
        self._total = total
        self._say = say
        self._done = 0
        self._said = time.monotonic()

    def add(self, lines: int) -> None:
        self._done += lines
        if time.monotonic() - self._said >= _EVERY:
            self._say(f"{self._done:,} of {self._total:,} lines of context")
            self._said = time.monotonic()


def _counts(tokens: Tokens) -> str:
    cached = f" ({tokens.cached:,} from the endpoint's cache)" if tokens.cached else ""
    return f"{tokens.prompt:,} prompt tokens{cached} and {tokens.completion:,} completion tokens"


def _cost(tokens: Tokens, price: Price | None) -> str:
    if price is None:
        return ""
    cost = price.cost(tokens)
    return f" for {cost:,.2f} {price.currency}" if cost >= 1 else f" for {cost:.4f} {price.currency}"


@dataclass(frozen=True, slots=True)
class _Written:
    document: int
    ordinal: int
    line: str


@dataclass
class _Work:
    """Threads that take documents one by one and give lines, or the error that ended them.

    The threads are daemons, which those of an executor cannot be: the interpreter would wait at its end for requests
    in flight, and an interrupt would take as long as the slowest endpoint.
    """

    documents: Sequence[ChunkedDocument]
    generator: TextGenerator
    document_chars: int
    results: SimpleQueue[_Written | BaseException] = field(default_factory=SimpleQueue)
    stop: threading.Event = field(default_factory=threading.Event)
    _open: SimpleQueue[int] = field(default_factory=SimpleQueue)

    def start(self, workers: int) -> None:
        for number in range(len(self.documents)):
            self._open.put(number)
        for _ in range(workers):
            threading.Thread(target=self._run, name="contexts", daemon=True).start()

    def _run(self) -> None:
        try:
            while not self.stop.is_set():
                self._write(self._open.get_nowait())
        except Empty:
            return
        except BaseException as error:
            self.results.put(error)

    def _write(self, number: int) -> None:
        chunked = self.documents[number]
        for ordinal, chunk in enumerate(chunked.chunks):
            if self.stop.is_set():
                return
            answer = self.generator.generate(prompt_for(chunked.document, chunk, self.document_chars))
            self.results.put(_Written(number, ordinal, to_line(answer.text)))
