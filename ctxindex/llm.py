"""The seam to language models that write: lines of context for chunks, queries for training.

A `TextGenerator` answers one prompt. Its answers cost money or time, so `CachedGenerator` keeps every one of them on
disk the moment it is there, and counts what was spent. Which library talks to the model is not known here: the adapter
is in `ctxindex.integrations.llama_index`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Protocol
from weakref import WeakValueDictionary

from ctxindex.errors import UnreachableError, UsageError

_OPENING = b'{"key": "'
"""What a cache begins with, and a file that is none does not."""

_LIMIT = re.compile(r"(?<= )max_tokens=(\d+)(?= |$)")
"""In the name of a generator: the most tokens that an answer may have. No model is told, it is only cut off there."""

_CHARS_A_TOKEN = 4


def estimate_tokens(chars: int) -> int:
    """About how many tokens `chars` characters of text are, where nobody has counted: four characters a token."""
    return -(-chars // _CHARS_A_TOKEN)


@dataclass(frozen=True, slots=True)
class Tokens:
    """What requests were charged: tokens of the prompts, of which `cached`, and tokens of the answers.

    `cached` are those prompt tokens that the endpoint says it had read before (its own prefix cache).
    """

    prompt: int = 0
    completion: int = 0
    cached: int = 0

    def __add__(self, other: Tokens) -> Tokens:
        return Tokens(self.prompt + other.prompt, self.completion + other.completion, self.cached + other.cached)

    def __sub__(self, other: Tokens) -> Tokens:
        return Tokens(self.prompt - other.prompt, self.completion - other.completion, self.cached - other.cached)


@dataclass(frozen=True, slots=True)
class Generation:
    """One answer, and the tokens it cost; `estimated` where the endpoint did not say how many.

    `cached_tokens` of the `prompt_tokens` were read from the endpoint's own prefix cache; 0 where it does not say.
    """

    text: str
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    estimated: bool = False

    @property
    def tokens(self) -> Tokens:
        """The counts alone."""
        return Tokens(self.prompt_tokens, self.completion_tokens, self.cached_tokens)


class TextGenerator(Protocol):
    """A language model with its settings, asked one prompt at a time, from several threads at once."""

    @property
    def name(self) -> str:
        """Identifies the model and every setting that decides its answers. Never holds a secret.

        The most tokens of an answer stand in it as `max_tokens=N`, a word of their own, if an answer that a lower limit
        did not touch is the answer under a higher one, too.
        """
        ...

    def generate(self, prompt: str) -> Generation:
        """The answer to `prompt`, which may be empty.

        Raises:
            GenerationError: the model cannot be reached or refuses, after all retries.
        """
        ...


@dataclass(frozen=True, slots=True)
class Usage:
    """What a run asked for and spent.

    `calls` went to the model and cost `spent`. `cached_answers` were on disk already; `saved` is what they had cost
    when they were made. With `estimated`, some of the counts are estimates.
    """

    calls: int = 0
    cached_answers: int = 0
    spent: Tokens = field(default_factory=Tokens)
    saved: Tokens = field(default_factory=Tokens)
    estimated: bool = False

    def since(self, earlier: Usage) -> Usage:
        """What came after `earlier`, of the same generator."""
        return Usage(
            self.calls - earlier.calls,
            self.cached_answers - earlier.cached_answers,
            self.spent - earlier.spent,
            self.saved - earlier.saved,
            self.estimated,
        )


@dataclass(frozen=True, slots=True)
class Price:
    """Price of a million prompt tokens and of a million completion tokens, in `currency`.

    `cached` is the price of a million prompt tokens from the endpoint's prefix cache; None takes that of the others.
    """

    prompt: float
    completion: float
    cached: float | None = None
    currency: str = "USD"

    def cost(self, tokens: Tokens) -> float:
        """What `tokens` cost, in `currency`."""
        cached = self.prompt if self.cached is None else self.cached
        prompt = (tokens.prompt - tokens.cached) * self.prompt + tokens.cached * cached
        return (prompt + tokens.completion * self.completion) / 1_000_000


class CachedGenerator:
    """A generator that asks nothing twice: every answer is kept in a file, and found again by generator and prompt.

    The file is JSONL that is only ever appended to, one line an answer, written before `generate` returns. The process
    may be killed at any moment: a line that was cut off is ignored, and the next answer begins on a line of its own. A
    file may hold the answers of many generators. Several processes may add to it; each knows what was there when it
    began. It holds answers and no prompts, and may be deleted, at the price of asking again.

    The limit in a generator's name (`max_tokens=N`) may be raised: answers that ended before a lower one are taken as
    they are. What was empty, was cut off, or may have been since nobody counted its tokens, is asked for again.

    Args:
        generator: who is asked what is not in the file.
        file: made, with its folders, where it does not exist.

    Raises:
        UsageError: the file cannot be written, or is something else.
    """

    def __init__(self, generator: TextGenerator, file: Path | str) -> None:
        self._generator = generator
        self._file = Path(file)
        self._lock = threading.Lock()
        self._turns: WeakValueDictionary[str, threading.Lock] = WeakValueDictionary()
        self._usage = Usage()
        self._answers, names = _load(self._file)
        self._lower = _lower_limits(generator.name, names)

    @property
    def name(self) -> str:
        """That of the generator behind it."""
        return self._generator.name

    @property
    def file(self) -> Path:
        """Where the answers are kept."""
        return self._file

    @property
    def usage(self) -> Usage:
        """What was asked and spent since this object was made."""
        return self._usage

    def generate(self, prompt: str) -> Generation:
        """The answer from the file, or else the generator's, which is in the file when this returns.

        Raises:
            GenerationError: as of the generator; nothing is kept of a failure.
            UnreachableError: the answer cannot be written to the file.
        """
        key = _key(self.name, prompt)
        with self._turn(key):  # who asks the same at the same time waits for the one answer
            answer = self._answers.get(key) or self._of_lower_limit(prompt)
            if answer is not None:
                self._count(Usage(cached_answers=1, saved=answer.tokens, estimated=answer.estimated))
                return answer
            answer = self._generator.generate(prompt)
            self._count(Usage(calls=1, spent=answer.tokens, estimated=answer.estimated))
            self._keep(key, answer)
            return answer

    def _of_lower_limit(self, prompt: str) -> Generation | None:
        for limit, name in self._lower:
            answer = self._answers.get(_key(name, prompt))
            if answer is not None and answer.text and _ended_before(limit, answer):
                return answer
        return None

    def _turn(self, key: str) -> threading.Lock:
        with self._lock:
            return self._turns.setdefault(key, threading.Lock())

    def _count(self, more: Usage) -> None:
        with self._lock:
            so_far = self._usage
            self._usage = Usage(
                so_far.calls + more.calls,
                so_far.cached_answers + more.cached_answers,
                so_far.spent + more.spent,
                so_far.saved + more.saved,
                so_far.estimated or more.estimated,
            )

    def _keep(self, key: str, answer: Generation) -> None:
        # ASCII, so that a line cut off anywhere cannot damage the reading of another; the key first, see _OPENING.
        line = json.dumps({"key": key, "name": self.name, **asdict(answer)}).encode("ascii") + b"\n"
        with self._lock:
            self._answers[key] = answer
            try:
                with self._file.open("ab+") as stream:
                    stream.write(b"\n" + line if _is_torn(stream) else line)
            except OSError as error:
                raise UnreachableError(f"the answers cannot be kept in {self._file}: {error.strerror}") from error


def _key(name: str, prompt: str) -> str:
    return hashlib.sha256(json.dumps([name, prompt]).encode("ascii")).hexdigest()


def _ended_before(limit: int, answer: Generation) -> bool:
    # Who says that words took no tokens has not counted them.
    return not answer.estimated and 0 < answer.completion_tokens < limit


def _lower_limits(name: str, others: Iterable[str]) -> list[tuple[int, str]]:
    """Those of `others` that differ from a generator's name by a lower limit alone, with it, the highest first."""
    own = _LIMIT.search(name)
    if own is None:
        return []
    found = [(int(limit[1]), other) for other in others if (limit := _LIMIT.search(other))]
    same = [(limit, other) for limit, other in found if _LIMIT.sub(own[0], other, count=1) == name]
    return sorted((one for one in same if one[0] < int(own[1])), reverse=True)


