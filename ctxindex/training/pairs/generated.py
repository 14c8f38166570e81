"""Pairs by a language model: it reads a passage, is told what the document is about, and writes questions.

The idea of questions that name what the document is about, so that they can be understood without it, is that of
"Context is Gold to find the Gold Passage" (arXiv 2505.24782); the prompt is our own.
"""

from __future__ import annotations

import json
import random
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from queue import Empty, SimpleQueue
from typing import Any, TypeAlias

from ctxindex.chunking.spans import Span, shrink
from ctxindex.errors import GenerationError
from ctxindex.evaluation.contextual import describe_usage
from ctxindex.llm import CachedGenerator, Price, Tokens, Usage, estimate_tokens
from ctxindex.training.pairs.subject import Subject
from ctxindex.training.pairs.text import blocks_of, fold, split_sentences
from ctxindex.training.pairs.values import Candidate, Pair
from ctxindex.types import Document

PROMPT = """\
Below are the beginning of a document and one passage of it. The document is about: {subject}

Somebody knows what the document is about but has not read it, and looks for what the passage says. Write {count} \
questions of that person, in the language of the passage. Each one
- is answered by the passage alone,
- names what the document is about, in the words of such a person, so that it is understood by itself; the passage may \
say only "it", "they" or "the company",
- is short, and does not repeat whole phrases of the passage,
- never speaks of a document, a text or a passage.

Answer with one JSON object a line and nothing else: {{"query": the question, "quote": the words of the passage that \
answer it, copied exactly}}. Where the passage says nothing worth asking for, answer with {{}}.

=== Beginning of the document ===
{head}
=== Passage ===
{passage}
=== End of the passage ==="""
"""Asks for the questions of one passage."""

PASSAGE_CHARS = 1200
_LEAST_PASSAGE = 100
_HEAD_CHARS = 400
_COMPLETION = 60
"""Tokens of a question with its quote, to tell the cost beforehand."""
_MOST_COMPLETION, _THOUGHTS = 120, 400
"""Tokens that an answer may take: of a question with its quote, and of what is thought or said beside them."""
_SHORTEST, _LONGEST = 8, 400
_STRING = r'"((?:[^"\\]|\\.)*)"'
_LOOSE = re.compile(rf'"query"\s*:\s*{_STRING}(?:\s*,\s*"quote"\s*:\s*{_STRING})?')

Task: TypeAlias = tuple[Document, Subject, random.Random]


def most_tokens(per_passage: int) -> int:
    """The tokens that an answer of so many questions may take, with room for a little thought before it."""
    return _MOST_COMPLETION * per_passage + _THOUGHTS


