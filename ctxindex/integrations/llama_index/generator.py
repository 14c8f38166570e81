"""Language models through LlamaIndex: any of its LLMs, and any endpoint that speaks OpenAI's protocol."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import time
from collections.abc import Callable
from typing import Any, Self

from llama_index.core.llms import LLM, CompletionResponse

from ctxindex.errors import ConfigError, GenerationError, MissingDependencyError, UsageError
from ctxindex.llm import Generation, estimate_tokens

OPENAI_URL = "https://api.openai.com/v1"

_SETTINGS = ("temperature", "top_p", "seed", "max_tokens", "reasoning_effort", "system_prompt", "additional_kwargs")
"""Fields of an LLM that decide its answers, where it has them."""

_NO_SETTINGS = ("extra_headers", "extra_query", "user")
"""Entries of `additional_kwargs` that decide nothing, and may be secret."""

_TRANSIENT_STATUS = {408, 409, 425, 429}
_TRANSIENT_KINDS = {"APIConnectionError", "ConnectionError", "JSONDecodeError", "TimeoutError", "TransportError"}
"""Names of exception classes, bases included: the libraries behind an LLM need not be installed to be recognised."""

_LONGEST_WAIT = 60.0
_LONGEST_REASON = 300

_THOUGHTS = re.compile(r"\A\s*<think>.*?(?:</think>|\Z)", re.DOTALL)
"""What a reasoning model says to itself, where its server does not take it out."""

_ADVICE = {
    401: "check the API key",
    403: "check what the API key permits",
    404: "check the name of the model and the URL",
    413: "the prompt is too long for it",
}


class LlamaIndexGenerator:
    """Any LLM of LlamaIndex as a `TextGenerator`, asked by `complete`.

    Failures that may pass (no connection, time out, status 408, 409, 425, 429 and 5xx, a damaged answer) are tried
    again, after pauses that double, or after what the endpoint asks for in Retry-After. An LLM that has retries of its
    own should have them off.

    Token counts are those of the endpoint where the answer has them in OpenAI's form, else estimated from characters.

    Args:
        llm: the model, with its settings.
        name: identifies model and settings; None makes it of the model's name and what the LLM says of itself. The
            address is no part of it: the same model elsewhere gives the same answers.
        attempts: how often a request is made, at most.
        pause: seconds before the second attempt.
        on_close: what `close` does, or nothing.
        empty_at_length: whether a model that used up its tokens before it answered has answered with nothing; else that
            is an error.
    """

    def __init__(
        self,
        llm: LLM,
        *,
        name: str | None = None,
        attempts: int = 5,
        pause: float = 1.0,
        on_close: Callable[[], None] | None = None,
        empty_at_length: bool = False,
    ) -> None:
        self._llm = llm
        self._empty_at_length = empty_at_length
        self._on_close = on_close
        self._name = name or _name(llm)
        self._attempts = attempts
        self._pause = pause

    @property
    def name(self) -> str:
        """The model and its settings, like `gpt-4o-mini temperature=0.0 max_tokens=200`.

        A `CachedGenerator` knows the limit in it, and takes whole answers of a lower one.
        """
        return self._name

    def close(self) -> None:
        """Let go of connections that are kept open for the next request; leaving the `with` block does it too."""
        if self._on_close is not None:
            self._on_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def generate(self, prompt: str) -> Generation:
        """The model's answer, without what it thought aloud.

        Raises:
            GenerationError: no answer after all attempts, or one that ended before it began where that is an error.
        """
        response = self._ask(prompt)
        text = _THOUGHTS.sub("", response.text or "", count=1).strip()
        if not text and not self._empty_at_length and _finish(response.raw) == "length":
            raise GenerationError(
                f"{self._llm.metadata.model_name} used up its tokens before it answered: "
                "a model that reasons first needs a higher max_tokens"
            )
        return _generation(prompt, text, response)

    def _ask(self, prompt: str) -> CompletionResponse:
        attempt = 1
        while True:
            try:
                return self._llm.complete(prompt)
            except Exception as error:  # every LLM raises what the library behind it raises
                if attempt >= self._attempts or not _is_transient(error):
                    raise GenerationError(self._message(error, attempt)) from error
                time.sleep(_asked_wait(error) or self._pause * 2 ** (attempt - 1) * random.uniform(0.75, 1.25))
                attempt += 1

    def _message(self, error: Exception, attempts: int) -> str:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        # Some endpoints repeat the key in their refusal, and the message may end in a log.
        if key := getattr(self._llm, "api_key", None):
            reason = reason.replace(key, "***")
        if len(reason) > _LONGEST_REASON:
            reason = reason[:_LONGEST_REASON] + "..."
        tried = f" after {attempts} attempts" if attempts > 1 else ""
        advice = _ADVICE.get(_status(error) or 0)
        return f"no answer from {self._llm.metadata.model_name}{tried}: {reason}" + (f"; {advice}" if advice else "")


def open_generator(
    model: str,
    *,
    url: str | None = None,
    api_key_variable: str = "OPENAI_API_KEY",
    max_tokens: int = 200,
    timeout: float = 60.0,
    attempts: int = 5,
    pause: float = 1.0,
    empty_at_length: bool = False,
) -> LlamaIndexGenerator:
    """A generator for a chat model behind any endpoint that speaks OpenAI's protocol, at temperature 0.

    Args:
        model: the model's name at the endpoint.
        url: the endpoint, up to and with `/v1`; None is OpenAI's own.
        api_key_variable: the environment variable that holds the key; it is sent to `url`. Where a URL is given, the
            variable need not be set: servers on one's own machine take no key.
        max_tokens: of one answer, for models that reason before they answer with what they think.
        timeout: seconds that the endpoint may be silent.
        attempts: how often a request is made, at most.
        pause: seconds before the second attempt; doubled for each after it.
        empty_at_length: whether an answer that used up its tokens before it began is an empty one; else it is an error.

    Raises:
        ConfigError: OpenAI's endpoint, and no key in the environment.
        UsageError: a model or setting that the client does not take.
        MissingDependencyError: the extra `llm` is not installed.
    """
    try:
        from llama_index.llms.openai_like import OpenAILike
        from openai import DefaultHttpxClient
    except ImportError as error:
        package = "llama-index-llms-openai-like"
        raise MissingDependencyError(package, extra="llm", purpose="a language model behind an endpoint") from error
    key = os.environ.get(api_key_variable)
    if not key and url is None:
        raise ConfigError(f"{OPENAI_URL} needs a key: set {api_key_variable}, or give the URL of another endpoint")
    client = DefaultHttpxClient()
    try:
        llm = OpenAILike(
            model=model,
            api_base=url or OPENAI_URL,
            # Never empty: the client would look for a key elsewhere, and send it to an endpoint it was not meant for.
            api_key=key or "none",
            is_chat_model=True,
            temperature=0.0,
            max_tokens=max_tokens,
            timeout=timeout,
            max_retries=0,  # the generator's own are enough: the client's would multiply them
            http_client=client,  # one that can be closed
        )
    except ValueError as error:
        client.close()
        raise UsageError(f"{model} cannot be asked: {error}") from error
    return LlamaIndexGenerator(
        llm, attempts=attempts, pause=pause, on_close=client.close, empty_at_length=empty_at_length
    )


def _name(llm: LLM) -> str:
    """The model's name and its settings; a long setting by its hash."""
    parts = [llm.metadata.model_name]
    for setting in _SETTINGS:
        value = getattr(llm, setting, None)
        if isinstance(value, dict):
            value = {key: value[key] for key in value if key not in _NO_SETTINGS}
        if value is None or value in ("", {}):
            continue
        if not isinstance(value, int | float):
            value = hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:12]
        parts.append(f"{setting}={value}")
    return " ".join(parts)


