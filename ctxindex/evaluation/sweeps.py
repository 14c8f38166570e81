"""Curves: the same evaluation with one thing varied.

    chunk-size     documents cut again at each size
    corpus-size    random sub-corpora; one seed's are nested, and the queries asked are the same at each size
    lambda         a family of checkpoints, trained with different weights of the in-sequence loss

A sub-corpus always holds all documents that answer the queries asked, so all that grows with it is the number of wrong
ones. The curves are those of "Context is Gold to find the Gold Passage", arXiv 2505.24782.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import numpy as np

from ctxindex.errors import ConfigError
from ctxindex.evaluation.configuration import Configuration
from ctxindex.evaluation.corpus import Corpus
from ctxindex.evaluation.results import SweepPoint

SweepName: TypeAlias = Literal["chunk-size", "corpus-size", "lambda"]
SWEEPS: tuple[SweepName, ...] = get_args(SweepName)

CHUNK_SIZES = {"tokens": (32, 64, 128, 256), "chars": (125, 250, 500, 1000)}
SHARES = (1 / 8, 1 / 4, 1 / 2, 1)
"""Of the documents of a corpus: the sub-corpora where no sizes are given."""

_log = logging.getLogger("ctxindex")

_FEWEST = 2
"""Documents of a sub-corpus."""

_LAMBDA = re.compile(r"lambda[-_=]?(\d*\.?\d+(?:e-?\d+)?)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Sweep:
    """What is varied: `values` are chunk sizes or numbers of documents, empty for the defaults; `models` are folders.

    `models` are those of the sweep `lambda` alone: (value, folder), ascending.
    """

    name: SweepName
    values: tuple[int, ...] = ()
    models: tuple[tuple[float, str], ...] = ()


def parse_sweep(text: str) -> Sweep:
    """The sweep that `NAME`, `NAME=V1,V2` or `lambda=FOLDER` asks for.

    Raises:
        ConfigError: it is none.
    """
    name, equals, value = text.partition("=")
    known = next((one for one in SWEEPS if one == name), None)
    if known is None:
        raise ConfigError(f"--sweep {text} is none of {', '.join(SWEEPS)}, as in --sweep chunk-size=64,128,256")
    if known == "lambda":
        if not value:
            raise ConfigError("--sweep lambda needs a folder of models: --sweep lambda=FOLDER, with FOLDER/lambda-0.1")
        return Sweep(known, models=_family(Path(value)))
    if equals and not re.fullmatch(r"\d+(,\d+)*", value):
        raise ConfigError(f"--sweep {text}: sizes are whole numbers, as in --sweep {name}=64,128,256")
    return Sweep(known, tuple(sorted({int(number) for number in value.split(",")})) if value else ())


def _family(folder: Path) -> tuple[tuple[float, str], ...]:
    if not folder.is_dir():
        raise ConfigError(f"--sweep lambda={folder}: there is no such folder")
    found: dict[float, str] = {}
    for inner in sorted(folder.iterdir()):
        match = _LAMBDA.fullmatch(inner.name) if inner.is_dir() else None
        if match is not None and found.setdefault(float(match[1]), str(inner)) != str(inner):
            raise ConfigError(f"--sweep lambda={folder}: two folders in it are called lambda-{match[1]}")
    if not found:
        raise ConfigError(f"--sweep lambda={folder}: no folder in it is called lambda-0.1 or the like")
    return tuple(sorted(found.items()))


def family_of(sweep: Sweep, configuration: Configuration) -> list[tuple[SweepPoint, Configuration]]:
    """The configuration with each model of the family."""
    return [
        (SweepPoint(sweep.name, value), replace(configuration, settings={**configuration.settings, "model": model}))
        for value, model in sweep.models
    ]


def sub_corpora(corpus: Corpus, sweep: Sweep, seeds: int) -> list[tuple[SweepPoint, Corpus]]:
    """Sub-corpora of each size, for each of the seeds 0 to `seeds` - 1.

    Raises:
        ConfigError: the smallest size holds the answers to no query.
    """
    total = len(corpus.documents)
    wanted = sweep.values or tuple(max(_FEWEST, round(share * total)) for share in SHARES)
    sizes = sorted({min(size, total) for size in wanted})
    if max(wanted) > total:
        _log.warning("%s has %d documents: larger sub-corpora are the whole", corpus.name, total)
    if sizes == [total]:
        seeds = 1
    found: list[tuple[SweepPoint, Corpus]] = []
    for seed in range(seeds):
        order, queries = _draw(corpus, sizes[0], seed)
        found += [(SweepPoint(sweep.name, size, seed), corpus.part(order[:size], queries)) for size in sizes]
    return found


def _draw(corpus: Corpus, smallest: int, seed: int) -> tuple[list[int], list[int]]:
    """An order of all documents, and the queries that its first `smallest` answer completely.

    Queries are drawn one after the other, with their documents, until no more documents fit; the place that is left
    goes to documents at random. So that sets whose queries are about few of their documents have queries to ask.
    """
    generator = np.random.default_rng(seed)
    answers = [set(corpus.gold_documents(query)) for query in range(len(corpus.queries))]
    first: dict[int, None] = {}
    for query in generator.permutation(len(answers)):
        if answers[query] and len(first) + len(answers[query] - first.keys()) <= smallest:
            first.update(dict.fromkeys(answers[query]))
    others = [int(number) for number in generator.permutation(len(corpus.documents)) if int(number) not in first]
    held = {*first, *others[: smallest - len(first)]}
    queries = [query for query, documents in enumerate(answers) if documents and documents <= held]
    if not queries:
        raise ConfigError(f"{corpus.name}: {smallest} documents answer no query: give larger sizes")
    return [*first, *others], queries


def chunk_sizes(sweep: Sweep, unit: Literal["tokens", "chars"]) -> Sequence[int]:
    """The sizes to cut at, in `unit`s."""
    return sweep.values or CHUNK_SIZES[unit]