def _load(file: Path) -> tuple[dict[str, Generation], set[str]]:
    """The answers in `file` by key, and the names of who gave them.

    It is opened for writing, so that this fails before anything is paid for.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("ab+") as stream:
            stream.seek(0)
            # A first line that was cut off may be shorter.
            if not _OPENING.startswith(stream.readline(len(_OPENING)).rstrip(b"\n")):
                raise UsageError(f"{file} is not a file of answers: name another, or one that does not exist yet")
            stream.seek(0)
            found = [read for line in stream if (read := _read(line)) is not None]
            return {key: answer for key, _, answer in found}, {name for _, name, _ in found}
    except OSError as error:
        raise UsageError(f"the answers cannot be kept in {file}: {error.strerror}") from error


def _read(line: bytes) -> tuple[str, str, Generation] | None:
    """Key, generator and answer of a line; None where it was cut off or is damaged."""
    try:
        values = json.loads(line)
        key, text, estimated = str(values["key"]), str(values["text"]), bool(values["estimated"])
        prompt, completion, cached = (int(values[f"{kind}_tokens"]) for kind in ("prompt", "completion", "cached"))
        return key, str(values.get("name")), Generation(text, prompt, completion, cached, estimated)
    except (ValueError, TypeError, KeyError):
        return None


def _is_torn(stream: IO[bytes]) -> bool:
    """Whether the file ends in the middle of a line: whoever wrote it last was killed."""
    if stream.seek(0, os.SEEK_END) == 0:
        return False
    stream.seek(-1, os.SEEK_END)
    return stream.read(1) != b"\n"