class QueryWriter:
    """Asks a language model for queries, and says what they cost, before and after.

    Args:
        generator: who writes. What it has answered once is never asked again, so a run that was killed goes on.
        per_passage: the most queries for one passage.
        price: of its tokens, where it is known.
        say: told the statements, each one line.
        workers: how many passages are asked about at once.
    """

    def __init__(
        self,
        generator: CachedGenerator,
        *,
        per_passage: int = 3,
        price: Price | None = None,
        say: Callable[[str], None] = lambda line: None,
        workers: int = 8,
    ) -> None:
        self._generator = generator
        self._per_passage = per_passage
        self._price = price
        self._say = say
        self._workers = workers
        self.cost = ""
        self.unanswered = 0

    def propose(self, tasks: Sequence[Task], count: int) -> list[list[Candidate]]:
        """Candidates for each document: of passages spread over it, about `count` in all.

        An answer that holds no question, a refusal for one, gives none. Those that hold nothing are counted.

        Raises:
            GenerationError: a request failed after all retries; the message says how many answers are kept.
            KeyboardInterrupt: at once; requests in flight are abandoned.
        """
        wanted = -(-count // self._per_passage)
        work = [(number, span) for number, task in enumerate(tasks) for span in _drawn(task, wanted)]
        prompts = [self._prompt(tasks[number], span) for number, span in work]
        self._announce(prompts)
        before = self._generator.usage
        answers = _ask(self._generator, prompts, self._workers)
        self.cost = describe_usage(self._generator.usage.since(before), self._price)
        self._say(f"queries: {self.cost}")
        self._count(answers)
        found: list[list[Candidate]] = [[] for _ in tasks]
        for (number, span), answer in zip(work, answers, strict=True):
            document, subject, _ = tasks[number]
            for query, quote in list(parse(answer))[: self._per_passage]:
                named = query if subject.is_named_in(query) else subject.before(query)
                start, end = _place(document.text, span, quote)
                found[number].append(Candidate(Pair(named, document.doc_id, start, end, "generated"), 1.0))
        return found

    def _prompt(self, task: Task, span: Span) -> str:
        document, subject, _ = task
        head = "" if span[0] < _HEAD_CHARS else document.text[:_HEAD_CHARS].strip()
        return PROMPT.format(
            subject=subject.name, count=self._per_passage, head=head, passage=document.text[span[0] : span[1]]
        )

    def _count(self, answers: Sequence[str]) -> None:
        self.unanswered = sum(not answer.strip() for answer in answers)
        if self.unanswered:
            self._say(
                f"queries: {self.unanswered:,} of {len(answers):,} passages skipped, whose answers are empty: a model "
                "that thinks for long before it answers needs a higher --llm-max-tokens"
            )

    def _announce(self, prompts: Sequence[str]) -> None:
        tokens = Tokens(estimate_tokens(sum(map(len, prompts))), len(prompts) * self._per_passage * _COMPLETION)
        about = describe_usage(Usage(calls=len(prompts), spent=tokens, estimated=True), self._price)
        self._say(f"{self._generator.name} writes queries: {about}, less what is kept from earlier runs")


def parse(answer: str) -> Iterator[tuple[str, str]]:
    """The questions of an answer, each once and on one line, with their quotes; nothing where it is no such answer.

    Read are objects a line, a list of them, and what is left of either when an answer was cut off or dressed up.
    """
    seen = set[str]()
    # A model's answer may hold half of a surrogate pair, which no file takes.
    for values in _objects(answer.encode("utf-8", "replace").decode()):
        query, quote = values.get("query"), values.get("quote")
        if not isinstance(query, str):
            continue
        query = fold(query.encode("utf-8", "replace").decode())
        if _SHORTEST <= len(query) <= _LONGEST and query.casefold() not in seen and any(map(str.isalpha, query)):
            seen.add(query.casefold())
            yield query, quote if isinstance(quote, str) else ""


def passages_of(document: Document) -> list[Span]:
    """The text in passages of whole paragraphs, or of whole sentences of a long one; what is too short is left out."""
    text, found = document.text, list[Span]()
    for block in blocks_of(text):
        long = block[1] - block[0] > PASSAGE_CHARS
        for start, end in split_sentences(text, *block) if long else [block]:
            if found and end - found[-1][0] <= PASSAGE_CHARS:
                found[-1] = (found[-1][0], end)
            else:
                found.append(shrink(text, (start, min(end, start + PASSAGE_CHARS))))
    return [span for span in found if span[1] - span[0] >= _LEAST_PASSAGE]


def _drawn(task: Task, count: int) -> list[Span]:
    """One passage of each of `count` stretches of the document."""
    document, _, drawn = task
    spans = passages_of(document)
    if len(spans) <= count:
        return spans
    return [
        spans[drawn.randrange(len(spans) * number // count, len(spans) * (number + 1) // count)]
        for number in range(count)
    ]


def _place(text: str, span: Span, quote: str) -> Span:
    """Where a quote stands in its passage, white space aside; the whole passage where it does not, or twice."""
    words = quote.split()
    if len(words) < 2 and len(quote) < _SHORTEST:
        return span
    pattern = re.compile(r"\s+".join(map(re.escape, words)))
    found = list(pattern.finditer(text, *span))
    return found[0].span() if len(found) == 1 else span


def _objects(answer: str) -> Iterator[dict[str, Any]]:
    for line in answer.splitlines():
        try:
            values = json.loads(line.strip().rstrip(","))
        except (ValueError, RecursionError):
            continue
        yield from (one for one in (values if isinstance(values, list) else [values]) if isinstance(one, dict))
    for match in _LOOSE.finditer(answer):
        read = [_unquoted(part) for part in match.groups(default="")]
        yield {"query": read[0], "quote": read[1]}


def _unquoted(text: str) -> str:
    try:
        return str(json.loads(f'"{text}"', strict=False))
    except ValueError:
        return text


def _ask(generator: CachedGenerator, prompts: Sequence[str], workers: int) -> list[str]:
    """The answers in the order of the prompts, by threads that an interrupt does not wait for."""
    answers = [""] * len(prompts)
    results: SimpleQueue[tuple[int, str] | BaseException] = SimpleQueue()
    waiting: SimpleQueue[int] = SimpleQueue()
    stop = threading.Event()
    for number in range(len(prompts)):
        waiting.put(number)

    def work() -> None:
        try:
            while not stop.is_set():
                number = waiting.get_nowait()
                results.put((number, generator.generate(prompts[number]).text))
        except Empty:
            return
        except BaseException as error:
            results.put(error)

    for _ in range(min(workers, len(prompts))):
        threading.Thread(target=work, name="queries", daemon=True).start()
    try:
        for done in range(len(prompts)):
            result = results.get()
            if isinstance(result, GenerationError):
                kept = f"{done:,} of {len(prompts):,} answers are kept; the same command goes on from there"
                raise GenerationError(f"{result} ({kept})") from result
            if isinstance(result, BaseException):
                raise result
            answers[result[0]] = result[1]
    finally:
        stop.set()
    return answers
