from __future__ import annotations

from pathlib import Path

import pytest

from ctxindex.config import Settings
from ctxindex.errors import ConfigError


def write(folder: Path, text: str, name: str = "ctxindex.toml") -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder


def test_the_order_is_flag_variable_file_default(tmp_path: Path) -> None:
    write(tmp_path, 'store = "lancedb"\nindex = "file"\nmodel = "file"\n')
    settings = Settings({"index": "flag", "url": None}, {"CTXINDEX_INDEX": "env", "CTXINDEX_MODEL": "env"}, tmp_path)
    found = {name: (settings.find(name).value, settings.find(name).origin) for name in ("index", "model", "store")}
    assert found == {
        "index": ("flag", "--index"),
        "model": ("env", "CTXINDEX_MODEL"),
        "store": ("lancedb", str(tmp_path / "ctxindex.toml")),
    }
    assert settings.find("url").value is None
    assert settings.get("url", "nowhere") == "nowhere"


def test_a_file_is_found_upwards_and_its_path_is_relative_to_it(tmp_path: Path) -> None:
    write(tmp_path, 'path = "db"\nchunk-size = 64\n')
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    settings = Settings({}, {}, below)
    assert settings.get("path") == str(tmp_path / "db")
    assert settings.get("chunk_size") == 64


def test_a_pyproject_file_does_as_well_if_it_has_our_table(tmp_path: Path) -> None:
    write(tmp_path, '[tool.ctxindex]\nindex = "outer"\n', "pyproject.toml")
    below = tmp_path / "package"
    below.mkdir()
    write(below, "[tool.ruff]\nline-length = 1\n", "pyproject.toml")
    assert Settings({}, {}, below).get("index") == "outer"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("chunksize = 3", "there is no setting chunksize"),
        ('chunk_size = "many"', "whole number"),
        ("chunk_size = true", "whole number"),
        ("store = 3", "must be text"),
        ('blend = "half"', "blend must be a number"),
        ("blend = true", "blend must be a number"),
        ("anchor_title = 2", "must be true or false"),
        ("store = ", "cannot read"),
    ],
)
def test_a_file_that_is_wrong_is_named(tmp_path: Path, text: str, complaint: str) -> None:
    write(tmp_path, text)
    with pytest.raises(ConfigError, match=complaint) as error:
        Settings({}, {}, tmp_path).get(text.split(" ")[0])
    assert "ctxindex.toml" in str(error.value)


def test_a_variable_that_is_no_number_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="CTXINDEX_CHUNK_SIZE"):
        Settings({}, {"CTXINDEX_CHUNK_SIZE": "big"}, tmp_path).get("chunk_size")


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("blend", "0.25", 0.25),
        ("blend", "0", 0.0),
        ("anchor", "64", 64),
        ("anchor_title", "true", True),
        ("anchor_title", "1", True),
        ("anchor_title", "False", False),
        ("force_mean", "0", False),
        ("max_tokens", "model", "model"),
    ],
)
def test_variables_are_read_as_their_type(tmp_path: Path, name: str, text: str, value: object) -> None:
    found = Settings({}, {f"CTXINDEX_{name.upper()}": text}, tmp_path).get(name)
    assert found == value
    assert type(found) is type(value)


def test_a_file_has_numbers_and_flags_of_its_own(tmp_path: Path) -> None:
    write(tmp_path, "blend = 1\nanchor-title = false\n")
    settings = Settings({"anchor": 3}, {}, tmp_path)
    assert [settings.get(name) for name in ("blend", "anchor_title", "anchor")] == [1.0, False, 3]
