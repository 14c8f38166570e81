"""The cache of answers: nothing is asked twice, nothing paid for is lost, and the bill is right."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ctxindex.errors import GenerationError, UnreachableError, UsageError
from ctxindex.llm import CachedGenerator, Generation, Price, TextGenerator, Tokens, Usage, estimate_tokens
from tests.conftest import REPOSITORY
from tests.fake_generator import FakeGenerator


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "some" / "folder" / "answers.jsonl"


class CountingGenerator:
    """Answers with counts that an endpoint would give."""

    name = "counting"

    def generate(self, prompt: str) -> Generation:
        return Generation(prompt.upper(), 100, 10, cached_tokens=80, estimated=prompt == "guess")


def test_nothing_is_asked_twice(file: Path) -> None:
    fake = FakeGenerator()
    generator: TextGenerator = CachedGenerator(fake, file)
    first = generator.generate("one")
    assert generator.generate("one") == first
    assert generator.name == "fake"
    again = CachedGenerator(fake, file)
    assert again.generate("one") == first
    assert fake.prompts == ["one"]
    assert again.file == file


def test_another_model_or_setting_is_another_answer(file: Path) -> None:
    answers = [
        CachedGenerator(FakeGenerator(lambda prompt, name=name: name, name=name), file).generate("one").text  # type: ignore[misc]
        for name in ("a", "b", "a")
    ]
    assert answers == ["a", "b", "a"]
    # Name and prompt are kept apart.
    assert CachedGenerator(FakeGenerator(lambda _: "c", name="a o"), file).generate("ne").text == "c"
    assert len(file.read_text(encoding="utf-8").splitlines()) == 3


def test_a_higher_limit_asks_again_only_for_what_the_lower_one_may_have_cut_off(file: Path) -> None:
    answers = {
        "whole": Generation("whole", 5, 49),
        "cut off": Generation("cut", 5, 50),
        "empty": Generation("", 5, 10),
        "guessed": Generation("guessed", 5, 10, estimated=True),
        "uncounted": Generation("uncounted", 5, 0),
    }

    class Limited:
        def __init__(self, name: str) -> None:
            self.name, self.prompts = name, list[str]()

        def generate(self, prompt: str) -> Generation:
            self.prompts.append(prompt)
            return answers[prompt]

    def asked(name: str) -> list[str]:
        limited = Limited(name)
        cached = CachedGenerator(limited, file)
        assert [cached.generate(prompt) for prompt in answers] == list(answers.values())
        assert (cached.usage.calls, cached.usage.cached_answers) == (len(limited.prompts), 5 - len(limited.prompts))
        return limited.prompts

    name = "m temperature=0.0 max_tokens={} seed=1".format
    assert asked(name(50)) == list(answers)
    assert asked(name(50)) == []
    assert asked(name(200)) == ["cut off", "empty", "guessed", "uncounted"]
    assert asked(name(300)) == ["empty", "guessed", "uncounted"]
    assert asked(name(40)) == list(answers), "a lower limit may cut off what a higher one did not"
    assert asked(name(300)) == []
    for other in (
        "m temperature=0.5 max_tokens=300 seed=1",
        "m temperature=0.0 max_tokens=300",
        "n max_tokens=300",
        "m",
    ):
        assert asked(other) == list(answers)


def test_usage_tells_what_was_spent_from_what_was_there(file: Path) -> None:
    generator = CachedGenerator(CountingGenerator(), file)
    for prompt in ("one", "two", "one"):
        generator.generate(prompt)
    assert generator.usage == Usage(2, 1, Tokens(200, 20, 160), Tokens(100, 10, 80))
    later = CachedGenerator(CountingGenerator(), file)
    later.generate("two")
    assert later.usage == Usage(0, 1, Tokens(), Tokens(100, 10, 80))
    later.generate("guess")
    assert later.usage.estimated
    latest = CachedGenerator(CountingGenerator(), file)
    latest.generate("guess")
    assert latest.usage == Usage(0, 1, Tokens(), Tokens(100, 10, 80), estimated=True)


def test_prices_are_per_million() -> None:
    assert Price(0.5, 2.0).cost(Tokens(2_000_000, 500_000, 1_000_000)) == pytest.approx(2.0)
    assert Price(0.5, 2.0, cached=0.1).cost(Tokens(2_000_000, 500_000, 1_000_000)) == pytest.approx(1.6)
    assert Price(0.5, 2.0).cost(Tokens()) == 0.0


def test_tokens_are_estimated_from_characters() -> None:
    assert [estimate_tokens(chars) for chars in (0, 1, 4, 5, 400)] == [0, 1, 1, 2, 100]


def test_a_failure_is_not_kept(file: Path) -> None:
    fake = FakeGenerator(fail_after=0)
    generator = CachedGenerator(fake, file)
    with pytest.raises(GenerationError, match="refused"):
        generator.generate("one")
    assert generator.usage == Usage()
    fake.fail_after = None
    assert generator.generate("one").text.startswith("About")


@pytest.mark.parametrize("text", ["", 'quotes " and \\', "lines\r\n\u2028 and \x00", "漢字 🙂", "half a pair \ud83d"])
def test_any_text_comes_back_as_it_was(text: str, file: Path) -> None:
    assert CachedGenerator(FakeGenerator(lambda _: text), file).generate("x").text == text
    assert CachedGenerator(FakeGenerator(fail_after=0), file).generate("x").text == text
    assert CachedGenerator(FakeGenerator(lambda prompt: prompt + "."), file).generate(text).text == text + "."


def test_a_file_cut_off_anywhere_keeps_the_lines_before_and_heals(file: Path) -> None:
    generator = CachedGenerator(FakeGenerator(lambda prompt: f"ä {prompt}"), file)
    for prompt in ("one", "two"):
        generator.generate(prompt)
    whole = file.read_bytes()
    begin = whole.index(b"\n") + 1
    for end in (*range(begin + 1), *range(begin, len(whole) + 1)):
        file.write_bytes(whole[:end])
        fake = FakeGenerator(lambda prompt: f"ä {prompt}")
        healed = CachedGenerator(fake, file)
        assert [healed.generate(prompt).text for prompt in ("one", "two")] == ["ä one", "ä two"]
        there = (end >= begin - 1) + (end >= len(whole) - 1)
        assert len(fake.prompts) == 2 - there
        reopened = CachedGenerator(FakeGenerator(fail_after=0), file)
        assert [reopened.generate(prompt).text for prompt in ("one", "two")] == ["ä one", "ä two"]


def test_damaged_lines_are_asked_for_again(file: Path) -> None:
    generator = CachedGenerator(FakeGenerator(), file)
    for prompt in ("one", "two", "three"):
        generator.generate(prompt)
    first, second, third = file.read_bytes().splitlines()
    damaged = json.loads(second)
    del damaged["text"]
    file.write_bytes(b"\n".join([first, json.dumps(damaged).encode(), b"\xff\x00", b"[]", b"", third]))
    fake = FakeGenerator()
    reopened = CachedGenerator(fake, file)
    for prompt in ("one", "two", "three"):
        reopened.generate(prompt)
    assert fake.prompts == ["two"]


KILLED = """
import sys
from ctxindex.llm import CachedGenerator, Generation