def _generation(prompt: str, text: str, response: CompletionResponse) -> Generation:
    usage = _get(response.raw, "usage")
    if usage is None:
        usage = response.additional_kwargs
    prompt_tokens, completion_tokens = _count(usage, "prompt_tokens"), _count(usage, "completion_tokens")
    if not prompt_tokens or completion_tokens is None:  # no prompt has 0 tokens: who says so has not counted
        return Generation(text, estimate_tokens(len(prompt)), estimate_tokens(len(text)), estimated=True)
    cached = _count(_get(usage, "prompt_tokens_details"), "cached_tokens") or 0
    return Generation(text, prompt_tokens, completion_tokens, min(cached, prompt_tokens))


def _finish(raw: Any) -> Any:
    """Why the model stopped, in OpenAI's words; None where the answer does not say."""
    choices = _get(raw, "choices")
    return _get(choices[0], "finish_reason") if isinstance(choices, list) and choices else None


def _get(values: Any, name: str) -> Any:
    """A field of an answer, which may be an object or a dictionary; None where it has none."""
    return values.get(name) if isinstance(values, dict) else getattr(values, name, None)


def _count(values: Any, name: str) -> int | None:
    count = _get(values, name)
    return count if isinstance(count, int) and count >= 0 else None


def _status(error: Exception) -> int | None:
    """The HTTP status behind an exception, where the library tells it in one of the usual places."""
    found = (getattr(error, "status_code", None), _get(getattr(error, "response", None), "status_code"))
    return next((status for status in found if isinstance(status, int)), None)


def _is_transient(error: Exception) -> bool:
    if getattr(error, "code", None) == "insufficient_quota":
        return False  # sent as a 429, but no waiting will fill the account
    status = _status(error)
    if status is not None:
        return status in _TRANSIENT_STATUS or status >= 500
    return any(kind.__name__ in _TRANSIENT_KINDS for kind in type(error).__mro__)


def _asked_wait(error: Exception) -> float | None:
    """The seconds for which the endpoint asks not to be asked, at most a minute; None where it does not."""
    headers = _get(getattr(error, "response", None), "headers")
    try:
        return max(0.0, min(float(headers["retry-after"]), _LONGEST_WAIT))
    except (TypeError, KeyError, ValueError):
        return None
