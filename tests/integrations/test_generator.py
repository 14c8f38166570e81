"""The real client of LlamaIndex and OpenAI against an endpoint on the loopback interface, in all its moods."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from llama_index.core.llms import CompletionResponse, MockLLM

from ctxindex.errors import ConfigError, GenerationError, MissingDependencyError, UsageError
from ctxindex.evaluation.contextual import write_contexts
from ctxindex.integrations.llama_index import LlamaIndexGenerator, open_generator
from ctxindex.integrations.llama_index.generator import OPENAI_URL
from ctxindex.llm import CachedGenerator, Generation, TextGenerator, Tokens
from ctxindex.types import Chunk, ChunkedDocument, Document
from tests.integrations.fake_endpoint import FakeEndpoint, Fault, running

KEY = "sk-a-secret-of-this-test"


@pytest.fixture
def endpoint() -> Iterator[FakeEndpoint]:
    with running() as fake:
        yield fake


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENAI_API_BASE", "http://127.0.0.1:9/never-asked")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


Opener: TypeAlias = Callable[..., LlamaIndexGenerator]


@pytest.fixture
def opened(endpoint: FakeEndpoint) -> Iterator[Opener]:
    """Generators that ask the endpoint, closed when the test is over."""
    with ExitStack() as stack:

        def open_one(**settings: Any) -> LlamaIndexGenerator:
            settings = {"url": endpoint.url, "pause": 0.01, **settings}
            return stack.enter_context(open_generator("writer-7b", **settings))

        yield open_one


def test_a_prompt_is_answered_and_counted(endpoint: FakeEndpoint, opened: Opener) -> None:
    generator: TextGenerator = opened()
    assert generator.generate("the last word") == Generation("word", 1000, 12, cached_tokens=900)
    (request,) = endpoint.requests
    assert request["messages"] == [{"role": "user", "content": "the last word"}]
    assert (request["model"], request["temperature"], request["max_tokens"]) == ("writer-7b", 0.0, 200)
    assert endpoint.keys == [f"Bearer {KEY}"]


def test_the_name_is_the_model_and_its_settings_and_no_secret(opened: Opener) -> None:
    assert opened().name == "writer-7b temperature=0.0 max_tokens=200"
    assert opened(max_tokens=50).name == "writer-7b temperature=0.0 max_tokens=50"
    assert opened(url="http://user:pass@example.org/v1").name == opened().name
    assert LlamaIndexGenerator(MockLLM(), name="mine").name == "mine"


def test_further_settings_are_part_of_the_name_by_their_hash() -> None:
    from llama_index.llms.openai_like import OpenAILike

    def name(**additional: Any) -> str:
        return LlamaIndexGenerator(OpenAILike(model="m", api_key=KEY, additional_kwargs=additional)).name

    assert name() == name(extra_headers={"X-Key": KEY}) == "m temperature=0.1"
    assert name(top_k=1).startswith("m temperature=0.1 additional_kwargs=")
    assert name(top_k=1) == name(top_k=1) != name(top_k=2)


@pytest.mark.parametrize(
    "usage", [None, {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, {"prompt_tokens": 5}]
)
def test_what_the_endpoint_does_not_count_is_estimated(
    usage: dict[str, Any] | None, endpoint: FakeEndpoint, opened: Opener
) -> None:
    endpoint.usage = usage
    assert opened().generate("the last word") == Generation("word", 4, 1, estimated=True)


def test_an_endpoint_without_a_prefix_cache_has_cached_nothing(endpoint: FakeEndpoint, opened: Opener) -> None:
    endpoint.usage = {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6}
    assert opened().generate("the last word") == Generation("word", 5, 1)


@pytest.mark.parametrize(
    "fault",
    [
        Fault(429),
        Fault(500),
        Fault(503),
        Fault(408),
        Fault(content=b'{"choices": [{"mess'),
        Fault(seconds=1.0),
        Fault(),
    ],
    ids=["429", "500", "503", "408", "malformed", "slow", "closed"],
)
def test_what_may_pass_is_tried_again(fault: Fault, endpoint: FakeEndpoint, opened: Opener) -> None:
    endpoint.faults = [fault, fault]
    assert opened(timeout=0.3).generate("the last word").text == "word"
    assert len(endpoint.requests) == 3


def test_an_endpoint_that_asks_for_patience_is_given_it(endpoint: FakeEndpoint, opened: Opener) -> None:
    endpoint.faults = [Fault(429, headers={"Retry-After": "0.4"})]
    begin = time.perf_counter()
    opened(pause=0.0).generate("the last word")
    assert time.perf_counter() - begin >= 0.4


def test_what_does_not_pass_is_an_error(endpoint: FakeEndpoint, opened: Opener) -> None:
    endpoint.always = Fault(500)
    with pytest.raises(GenerationError, match="no answer from writer-7b after 3 attempts: InternalServerError"):
        opened(attempts=3).generate("the last word")
    assert len(endpoint.requests) == 3


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault(401), "no answer from writer-7b: AuthenticationError.* check the API key"),
        (Fault(404), "check the name of the model and the URL"),
        (Fault(400), "BadRequestError"),
        (Fault(413), "too long"),
        (Fault(429, b"quota"), "insufficient_quota"),
        (Fault(content=b'{"error": "no such route"}'), "no answer from writer-7b: TypeError"),
        (Fault(content=b"<html>", headers={"Content-Type": "text/html"}), "no answer from writer-7b: "),
    ],
    ids=["401", "404", "400", "413", "quota", "other-json", "html"],
)
def test_a_refusal_is_not_tried_again_and_says_why(
    fault: Fault, said: str, endpoint: FakeEndpoint, opened: Opener
) -> None:
    endpoint.always = fault
    with pytest.raises(GenerationError, match=said) as caught:
        opened().generate("the last word")
    assert len(endpoint.requests) == 1
    assert KEY not in str(caught.value)  # the endpoint repeats it
    assert caught.value.exit_code == 4


def test_nobody_at_the_address_is_an_error(opened: Opener) -> None:
    with running() as fake:
        url = fake.url
    with pytest.raises(GenerationError, match="no answer from writer-7b after 2 attempts: APIConnectionError"):
        opened(url=url, attempts=2).generate("x")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("<think>It is\nlong.</think>\n\n The answer. ", "The answer."),
        ("<think>never ends", ""),
        ("It says <think>.", "It says <think>."),
        (None, ""),
    ],
)
def test_thoughts_are_no_answer(content: str | None, text: str, endpoint: FakeEndpoint, opened: Opener) -> None:
    endpoint.message = {"content": content}
    assert opened().generate("the last word").text == text


def test_a_model_that_never_gets_to_its_answer_is_an_error(endpoint: FakeEndpoint, opened: Opener) -> None:
    endpoint.message = {"content": ""}
    endpoint.finish_reason = "length"
    with pytest.raises(GenerationError, match="used up its tokens before it answered"):
        opened().generate("the last word")
    assert len(endpoint.requests) == 1


def test_an_answer_that_never_came_may_be_an_empty_one(endpoint: FakeEndpoint, opened: Opener) -> None:
    endpoint.message = {"content": ""}
    endpoint.finish_reason = "length"
    assert opened(empty_at_length=True).generate("the last word") == Generation("", 1000, 12, cached_tokens=900)
    endpoint.always = Fault(401)
    with pytest.raises(GenerationError):
        opened(empty_at_length=True).generate("the last word")


def test_the_cache_knows_the_limit_in_a_name(endpoint: FakeEndpoint, opened: Opener, tmp_path: Path) -> None:
    for limit in (50, 100):
        answers = CachedGenerator(opened(max_tokens=limit), tmp_path / "answers.jsonl")
        assert answers.generate("the last word").text == "word"
    assert [request["max_tokens"] for request in endpoint.requests] == [50]
    CachedGenerator(opened(max_tokens=10), tmp_path / "answers.jsonl").generate("the last word")
    assert len(endpoint.requests) == 2


def test_keys_come_from_the_variable_named_and_from_nowhere_else(
    endpoint: FakeEndpoint, opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTHER_KEY", "other")
    opened(api_key_variable="OTHER_KEY").generate("x")
    monkeypatch.delenv("OTHER_KEY")
    opened(api_key_variable="OTHER_KEY").generate("x")
    assert endpoint.keys == ["Bearer other", "Bearer none"]
    with pytest.raises(ConfigError, match="set OTHER_KEY"):
        open_generator("m", api_key_variable="OTHER_KEY")


def test_without_a_url_openai_itself_is_asked_whatever_the_environment_says() -> None:
    with open_generator("m") as generator:
        assert generator._llm.api_base == OPENAI_URL  # type: ignore[attr-defined]


def test_settings_that_the_client_does_not_take_are_refused() -> None:
    with pytest.raises(UsageError, match="m cannot be asked"):
        open_generator("m", max_tokens=0)


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llama_index.llms.openai_like", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'ctxindex\[llm\]'"):
        open_generator("m")


def test_any_llm_will_do() -> None:
    generator = LlamaIndexGenerator(MockLLM(max_tokens=2))
    assert generator.generate("of three words") == Generation("text text", 4, 3, estimated=True)


class Counting(MockLLM):
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        return CompletionResponse(text="x", additional_kwargs={"prompt_tokens": 7, "completion_tokens": 2})


class Failing(MockLLM):
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        raise {"slow": TimeoutError, "odd": LookupError}[prompt](prompt)


def test_counts_in_additional_kwargs_are_read() -> None:
    assert LlamaIndexGenerator(Counting(max_tokens=None)).generate("a prompt") == Generation("x", 7, 2)


def test_errors_of_any_llm_are_errors_of_generation() -> None:
    generator = LlamaIndexGenerator(Failing(max_tokens=None), attempts=2, pause=0.0)
    with pytest.raises(GenerationError, match="after 2 attempts: TimeoutError: slow"):
        generator.generate("slow")
    with pytest.raises(GenerationError, match=r"no answer from .*: LookupError: odd"):
        generator.generate("odd")


def test_contexts_through_a_cache_from_a_faltering_endpoint(
    endpoint: FakeEndpoint, opened: Opener, tmp_path: Path
) -> None:
    documents = [
        ChunkedDocument(
            Document(f"d{number}", f"one{number} two{number}"),
            (Chunk(0, 0, 4, f"one{number}"), Chunk(1, 5, 9, f"two{number}")),
        )
        for number in range(10)
    ]
    endpoint.faults = [Fault(429)] * 3
    endpoint.message = {"content": " A line\nof context. "}
    generator = CachedGenerator(opened(), tmp_path / "answers.jsonl")
    lines = write_contexts(documents, generator, workers=4)
    assert lines == [("A line of context.",) * 2] * 10
    assert (generator.usage.calls, generator.usage.spent) == (20, Tokens(20_000, 240, 18_000))
    assert len(endpoint.requests) == 23
    again = CachedGenerator(opened(), tmp_path / "answers.jsonl")
    assert write_contexts(documents, again) == lines
    assert (again.usage.calls, again.usage.cached_answers) == (0, 20)
    assert len(endpoint.requests) == 23
    assert KEY not in (tmp_path / "answers.jsonl").read_text(encoding="utf-8")


def test_one_generator_serves_many_threads(opened: Opener) -> None:
    generator = opened()
    prompts = [f"say {number}" for number in range(40)]
    with ThreadPoolExecutor(8) as pool:
        assert [answer.text for answer in pool.map(generator.generate, prompts)] == [str(n) for n in range(40)]
