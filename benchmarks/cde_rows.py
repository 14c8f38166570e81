"""What a corpus context gains: models of `recipes/train_minilm_cde.py` on sets whose documents resemble one another.

    python benchmarks/cde_rows.py DATA FOLDER [--row NAME …] [--reading NAME …] [--documents N] [--threads N]

FOLDER is where the recipe trained its rows, ROW-SEED each. Every model is read in the context of a sample of the set
itself, in that of another set, and in none (`READINGS`); beside them stand the model that all were trained from and
MiniLM on each chunk alone, which read no corpus (`BASES`). A figure that was measured of a row and seed is not measured
again; results go into `benchmarks/measured/cde.json`, from which `results.py` makes a table, with the mean and the
range of several seeds. Several processes may measure at once, each other rows.

`--documents` takes the first documents of each set, and the questions about them: all of `factbook-eval` take a quarter
of an hour for each reading. Every figure says of how many documents it is, and after how many steps of training; what
differs in either does not go into one table.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, TypedDict

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.corpus_context import ANOTHER, NONE, OWN
from ctxindex.chunking import load_chunker
from ctxindex.encoding import load_encoder, open_checkpoint
from ctxindex.encoding.known_models import MINILM, MINILM_INSENT
from ctxindex.evaluation.configuration import Configuration
from ctxindex.evaluation.corpus import Corpus, cut
from ctxindex.evaluation.datasets import open_dataset
from ctxindex.evaluation.evaluator import Evaluator
from ctxindex.training.parts import part
from ctxindex.training.running.folder import NAMED
from recipes import train_minilm_cde as recipe

MEASURED = Path(__file__).parent / "measured" / "cde.json"
SETS = ("factbook-eval", "medquad-eval-masked")
OTHER = {"factbook-eval": "medquad-eval-masked", "medquad-eval-masked": "factbook-eval"}
"""Whose sample stands in for that of a set."""

BASES = {
    "minilm: each chunk alone, no corpus": Configuration("independent", settings={"model": MINILM}),
    "minilm-insent: late chunking, no corpus": Configuration("late", settings={"model": MINILM_INSENT}),
}
"""What no corpus is read for: the model that was there before any training, and the one that all rows start from."""

READINGS: dict[str, dict[str, Any]] = {
    OWN: {},
    ANOTHER: {"context": ...},
    NONE: {"context": "null"},
    f"{OWN}, each chunk alone": {"windows": "chunk"},
}
"""How a model is read, as settings; `...` stands for the other set."""


class Figure(TypedDict):
    """An nDCG@10, of how many documents (None: of all of the set) and after how many steps (None: of no training)."""

    ndcg: float
    documents: int | None
    steps: int | None


@dataclass(frozen=True)
class Asked:
    """A line of the table, one seed of it: after how many steps of training, and how it is read on each set."""

    name: str
    seed: str
    steps: int | None
    configurations: Mapping[str, Configuration]


Figures: TypeAlias = Mapping[str, Mapping[str, Mapping[str, Figure]]]
"""By row and reading, then by seed, then by set."""


def score(configuration: Configuration, corpus: Corpus, threads: int | None, cache: Path | None) -> float:
    """nDCG@10 of a configuration on a set."""
    (run,) = Evaluator(threads=threads, cache=cache).run(configuration, [corpus])
    return run.metrics["ndcg@10"].mean


def reading(model: Path, name: str, other: Path) -> Configuration:
    """A model of the recipe, read in one of the contexts."""
    settings = {key: str(other) if value is ... else value for key, value in READINGS[name].items()}
    return Configuration("cde", settings={"model": str(model), **settings})


def table(found: Figures) -> list[dict[str, Any]]:
    """A row for each that was measured: what it is called, with its seeds, and the mean over them by set."""
    rows = []
    for name, seeds in found.items():
        columns: dict[str, list[float]] = {}
        for figures in seeds.values():
            for dataset, figure in figures.items():
                columns.setdefault(dataset, []).append(figure["ndcg"])
        means = {dataset: statistics.fmean(column) for dataset, column in columns.items()}
        several = [max(column) - min(column) for column in columns.values() if len(column) > 1]
        told = f" ({len(seeds)} seeds, apart by {100 * max(several):.1f} at most)" if several else ""
        rows.append({"name": f"{name}{told}", "ndcg@10": means})
    return rows


def read() -> dict[str, dict[str, dict[str, Figure]]]:
    """What was measured so far."""
    found: dict[str, dict[str, dict[str, Figure]]] = (
        json.loads(MEASURED.read_text(encoding="utf-8"))["seeds"] if MEASURED.exists() else {}
    )
    return found


def require_alike(found: Figures, documents: int | None, steps: int | None) -> None:
    """Check that a figure of so many documents, after so many steps, may stand beside those that were measured.

    Raises:
        SystemExit: it may not; the message says what to do.
    """
    for name, seeds in found.items():
        for seed, figures in seeds.items():
            for dataset, other in figures.items():
                apart = steps is not None and other["steps"] not in (None, steps)
                if apart or other["documents"] != documents:
                    raise SystemExit(
                        f"{name}, seed {seed}, {dataset} was measured {_of(other['documents'], other['steps'])}, and "
                        f"this would be {_of(documents, steps)}: measure alike, or put {MEASURED} away"
                    )


def _of(documents: int | None, steps: int | None) -> str:
    trained = "" if steps is None else f" after {steps} steps"
    return f"of {'all' if documents is None else f'the first {documents}'} documents{trained}"


def keep(name: str, seed: str, dataset: str, figure: Figure) -> None:
    """Put a figure beside those that are in the file by now, which may be more than when it was begun.

    Raises:
        SystemExit: as of `require_alike`.
    """
    with _alone():
        found = read()
        require_alike(found, figure["documents"], figure["steps"])
        found.setdefault(name, {}).setdefault(seed, {})[dataset] = figure
        _write(found)


@contextmanager
def _alone() -> Iterator[None]:
    """Keeps other processes from the file; the lock is a file of its own, since the other is replaced."""
    MEASURED.parent.mkdir(exist_ok=True)
    with MEASURED.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _write(found: Figures) -> None:
    """All that was measured so far, whole or not at all."""
    figures = [one for seeds in found.values() for sets in seeds.values() for one in sets.values()]
    steps = next((one["steps"] for one in figures if one["steps"] is not None), None)
    documents = figures[0]["documents"]
    long = "" if steps is None else f" for {steps} steps of {recipe.PAIRS} pairs"
    about = (
        f"Rows but the first two were trained from minilm-insent{long} (`recipes/train_minilm_cde.py`), with the first "
        "stage frozen, and are read in the context of 64 texts of the set itself, of the other set, or of none. `null` "
        "never had a context in training, so what the corpus context gains `clusters` is the difference to it; what "
        "the batches gain is `clusters` less `random` (`python benchmarks/cde_rows.py`)."
    )
    if documents is not None:
        about += f" Of each set the first {documents} documents, with the questions about them."
    values = {"about": about, "sets": SETS, "seeds": found, "runs": table(found)}
    partial = MEASURED.with_suffix(".tmp")
    partial.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    os.replace(partial, MEASURED)


def first(corpus: Corpus, documents: int | None) -> Corpus:
    """The first documents of a corpus, and what is asked about them."""
    return corpus if documents is None else part(corpus, range(min(documents, len(corpus.documents))))


def models(folder: Path, rows: Sequence[str]) -> list[tuple[str, str, Path]]:
    """Row, seed and folder of each model that is trained."""
    found = ((file.parent.name.rpartition("-"), file.parent) for file in sorted(folder.glob(f"*-*/{recipe.RESULTS}")))
    return [(row, seed, place) for (row, _, seed), place in found if row in rows]


def steps_of(model: Path) -> int:
    """How long a model was trained.

    Raises:
        SystemExit: it was trained from other weights than those of `minilm-insent` today, beside which it would stand.
    """
    plan = json.loads((model / "training" / "plan.json").read_text(encoding="utf-8"))
    if plan[NAMED]["digest"] != open_checkpoint(MINILM_INSENT).digest:
        raise SystemExit(f"{model} was trained from another minilm-insent: train it again")
    return int(plan["schedule"]["steps"])


def main() -> None:
    """Score what was not scored yet, and write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("data", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--row", choices=recipe.ROWS, nargs="+", default=list(recipe.ROWS))
    parser.add_argument("--reading", choices=READINGS, nargs="+", default=list(READINGS))
    parser.add_argument("--documents", type=int)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--cache", type=Path, help="where vectors are kept, for `cde_effect.py`")
    given = parser.parse_args()
    chunker = load_chunker(recipe.CHUNKS, load_encoder(MINILM).tokenizer)
    corpora = [cut(open_dataset(str(given.data / name)), chunker, recipe.CHUNKS) for name in SETS]
    asked = [Asked(name, "0", None, dict.fromkeys(SETS, one)) for name, one in BASES.items()]
    for row, seed, place in models(given.folder, given.row):
        steps = steps_of(place)
        for name in given.reading:
            read_as = {one: reading(place, name, given.data / OTHER[one]) for one in SETS}
            asked.append(Asked(f"{row}: {name}", seed, steps, read_as))
    for one in asked:  # before a quarter of an hour goes into what could not be kept
        require_alike(read(), given.documents, one.steps)
    for one in asked:
        for corpus in (first(of, given.documents) for of in corpora):
            if corpus.name in read().get(one.name, {}).get(one.seed, {}):
                continue
            value = score(one.configurations[corpus.name], corpus, given.threads, given.cache)
            keep(one.name, one.seed, corpus.name, Figure(ndcg=value, documents=given.documents, steps=one.steps))
            print(f"{one.name:<45} seed {one.seed} {corpus.name} {100 * value:.1f}", flush=True)


if __name__ == "__main__":
    main()
