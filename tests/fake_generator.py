"""A text generator without a model: says what it is told to, fails when it is told to, and writes down every prompt."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from ctxindex.errors import GenerationError
from ctxindex.llm import Generation, estimate_tokens


def digest(prompt: str) -> str:
    """An answer that is a function of the prompt, so that an answer in the wrong place is seen."""
    return f"About {hashlib.sha256(prompt.encode()).hexdigest()[:12]}."


@dataclass
class FakeGenerator:
    """`answer` makes the text from the prompt; with `fail_after`, every request after that many is refused.

    `seconds` is how long an answer takes.
    """

    answer: Callable[[str], str] = digest
    name: str = "fake"
    fail_after: int | None = None
    seconds: float = 0.0
    prompts: list[str] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def generate(self, prompt: str) -> Generation:
        with self._lock:
            if self.fail_after is not None and len(self.prompts) >= self.fail_after:
                raise GenerationError("no answer from fake: refused")
            self.prompts.append(prompt)
            self.threads.append(threading.get_ident())
        time.sleep(self.seconds)
        text = self.answer(prompt)
        return Generation(text, estimate_tokens(len(prompt)), estimate_tokens(len(text)))
