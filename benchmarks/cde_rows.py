"""What a corpus context gains: models of `recipes/train_minilm_cde.py` on sets whose documents resemble one another.

    python benchmarks/cde_rows.py DATA FOLDER [--row NAME …] [--reading NAME …] [--documents N] [--threads N]

FOLDER is where the recipe trained its rows, ROW-SEED each. Every model is read in the context of a sample of the set
itself, in that of another set, and in none (`READINGS`); beside them stands the model that all were trained from, which
reads no corpus. A figure that was measured of a row and seed is not measured again; results go into
`benchmarks/measured/cde.json`, from which `results.py` makes a table, with the mean and the range of several seeds.

`--documents` takes the first documents of each set, and the questions about them: all of `factbook-eval` take a quarter
of an hour for each reading.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from ctxindex.chunking import load_chunker
from ctxindex.encoding import load_encoder
from ctxindex.encoding.known_models import MINILM, MINILM_INSENT
from ctxindex.evaluation.configuration import Configuration
from ctxindex.evaluation.corpus import Corpus, cut
from ctxindex.evaluation.datasets import open_dataset
from ctxindex.evaluation.evaluator import Evaluator
from ctxindex.training.parts import part
from recipes import train_minilm_cde as recipe

MEASURED = Path(__file__).parent / "measured" / "cde.json"
SETS = ("factbook-eval", "medquad-eval-masked")
OTHER = {"factbook-eval": "medquad-eval-masked", "medquad-eval-masked": "factbook-eval"}
"""Whose sample stands in for that of a set."""

BASE = "minilm-insent: late chunking, no corpus"
READINGS: dict[str, dict[str, Any]] = {
    "its corpus": {},
    "another corpus": {"context": ...},
    "no corpus": {"context": "null"},
    "its corpus, each chunk alone": {"windows": "chunk"},
}
"""How a model is read, as settings; `...` stands for the other set."""

Scores = dict[str, float]


def score(model: str, settings: Mapping[str, Any], corpus: Corpus, other: Path, threads: int | None) -> float:
    """nDCG@10 of a model on a set."""
    own = {name: str(other) if value is ... else value for name, value in settings.items()}
    method = "late" if model == MINILM_INSENT else "cde"
    (run,) = Evaluator(threads=threads).run(Configuration(method, settings={"model": model, **own}), [corpus])
    return run.metrics["ndcg@10"].mean


def table(found: Mapping[str, Mapping[str, Scores]]) -> list[dict[str, Any]]:
    """A row for each that was measured: what it is called, with its seeds, and the mean over them by set."""
    rows = []
    for name, seeds in found.items():
        columns: dict[str, list[float]] = {}
        for values in seeds.values():
            for dataset, value in values.items():
                columns.setdefault(dataset, []).append(value)
        means = {dataset: statistics.fmean(column) for dataset, column in columns.items()}
        several = [max(column) - min(column) for column in columns.values() if len(column) > 1]
        told = f" ({len(seeds)} seeds, apart by {100 * max(several):.1f} at most)" if several else ""
        rows.append({"name": f"{name}{told}", "ndcg@10": means})
    return rows


def read() -> dict[str, dict[str, Scores]]:
    """What was measured so far: by row and reading, then by seed, then by set."""
    found: dict[str, dict[str, Scores]] = (
        json.loads(MEASURED.read_text(encoding="utf-8"))["seeds"] if MEASURED.exists() else {}
    )
    return found


def write(found: Mapping[str, Mapping[str, Scores]], documents: int | None, steps: int) -> None:
    """All that was measured so far."""
    about = (
        f"Trained from minilm-insent for {steps} steps of 24 pairs (`recipes/train_minilm_cde.py`), with the first "
        "stage frozen, and read in the context of 64 texts of the set itself, of the other set, or of none. The row "
        "`null` never had a context in training, so what the corpus context gains is the difference to it; what the "
        "batches gain is `clusters` less `random` (`python benchmarks/cde_rows.py`)."
    )
    if documents is not None:
        about += f" Of each set the first {documents} documents, with the questions about them."
    values = {"about": about, "sets": SETS, "seeds": found, "runs": table(found)}
    MEASURED.parent.mkdir(exist_ok=True)
    MEASURED.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


def first(corpus: Corpus, documents: int | None) -> Corpus:
    """The first documents of a corpus, and what is asked about them."""
    return corpus if documents is None else part(corpus, range(min(documents, len(corpus.documents))))


def models(folder: Path, rows: Sequence[str]) -> list[tuple[str, str, Path]]:
    """Row, seed and folder of each model that is trained."""
    found = ((file.parent.name.rpartition("-"), file.parent) for file in sorted(folder.glob(f"*-*/{recipe.RESULTS}")))
    return [(row, seed, place) for (row, _, seed), place in found if row in rows]


def main() -> None:
    """Score what was not scored yet, and write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("data", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--row", choices=recipe.ROWS, nargs="+", default=list(recipe.ROWS))
    parser.add_argument("--reading", choices=READINGS, nargs="+", default=list(READINGS))
    parser.add_argument("--documents", type=int)
    parser.add_argument("--threads", type=int)
    given = parser.parse_args()
    chunker = load_chunker(recipe.CHUNKS, load_encoder(MINILM).tokenizer)
    corpora = [cut(open_dataset(str(given.data / name)), chunker, recipe.CHUNKS) for name in SETS]
    asked: list[tuple[str, str, str, Mapping[str, Any]]] = [(BASE, "0", MINILM_INSENT, {})]
    steps = 0
    for row, seed, place in models(given.folder, given.row):
        steps = json.loads((place / "training" / "plan.json").read_text(encoding="utf-8"))["schedule"]["steps"]
        asked += [(f"{row}: {name}", seed, str(place), READINGS[name]) for name in given.reading]
    for name, seed, model, settings in asked:
        for corpus in (first(one, given.documents) for one in corpora):
            if corpus.name in read().get(name, {}).get(seed, {}):
                continue
            value = score(model, settings, corpus, given.data / OTHER[corpus.name], given.threads)
            found = read()  # again, since another process may measure other rows
            found.setdefault(name, {}).setdefault(seed, {})[corpus.name] = value
            write(found, given.documents, steps)
            print(f"{name:<45} seed {seed} {corpus.name} {100 * value:.1f}", flush=True)


if __name__ == "__main__":
    main()
