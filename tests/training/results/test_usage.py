"""The commands that a training ends with: they run as they stand, on what was trained as it was trained."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import click
import pytest

from ctxindex.cli.eval import command as eval_cli
from ctxindex.cli.ingest import command as ingest_cli
from ctxindex.cli.search import command as search_cli
from ctxindex.encoding import EncoderOptions, open_checkpoint
from ctxindex.encoding.cde.folder import make_native_cde
from ctxindex.encoding.options import make_spec
from ctxindex.encoding.trained import TrainedSettings, write_settings
from ctxindex.evaluation.configuration import parse_configurations
from ctxindex.indexing import IndexOptions
from ctxindex.spec import ChunkerSpec
from ctxindex.stores.registry import check_index_name
from ctxindex.training.contextual.context import ContextDropout
from ctxindex.training.contextual.options import ContextualOptions
from ctxindex.training.plan import Plan
from ctxindex.training.results.usage import base_in_context, chunk_flags, eval_command, ingest_command, search_command
from tests.encoding.tiny import save_sentence_transformer

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


@pytest.mark.parametrize(
    ("base", "options", "context"),
    [
        ("plain", PLAN.encoder, "late,anchor=0,anchor-title,blend=0.6,isolated=opening"),
        ("plain", EncoderOptions(method="cde"), "late"),
        ("plain", EncoderOptions(method="cde", windows="chunk"), None),
        ("trained", PLAN.encoder, "late"),
        ("trained", EncoderOptions(method="cde"), "late"),
        ("corpus", EncoderOptions(method="cde", anchor=8), "cde,anchor=8"),
    ],
)
def test_the_base_is_compared_as_it_is_read_in_context(
    tmp_path: Path, base: str, options: EncoderOptions, context: str | None
) -> None:
    """The configurations are taken by the model: each is opened."""
    folder = save_sentence_transformer(tmp_path / "plain")
    if base == "trained":
        write_settings(folder, TrainedSettings("late", blend=0.5))
    elif base == "corpus":
        folder = make_native_cde(str(folder), tmp_path / "corpus")
    checkpoint = open_checkpoint(str(folder))
    assert base_in_context(checkpoint, options) == context
    line = eval_command("tuned", replace(PLAN, encoder=options), "set", context=context)
    found = parsed(line, eval_cli)
    assert (found["datasets"], found["model"]) == (("set",), "minilm")
    named = [*found["methods"], *found["compare"]]  # type: ignore[misc]
    own = ["model=tuned,context=null"] if options.method == "cde" else []
    assert named == [*([] if context is None else [context]), "independent", "model=tuned", *own]
    *contexts, alone, tuned = parse_configurations(named[: len(named) - len(own)])
    assert (alone.method, tuned.settings) == ("independent", {"model": "tuned"})
    for one in contexts:
        make_spec(checkpoint, replace(one.options().encoder_options("cpu"), dtype="float32"))


def test_a_control_is_used_without_a_corpus(tmp_path: Path) -> None:
    never = ContextualOptions(dropout=ContextDropout(0.0, 1.0))
    control = replace(PLAN, encoder=EncoderOptions(method="cde"), contextual=never)
    assert parsed(ingest_command("tuned", control), ingest_cli)["context"] == "null"
    line = eval_command("tuned", control, context="late")
    assert line.endswith("--compare independent --compare model=tuned,context=null")
    assert "--method cde,anchor=8,context=null " in eval_command("tuned", control, context="cde,anchor=8")
    (tuned,) = parse_configurations(["model=tuned,context=null"])
    make_native_cde(str(save_sentence_transformer(tmp_path / "plain")), tmp_path / "tuned")
    checkpoint = open_checkpoint(str(tmp_path / "tuned"))
    make_spec(checkpoint, replace(tuned.options().encoder_options("cpu"), dtype="float32"))
    assert "context" not in ingest_command("tuned", replace(PLAN, contextual=never))


def test_late_interaction_reads_a_chunk_alone_in_a_window_of_its_own() -> None:
    colbert = replace(
        PLAN, encoder=EncoderOptions(method="late-interaction", pool_factor=2, skiplist="model", anchor=8)
    )
    line = eval_command("tuned", colbert, context="late-interaction")
    compared = "--compare late-interaction,windows=chunk,pool-factor=2,skiplist=model --compare model=tuned"
    assert line == f"ctxindex eval OTHER-SET --model minilm --method late-interaction {compared}"


@pytest.mark.parametrize("folder", ["my model", "a__b", "x" * 200, "...", "né"])
def test_an_index_is_called_after_the_folder_as_stores_allow(folder: str) -> None:
    name = str(parsed(search_command(f"out/{folder}"), search_cli)["index"])
    check_index_name(name)
