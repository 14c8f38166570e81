"""Options that commands share. None means "not given": variables, files, the index and defaults fill in later.

Options of a command with many are listed in sections, each with a sentence on when to use what is in it.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ctxindex.chunking import CHUNKERS
from ctxindex.errors import ConfigError
from ctxindex.spec import ISOLATED, JOINS, OWNERS, POOLINGS, SAMPLINGS, WINDOWS

if TYPE_CHECKING:
    from ctxindex.llm import Price

Command = TypeVar("Command", bound=Callable[..., Any])
Decorator = Callable[[Command], Command]

CHUNKS = "Chunks"
MODEL = "Model"
CORPUS = "Corpus context (method cde)"
CONTEXT = "Context (methods late, late-interaction and cde)"
INTERACTION = "Late interaction"
STORE = "Store"
SOURCES = "Sources"
LLM = "Language model (configurations with +context)"
WRITER = "Language model (pairs of the kind generated)"
TRAINING = "Training"

_ADVICE = {
    CONTEXT: "What a chunk is read with. A model that was trained for it, as minilm-insent, says this of itself. With "
    "another, for documents longer than it reads (512 tokens for MiniLM), try --anchor 64 --anchor-title first: they "
    "tell every window what its document is about.",
    LLM: "Reads each document once a chunk, which costs. Answers are kept in the cache folder and asked for only once.",
    WRITER: "Reads passages spread over each document and writes queries for them, which costs. Answers are kept in "
    "the cache folder and asked for only once.",
    TRAINING: "What the model knew before is kept by --hold, --replay and --merge; less memory is taken with "
    "--mini-batch-tokens, --gradient-checkpointing, --freeze-embeddings or --lora.",
}


class SectionedOption(click.Option):
    """An option that is listed in a section of the help."""

    def __init__(self, *args: Any, section: str, **kwargs: Any) -> None:
        self.section = section
        super().__init__(*args, **kwargs)


class SectionedCommand(click.Command):
    """A command whose help lists its own options first, then those of each section."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, section by section."""
        sections: dict[str, list[tuple[str, str]]] = {"Options": []}
        for parameter in self.get_params(ctx):
            if isinstance(parameter, click.Option) and (record := parameter.get_help_record(ctx)) is not None:
                sections.setdefault(getattr(parameter, "section", "Options"), []).append(record)
        for section, records in sections.items():
            with formatter.section(section):
                if section in _ADVICE:
                    formatter.write_text(_ADVICE[section])
                    formatter.write_paragraph()
                formatter.write_dl(records)


def _option(section: str, *names: str, **keywords: Any) -> Callable[[Command], Command]:
    return click.option(*names, cls=SectionedOption, section=section, **keywords)


