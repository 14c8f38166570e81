"""The commands that a training ends with: they run as they stand, on what was trained as it was trained."""

from __future__ import annotations

import shlex
from dataclasses import replace

import click
import pytest

from ctxindex.cli.eval import command as eval_cli
from ctxindex.cli.ingest import command as ingest_cli
from ctxindex.cli.search import command as search_cli
from ctxindex.encoding import EncoderOptions
from ctxindex.evaluation.configuration import parse_configurations
from ctxindex.indexing import IndexOptions
from ctxindex.spec import ChunkerSpec
from ctxindex.training.plan import Plan
from ctxindex.training.results.usage import chunk_flags, eval_command, ingest_command, search_command

USUAL = IndexOptions().chunker_spec()
PLAN = Plan("minilm", EncoderOptions(method="late", anchor=0, anchor_title=True, blend=0.6, isolated="opening"), USUAL)


def parsed(line: str, command: click.Command) -> dict[str, object]:
    program, _, *arguments = shlex.split(line)
    assert program == "ctxindex"
    with command.make_context("x", arguments) as context:
        return context.params


def test_documents_go_into_an_index_of_their_own() -> None:
    line = ingest_command("out/my model", PLAN, ["a b"], ["--root ."])
    found = parsed(line, ingest_cli)
    assert (found["model"], found["index"], found["root"]) == ("out/my model", "my-model", ".")
    assert found["paths"] == ("a b",)
    assert parsed(search_command("out/my model"), search_cli)["index"] == "my-model"
    assert ingest_command("tuned", PLAN) == "ctxindex ingest DOCS --model tuned --index tuned"


@pytest.mark.parametrize(
    ("spec", "flags"),
    [
        (USUAL, []),
        (replace(USUAL, size=64), ["--chunk-size 64"]),
        (
            ChunkerSpec("recursive", 500, "chars", 20),
            ["--chunker recursive", "--chunk-size 500", "--chunk-unit chars", "--chunk-overlap 20"],
        ),
    ],
)
def test_chunks_are_cut_as_they_were(spec: ChunkerSpec, flags: list[str]) -> None:
    assert chunk_flags(spec) == flags
    found = parsed(ingest_command("tuned", replace(PLAN, chunker=spec)), ingest_cli)
    given = {name: found[name] for name in ("chunker", "chunk_size", "chunk_unit", "chunk_overlap")}
    assert IndexOptions(**given).chunker_spec() == spec  # type: ignore[arg-type]


def test_the_base_is_compared_alone_and_in_context() -> None:
    found = parsed(eval_command("tuned", PLAN, "set"), eval_cli)
    assert (found["datasets"], found["model"], found["methods"]) == (("set",), "minilm", ("independent",))
    context, tuned = parse_configurations(found["compare"])  # type: ignore[arg-type]
    assert context.method == "late"
    assert context.settings == {"anchor": 0, "anchor_title": True, "blend": 0.6, "isolated": "opening"}
    assert tuned.settings == {"model": "tuned"}
    assert "--compare late --compare model=tuned" in eval_command("tuned", PLAN, "set", trained=True)
    colbert = replace(PLAN, encoder=EncoderOptions(method="late-interaction"))
    assert "--method late-interaction --compare model=tuned" in eval_command("tuned", colbert)
    corpus = replace(PLAN, encoder=EncoderOptions(method="cde"))
    assert "--method independent --compare late --compare model=tuned" in eval_command("tuned", corpus)
