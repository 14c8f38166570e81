"""What is compared: a method with its settings, and the words for it.

    late                      a method of ours, with the model's defaults
    late,anchor=64            with settings, by the names of the flags of `ingest`
    model=./tuned             another model, by its own method
    cde,context=null          without the corpus context; context=NAME with that of another dataset, or of documents
    independent+title         the document's title put before each chunk
    bm25+headings             title and heading path put before each chunk
    contextual                a line of context by a language model put before each chunk (independent+context)

A method's name begins a new configuration, so `bm25,late,anchor=64` is two.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Any, Literal, TypeAlias, get_args

from ctxindex.config import SETTINGS, typed
from ctxindex.errors import ConfigError
from ctxindex.indexing.options import IndexOptions
from ctxindex.spec import METHODS, NULL_CONTEXT

Prefix: TypeAlias = Literal["title", "headings", "context"]
"""What is put before each chunk."""

PREFIXES: tuple[Prefix, ...] = get_args(Prefix)
RANKERS = ("bm25", *METHODS)
"""The methods that rank chunks: ours, and BM25."""
STORED = "stored"
"""The vectors that an index holds, as they are."""

_ALIASES = {"contextual": "independent+context"}
_PREFIXED = ("bm25", "independent")
CHUNKING = ("chunker", "chunk_size", "chunk_unit", "chunk_overlap")
"""Settings of how documents are cut, which all configurations have in common."""

OF_THE_CORPUS = ("context", "context_seed", "context_sampling")
"""Settings of the method that reads a corpus context."""

WINDOWED = (
    "join",
    "pooling",
    "windows",
    "window_overlap",
    "owner",
    "anchor",
    "anchor_title",
    "blend",
    "isolated",
    "pool_factor",
    "skiplist",
    *OF_THE_CORPUS,
)
"""Settings of the methods that read chunks in their documents, or in their corpus."""

_ALLOWED = tuple(name for name in IndexOptions.names() if name not in (*CHUNKING, "method"))


@dataclass(frozen=True)
class Configuration:
    """A method, what it puts before each chunk, and settings other than the defaults, by name.

    `method` None is the model's own. `common` are settings that it shares with all others, and is not told apart by;
    those of its own go before them.
    """

    method: str | None = None
    prefix: Prefix | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    common: Mapping[str, Any] = field(default_factory=dict)

    @property
    def method_name(self) -> str:
        """Method and prefix, as they are written."""
        return "+".join([self.method or "default", *([self.prefix] if self.prefix else [])])

    @property
    def name(self) -> str:
        """The configuration as it is written."""
        given = [_written(name, value) for name, value in self.settings.items()]
        return ",".join([self.method_name, *given] if self.method or not given else given)

    @property
    def needs_model(self) -> bool:
        """Whether a model has to read the chunks."""
        return self.method not in ("bm25", STORED)

    def options(self) -> IndexOptions:
        """The settings as an index has them."""
        method: Any = self.method
        return IndexOptions(method=method, **{**self.common, **self.settings})

    def over(self, settings: Mapping[str, Any], common: Mapping[str, Any]) -> Configuration:
        """The same with `settings` and `common` where it says nothing itself, as far as they go with its method."""
        if not self.needs_model:
            return self
        fitting = {} if self.method == "independent" else dict(settings)
        unfit: tuple[str, ...] = () if self.method == "cde" else OF_THE_CORPUS
        if self.settings.get("context") == NULL_CONTEXT:  # there is no sample to draw
            unfit = OF_THE_CORPUS
        fitting = {name: value for name, value in fitting.items() if name not in unfit}
        return replace(self, settings={**fitting, **self.settings}, common=common)


def parse_configurations(texts: Sequence[str]) -> list[Configuration]:
    """The configurations that `texts` describe, in their order; each text begins a new one.

    Raises:
        ConfigError: something is neither a method nor a setting, or given twice.
    """
    found = [configuration for text in texts for configuration in _parse(text)]
    for number, configuration in enumerate(found):
        if configuration in found[:number]:
            raise ConfigError(f"the configuration {configuration.name} is given twice")
    return found


def distinct(configurations: Sequence[Configuration]) -> list[Configuration]:
    """Each once, where it comes first."""
    return [one for number, one in enumerate(configurations) if one not in configurations[:number]]


def _parse(text: str) -> Iterator[Configuration]:
    current: Configuration | None = None
    for part in text.split(","):
        name, equals, value = part.strip().partition("=")
        if not name:
            raise ConfigError(f"{text!r}: there is nothing between two commas, or at an end")
        method = None if equals else _method(name)
        if method is not None:
            if current is not None:
                yield current
            current = method
        else:
            current = _with_setting(current or Configuration(), name.replace("-", "_"), value if equals else None, text)
    if current is not None:
        yield current


def _method(name: str) -> Configuration | None:
    """The configuration that a method's name begins; None where it is no method's name."""
    method, plus, prefix = _ALIASES.get(name, name).partition("+")
    if method not in (*RANKERS, STORED):
        if plus or method.replace("-", "_") not in SETTINGS:
            methods = [*RANKERS, *_ALIASES]
            near = get_close_matches(name, methods, 1)
            meant = f"did you mean {near[0]}? " if near else ""
            raise ConfigError(
                f"{name!r} is no method: {meant}Methods are {', '.join(methods)}; {' and '.join(_PREFIXED)} may be "
                f"followed by{_suffixes()}"
            )
        return None
    if not plus:
        return Configuration(method)
    known = next((one for one in PREFIXES if one == prefix), None)
    if known is None:
        raise ConfigError(f"{name!r} is no method: +{prefix} is none of{_suffixes()}")
    if method not in _PREFIXED:
        raise ConfigError(f"{name!r} is no method: only {' and '.join(_PREFIXED)} take one of{_suffixes()}")
    return Configuration(method, known)


def _suffixes() -> str:
    return " " + " or ".join(f"+{one}" for one in PREFIXES)


def _with_setting(configuration: Configuration, name: str, value: str | None, text: str) -> Configuration:
    flag = name.replace("_", "-")
    if name not in _ALLOWED:
        if name in CHUNKING:
            raise ConfigError(
                f"{text!r}: all configurations rank the same chunks, so --{flag} is given once, by itself"
            )
        raise ConfigError(f"{text!r}: {flag} is neither a method nor a setting ({', '.join(map(_flag, _ALLOWED))})")
    if name in configuration.settings:
        raise ConfigError(f"{text!r}: {flag} is given twice")
    if not configuration.needs_model:
        raise ConfigError(f"{text!r}: {configuration.method} reads no model, so {flag} says nothing to it")
    if not value and SETTINGS[name] is not bool:
        raise ConfigError(f"{text!r}: {flag} needs a value, as in {flag}=…")
    typed_value = True if value is None else typed(name, value, repr(text))
    return replace(configuration, settings={**configuration.settings, name: typed_value})


def _flag(name: str) -> str:
    return name.replace("_", "-")


def _written(name: str, value: Any) -> str:
    return _flag(name) if value is True else f"{_flag(name)}={'false' if value is False else value}"