def window_size(value: str) -> int | str:
    """The value of --max-tokens: a whole number, or "model"."""
    if value == "model":
        return value
    try:
        return int(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is neither a number nor the word model") from None


_CORPUS = (
    _option(
        CORPUS,
        "--context",
        metavar="corpus|null",
        help="What everything is read in: a sample of the documents, or nothing; eval also takes a DATASET.  "
        "[default: corpus]",
    ),
    _option(
        CORPUS,
        "--context-seed",
        type=click.IntRange(min=0),
        metavar="N",
        help="Draws the sample; another seed draws another one.  [default: 0]",
    ),
    _option(
        CORPUS,
        "--context-sampling",
        type=click.Choice(SAMPLINGS),
        help="One chunk of each document before a second of any, or chunks wherever they stand.  "
        "[default: by-document]",
    ),
)

_STORE = (
    _option(STORE, "--store", metavar="NAME|URI", help="lancedb (the default), qdrant, or a URI: lancedb:./folder."),
    _option(STORE, "--url", metavar="URL", help="Address of a served store; QDRANT_URL and QDRANT_API_KEY are read."),
    _option(STORE, "--index", metavar="NAME", help="Name of the index.  [default: default]"),
    _option(STORE, "--path", metavar="DIR", help="Folder of a local store.  [default: .ctxindex]"),
)

_DEVICE = (
    _option(MODEL, "--device", metavar="NAME", help="auto, cpu, cuda or mps.  [default: auto]"),
    _option(MODEL, "--threads", type=click.IntRange(min=1), metavar="N", help="Of a CPU.  [default: its processors]"),
)

_LOADING = (
    _option(SOURCES, "--include", multiple=True, metavar="GLOB", help="Of files in folders, take only these."),
    _option(SOURCES, "--exclude", multiple=True, metavar="GLOB", help="Of files in folders, leave out these."),
    _option(
        SOURCES, "--root", metavar="DIR", help="Folder that doc_ids are relative to.  [default: each path's own name]"
    ),
    _option(SOURCES, "--no-ignore", is_flag=True, help="Take also what .gitignore leaves out."),
    _option(
        SOURCES,
        "--max-chars",
        type=int,
        metavar="N",
        help="Most characters a document may have.  [default: 20,000,000]",
    ),
)

_CHUNKS = (
    _option(
        CHUNKS, "--chunk-size", type=int, metavar="N", help="Most a chunk may have, overlap included.  [default: 128]"
    ),
    _option(
        CHUNKS, "--chunk-unit", type=click.Choice(["tokens", "chars"]), help="What sizes count.  [default: tokens]"
    ),
    _option(
        CHUNKS, "--chunk-overlap", type=int, metavar="N", help="What a chunk repeats of the one before.  [default: 0]"
    ),
    _option(
        CHUNKS,
        "--chunker",
        type=click.Choice(CHUNKERS),
        help="Where to cut; markdown: never across a heading.  [default: markdown]",
    ),
)

_ENCODER = (
    _option(
        MODEL,
        "--max-tokens",
        type=window_size,
        metavar="N|model",
        help="Size of a window; model: what it was trained with.  [default: what it can read]",
    ),
    _option(MODEL, "--dims", type=int, metavar="N", help="Keep the first N numbers of a vector.  [default: all]"),
    _option(
        MODEL,
        "--dtype",
        metavar="NAME",
        help="float32, bfloat16, float16, or auto: the fastest here that keeps quality.  [default: auto]",
    ),
    _option(
        MODEL,
        "--force-mean",
        is_flag=True,
        default=None,
        help="Take means of token states although the model was not trained for them.",
    ),
    _option(
        CONTEXT,
        "--anchor",
        type=int,
        metavar="N",
        help="Begin each later window with the document's first N tokens.  [default: the model's own, or 0]",
    ),
    _option(
        CONTEXT,
        "--anchor-title/--no-anchor-title",
        default=None,
        help="Begin each window with the document's title.  [default: the model's own, or no]",
    ),
    _option(
        CONTEXT,
        "--blend",
        type=float,
        metavar="B",
        help="Weight of the vector of the chunk (late interaction: of each of its tokens) alone, 0 to less than 1; a "
        "second pass.  [default: the model's own, or 0]",
    ),
    _option(
        CONTEXT,
        "--isolated",
        type=click.Choice(ISOLATED),
        help="With --blend, the chunk alone, behind its title, or behind title or else opening.  [default: the "
        "model's own, or chunk]",
    ),
    _option(
        CONTEXT,
        "--join",
        type=click.Choice(JOINS),
        help="Chunks joined by separators, or the text as it stands.  [default: sep]",
    ),
    _option(
        CONTEXT,
        "--windows",
        type=click.Choice(WINDOWS),
        help="Of long documents; token-window: with --join raw; full: rotary models; chunk: each chunk alone, with "
        "--method late-interaction or cde (in the context of its corpus only).  [default: window]",
    ),
    _option(
        CONTEXT,
        "--window-overlap",
        type=int,
        metavar="N",
        help="Tokens read beyond a window's chunks.  [default: 1/32 of it; token-window: 1/4]",
    ),
    _option(
        CONTEXT,
        "--owner",
        type=click.Choice(OWNERS),
        help="centre gives a chunk to one window; first, mean: windows share chunks.  [default: centre]",
    ),
    _option(
        CONTEXT,
        "--pooling",
        type=click.Choice(POOLINGS),
        help="Which special tokens first and last chunk own; strict: none.  [default: strict]",
    ),
    _option(
        INTERACTION, "--pool-factor", type=int, metavar="N", help="Keep 1/N of the vectors of a chunk.  [default: 1]"
    ),
    _option(
        INTERACTION,
        "--skiplist",
        type=click.Choice(["none", "model"]),
        help="Leave out no tokens, or those that the model's files name.  [default: none]",
    ),
)


def _llm(section: str) -> tuple[Callable[[Any], Any], ...]:
    return (
        _option(section, "--llm", metavar="NAME", help="Who writes; the key is read from OPENAI_API_KEY."),
        _option(
            section, "--llm-url", metavar="URL", help="Of an endpoint that speaks OpenAI's protocol.  [default: OpenAI]"
        ),
        _option(
            section,
            "--llm-price",
            metavar="IN,OUT",
            help="Of a million prompt and completion tokens, to be told the cost.",
        ),
    )


def _all(options: tuple[Callable[[Any], Any], ...], command: Command) -> Command:
    for option in reversed(options):
        command = option(command)
    return command


def store_options(command: Command) -> Command:
    """--store, --url, --index and --path."""
    return _all(_STORE, command)


def chosen_store(settings: Mapping[str, Any]) -> list[str]:
    """The options of `store_options` that were given, to be repeated in the next command."""
    return [f"--{name} {shlex.quote(settings[name])}" for name in ("store", "url", "index", "path") if settings[name]]


def loading_options(command: Command) -> Command:
    """--include, --exclude, --root, --no-ignore and --max-chars: which documents paths give, and their doc_ids."""
    return _all(_LOADING, command)


def chosen_loading(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """The options of `loading_options` that were given, to be repeated in the next command."""
    found = [f"--{name} {shlex.quote(glob)}" for name in ("include", "exclude") for glob in settings[name]]
    found += [f"--root {shlex.quote(settings['root'])}"] if settings["root"] else []
    found += ["--no-ignore"] if settings["no_ignore"] else []
    return (*found, *([f"--max-chars {settings['max_chars']}"] if settings["max_chars"] else []))


def chunk_options(command: Command) -> Command:
    """--chunk-size, --chunk-unit, --chunk-overlap and --chunker: how documents are cut."""
    return _all(_CHUNKS, command)


def encoder_options(command: Command) -> Command:
    """What decides vectors besides model and method."""
    return _all(_ENCODER, command)


def corpus_options(command: Command) -> Command:
    """--context and what draws it: what corpus a CDE encoder reads in."""
    return _all(_CORPUS, command)


def device_option(command: Command) -> Command:
    """--device and --threads."""
    return _all(_DEVICE, command)


def llm_options(command: Command) -> Command:
    """--llm, --llm-url and --llm-price: the language model that writes contexts."""
    return _all(_llm(LLM), command)


def writer_options(command: Command) -> Command:
    """--llm, --llm-url and --llm-price: the language model that writes queries."""
    return _all(_llm(WRITER), command)


def parse_price(text: str | None) -> Price | None:
    """The value of --llm-price.

    Raises:
        ConfigError: it is not two numbers.
    """
    from ctxindex.llm import Price

    if text is None:
        return None
    try:
        prompt, completion = map(float, text.split(","))
    except ValueError:
        raise ConfigError(f"--llm-price {text}: a million prompt and completion tokens, as in 0.15,0.6") from None
    return Price(prompt, completion)


def json_option(command: Command) -> Command:
    """--json, passed on as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for scripts.")(command)


def model_option(text: str) -> Callable[[Command], Command]:
    """--model, with a help text that fits the command."""
    return _option(MODEL, "--model", metavar="NAME|DIR", help=text)


def new_model_option(command: Command) -> Command:
    """--model of a command that may make vectors of a new kind."""
    from ctxindex.encoding.known_models import MINILM, default_model

    names = ", ".join(dict.fromkeys((default_model(), MINILM)))
    text = f"{names}, a model folder, or owner/name on the hub.  [default: {default_model()}]"
    return model_option(text)(command)


def trust_option(command: Command) -> Command:
    """--trust-remote-code."""
    text = "Let Python code in the model's folder run, for models that bring their own."
    return _option(MODEL, "--trust-remote-code", is_flag=True, help=text)(command)