class Endless:
    name = "endless"

    def generate(self, prompt):
        return Generation("word " * 5000, 1, 1)

generator = CachedGenerator(Endless(), sys.argv[1])
for number in range(1_000_000):
    generator.generate(str(number))
    print(number, flush=True)
"""


def test_a_killed_process_loses_nothing_it_had_answered(file: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(file)], stdout=subprocess.PIPE, text=True, cwd=REPOSITORY
    ) as process:
        assert process.stdout is not None
        for _ in range(20):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        answered = 20 + len(process.stdout.read().split())
    generator = CachedGenerator(FakeGenerator(fail_after=0, name="endless"), file)
    for number in range(answered):
        assert generator.generate(str(number)).text == "word " * 5000


def test_threads_share_it(file: Path) -> None:
    fake = FakeGenerator(seconds=0.001)
    generator = CachedGenerator(fake, file)
    prompts = [str(number % 50) for number in range(400)]
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(generator.generate, prompts))
    # Those who asked the same at the same time were given one answer.
    assert sorted(fake.prompts) == sorted(set(prompts))
    assert (generator.usage.calls, generator.usage.cached_answers) == (50, 350)
    assert len(file.read_bytes().splitlines()) == 50
    reopened = CachedGenerator(FakeGenerator(fail_after=0), file)
    assert [reopened.generate(prompt) for prompt in prompts] == answers


def test_threads_do_not_wait_for_one_another(file: Path) -> None:
    generator = CachedGenerator(FakeGenerator(seconds=0.3), file)
    begin = time.perf_counter()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(generator.generate, "abcdefgh"))
    assert time.perf_counter() - begin < 1.2  # one after the other, 2.4 seconds


def test_two_caches_may_add_to_one_file(file: Path) -> None:
    one, two = (CachedGenerator(FakeGenerator(), file) for _ in range(2))
    with ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit((one, two)[number % 2].generate, str(number)) for number in range(200)]
    assert all(job.result() for job in jobs)
    reopened = CachedGenerator(FakeGenerator(fail_after=0), file)
    assert all(reopened.generate(str(number)).text for number in range(200))


@pytest.mark.parametrize("content", [b"a diary\n", b'{"doc_id": "a", "text": "b"}\n', b"\x00\x01"])
def test_a_file_of_something_else_is_refused_and_left_alone(content: bytes, tmp_path: Path) -> None:
    other = tmp_path / "other.jsonl"
    other.write_bytes(content)
    with pytest.raises(UsageError, match=r"other\.jsonl is not a file of answers"):
        CachedGenerator(FakeGenerator(), other)
    assert other.read_bytes() == content


def test_a_place_that_cannot_be_written_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be kept"):
        CachedGenerator(FakeGenerator(), tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot be kept"):
        CachedGenerator(FakeGenerator(), tmp_path / "file" / "answers.jsonl")


def test_a_disk_that_fails_later_is_told(file: Path) -> None:
    generator = CachedGenerator(FakeGenerator(), file)
    file.unlink()
    file.mkdir()
    with pytest.raises(UnreachableError, match=r"cannot be kept in .*answers\.jsonl: Is a directory"):
        generator.generate("one")
    assert generator.usage.calls == 1  # it was paid for
