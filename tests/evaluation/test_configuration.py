"""Configurations: what is written is read again as it was, and what is no configuration is refused in words."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxindex.config import SETTINGS
from ctxindex.errors import ConfigError
from ctxindex.evaluation.configuration import PREFIXES, RANKERS, WINDOWED, Configuration, Prefix, parse_configurations
from ctxindex.indexing.options import IndexOptions

ALLOWED = [
    name
    for name in IndexOptions.names()
    if name not in ("method", "chunker", "chunk_size", "chunk_unit", "chunk_overlap")
]
VALUES: dict[type, st.SearchStrategy[Any]] = {
    bool: st.booleans(),
    int: st.integers(0, 9999),
    float: st.floats(0, 1),
    str: st.text("abc./=-_ é:", min_size=1, max_size=12).map(str.strip).filter(bool),
}
PREFIXED: list[tuple[str, Prefix | None]] = [(one, prefix) for one in ("bm25", "independent") for prefix in PREFIXES]
METHODS = st.sampled_from([*((method, None) for method in (*RANKERS, "stored")), *PREFIXED])


@st.composite
def configurations(draw: st.DrawFn) -> Configuration:
    method, prefix = draw(METHODS)
    if method in ("bm25", "stored"):
        return Configuration(method, prefix)
    names = draw(st.lists(st.sampled_from(ALLOWED), unique=True, max_size=4))
    nameless = bool(names) and prefix is None and draw(st.booleans())
    settings = {
        name: draw(VALUES[SETTINGS[name]] | st.just("model") if name == "max_tokens" else VALUES[SETTINGS[name]])
        for name in names
    }
    return Configuration(None if nameless else method, prefix, settings)


def names(text: str) -> list[str]:
    return [one.name for one in parse_configurations([text])]


@given(configuration=configurations())
def test_what_is_written_is_read_as_it_was(configuration: Configuration) -> None:
    (found,) = parse_configurations([configuration.name])
    assert found == configuration
    assert found.name == configuration.name
    assert {name: type(value) for name, value in found.settings.items()} == {
        name: type(value) for name, value in configuration.settings.items()
    }


@given(several=st.lists(configurations(), min_size=1, max_size=5))
def test_a_methods_name_begins_the_next_configuration(several: list[Configuration]) -> None:
    expected = [one for number, one in enumerate(several) if one not in several[:number] and one.method]
    if expected:
        assert parse_configurations([",".join(one.name for one in expected)]) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("late", [Configuration("late")]),
        ("bm25,late,anchor=64", [Configuration("bm25"), Configuration("late", None, {"anchor": 64})]),
        ("model=./tuned", [Configuration(None, None, {"model": "./tuned"})]),
        ("model=a=b,late", [Configuration(None, None, {"model": "a=b"}), Configuration("late")]),
        ("late,anchor-title", [Configuration("late", None, {"anchor_title": True})]),
        ("late,anchor_title=no", [Configuration("late", None, {"anchor_title": False})]),
        (" late , max-tokens=model , blend=0.50", [Configuration("late", None, {"max_tokens": "model", "blend": 0.5})]),
        ("independent+title", [Configuration("independent", "title")]),
        ("contextual,dims=64", [Configuration("independent", "context", {"dims": 64})]),
        ("bm25+headings,stored", [Configuration("bm25", "headings"), Configuration("stored")]),
    ],
)
def test_the_grammar(text: str, expected: list[Configuration]) -> None:
    assert parse_configurations([text]) == expected


def test_each_text_begins_a_new_configuration() -> None:
    found = parse_configurations(["model=a", "model=b", "late"])
    assert [one.name for one in found] == ["model=a", "model=b", "late"]
    assert parse_configurations([]) == []


@pytest.mark.parametrize("name", RANKERS)
def test_every_baseline_is_a_configuration(name: str) -> None:
    assert names(name) == [name]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "latest",
            r"'latest' is no method: did you mean late\? Methods are bm25, late, late-int",
        ),
        ("latest", r"bm25 and independent may be followed by \+title or \+headings or \+context"),
        ("contextual+title", r"'contextual\+title' is no method: did you mean contextual\?"),
        ("anchor+title", r"'anchor\+title' is no method: Methods are bm25"),
        ("late+title", r"'late\+title' is no method: only bm25 and independent take one of \+title or \+head"),
        ("bm25+", r"'bm25\+' is no method: \+ is none of \+title or"),
        ("bm25+footer", r"'bm25\+footer' is no method: \+footer is none of \+title"),
        ("stored+title", r"'stored\+title' is no method: only"),
        ("", "'': there is nothing between two commas, or at an end"),
        ("late,,bm25", "'late,,bm25': there is nothing between two commas"),
        ("late,", "'late,': there is nothing"),
        ("late,=5", "'late,=5': there is nothing"),
        ("late,chunk-size=64", "'late,chunk-size=64': all configurations rank the same chunks, so --chunk-size is"),
        ("late,chunk_unit=chars", "so --chunk-unit is given once, by itself"),
        ("late,depth=5", r"depth is neither a method nor a setting \(model, max-tokens, dtype"),
        ("late,method=late", "method is neither a method nor a setting"),
        ("late,device=cpu", "device is neither a method nor a setting"),
        ("late,device", "device is neither a method nor a setting"),
        ("late,anchor=1,anchor=1", "'late,anchor=1,anchor=1': anchor is given twice"),
        ("bm25,anchor=1", "'bm25,anchor=1': bm25 reads no model, so anchor says nothing to it"),
        ("stored,model=a", "'stored,model=a': stored reads no model, so model says nothing to it"),
        ("late,anchor", "'late,anchor': anchor needs a value, as in anchor=…"),
        ("late,model=", "'late,model=': model needs a value, as in model=…"),
        ("late,anchor=x", "'late,anchor=x': anchor must be a whole number, not 'x'"),
        ("late,blend=x", "'late,blend=x': blend must be a number, not 'x'"),
        ("late,anchor-title=x", "'late,anchor-title=x': anchor_title must be true or false, not 'x'"),
        ("late,bm25,late", "the configuration late is given twice"),
        ("late,anchor=1,dims=2,late,dims=2,anchor=1", "the configuration late,dims=2,anchor=1 is given twice"),
    ],
)
def test_what_is_no_configuration_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_configurations([text])


def test_two_texts_may_not_say_the_same() -> None:
    with pytest.raises(ConfigError, match=r"the configuration independent\+context is given twice"):
        parse_configurations(["contextual", "independent+context"])


def test_settings_of_all_go_where_nothing_is_said() -> None:
    settings, common = {"anchor": 64, "blend": 0.5}, {"model": "m", "dims": 8}
    late, own, alone, words, held, default = parse_configurations(
        ["late", "late,anchor=8", "independent,dims=4", "bm25", "stored", "dims=4"]
    )
    assert late.over(settings, common) == Configuration("late", None, settings, common)
    assert own.over(settings, common) == Configuration("late", None, {"anchor": 8, "blend": 0.5}, common)
    assert alone.over(settings, common) == Configuration("independent", None, {"dims": 4}, common), "it has no windows"
    assert default.over(settings, common) == Configuration(None, None, {**settings, "dims": 4}, common)
    assert words.over(settings, common) is words
    assert held.over(settings, common) is held
    assert own.settings == {"anchor": 8}, "the configuration itself stays"
    off = Configuration("late", None, {"anchor_title": False})
    assert off.over({"anchor_title": True}, {}).settings == {"anchor_title": False}


def test_what_is_common_to_all_is_not_part_of_a_name_and_gives_way() -> None:
    one = Configuration("late", None, {"dims": 4}, {"model": "m", "dims": 8})
    assert one.name == "late,dims=4"
    assert one.options() == IndexOptions(method="late", model="m", dims=4)


def test_settings_with_windows_are_settings() -> None:
    assert set(WINDOWED) < set(ALLOWED)


def test_settings_are_those_of_an_index() -> None:
    options = parse_configurations(["late,anchor=8,model=m,anchor-title"])[0].options()
    assert options == IndexOptions(method="late", anchor=8, model="m", anchor_title=True)
    assert parse_configurations(["dims=4"])[0].options().method is None


def test_what_a_configuration_is_called() -> None:
    assert Configuration().name == "default"
    assert Configuration("late", None, {"anchor_title": False}).name == "late,anchor-title=false"
    assert Configuration("late", None, {"anchor_title": True, "blend": 0.5}).name == "late,anchor-title,blend=0.5"
    assert Configuration(None, None, {"anchor": 1}).method_name == "default"
    assert Configuration("independent", "context", {"dims": 4}).method_name == "independent+context"
    assert [one.needs_model for one in parse_configurations(["bm25+title,stored,late,independent", "dims=4"])] == [
        False,
        False,
        True,
        True,
        True,
    ]
