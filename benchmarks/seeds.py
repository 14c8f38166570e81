"""What models of one recipe find that differ in their seed alone: nDCG@10 of each on every set, and the mean.

    python benchmarks/seeds.py DATA MODEL... [--untitled] [--only SETS] [--threads N] [--shipped N]

DATA holds the evaluation sets; every MODEL is a folder that `recipes/train_minilm_insent.py` wrote, and is read as its
own settings say. With `--untitled` no document has a title. A figure that was measured before of the same weights is
not measured again; results go into `benchmarks/measured/seeds.json`, from which `results.py` makes tables.

`--shipped N` takes the figures of seed N, which is in the package, from those that `results.py` measured of it there,
where its weights are quantised; those of other weights are left out.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.results import ROWS, SETS, SHIPPED
from benchmarks.rows import CUT, read_rows
from benchmarks.rows import UNTITLED as BARE
from ctxindex.chunking import load_chunker
from ctxindex.encoding import load_encoder
from ctxindex.encoding.known_models import MINILM, MINILM_INSENT
from ctxindex.evaluation.configuration import Configuration
from ctxindex.evaluation.corpus import cut
from ctxindex.evaluation.dataset import without_titles
from ctxindex.evaluation.datasets import open_dataset
from ctxindex.evaluation.evaluator import Evaluator
from ctxindex.spec import ChunkerSpec

MEASURED = Path(__file__).parent / "measured" / "seeds.json"
CHUNKS = ChunkerSpec("recursive", 500, "chars", 0)
TITLED, UNTITLED = "with titles", "without titles"


def seed_of(model: Path) -> int:
    """The seed that a model was trained with, from the plan in its folder."""
    plan: dict[str, Any] = json.loads((model / "training" / "plan.json").read_text(encoding="utf-8"))
    return int(plan["schedule"]["seed"])


def score(model: Path, data: Path, name: str, *, titled: bool, threads: int | None) -> float:
    """nDCG@10 of a model on a set."""
    dataset = open_dataset(str(data / name))
    chunker = load_chunker(CHUNKS, load_encoder(MINILM).tokenizer)
    corpus = cut(dataset if titled else without_titles(dataset), chunker, CHUNKS)
    (run,) = Evaluator(threads=threads).run(Configuration("late", settings={"model": str(model)}), [corpus])
    return run.metrics["ndcg@10"].mean


def table(found: Mapping[str, Mapping[str, float]]) -> list[dict[str, Any]]:
    """A row for each seed, and, of the sets that all of them have, mean and standard deviation."""
    rows = [{"name": f"seed {seed}", "ndcg@10": dict(values)} for seed, values in sorted(found.items())]
    common = [name for name in SETS if rows and all(name in values for values in found.values())]
    columns = {name: [values[name] for values in found.values()] for name in common}
    if len(rows) > 1:
        rows.append({"name": "mean", "ndcg@10": {name: statistics.fmean(column) for name, column in columns.items()}})
        spread = {name: statistics.stdev(column) for name, column in columns.items()}
        rows.append({"name": "standard deviation", "ndcg@10": spread})
    return rows


def main() -> None:
    """Score what was not scored yet, and write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("data", type=Path)
    parser.add_argument("models", type=Path, nargs="*")
    parser.add_argument("--untitled", action="store_true")
    parser.add_argument("--only", default=",".join(SETS), help="sets, separated by commas")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--shipped", type=int, metavar="SEED")
    given = parser.parse_args()
    if given.shipped is not None:
        take_shipped(str(given.shipped))
    kind = UNTITLED if given.untitled else TITLED
    for model in given.models:
        seed, digest = str(seed_of(model)), load_encoder(str(model)).spec.digest
        for name in given.only.split(","):
            if name in (known := of_weights(read(), kind, seed, digest)):
                value = known[name]
            else:
                value = score(model, given.data, name, titled=not given.untitled, threads=given.threads)
                write(kind, seed, digest, name, value)
            print(f"seed {seed}, {kind}: {name} {100 * value:.1f}", flush=True)


def take_shipped(seed: str) -> None:
    """The figures of the shipped model as those of a seed."""
    groups, digest = read_rows(MEASURED.parent / ROWS), load_encoder(MINILM_INSENT).spec.digest
    for kind, group in ((TITLED, CUT), (UNTITLED, BARE)):
        for row in groups.get(group, ()):
            if row.name == SHIPPED and row.digest == digest:
                write(kind, seed, digest, row.dataset, row.ndcg)


def read() -> dict[str, Any]:
    """What was measured so far."""
    return json.loads(MEASURED.read_text(encoding="utf-8")) if MEASURED.exists() else {"digests": {}, "found": {}}


def of_weights(measured: Mapping[str, Any], kind: str, seed: str, digest: str) -> dict[str, float]:
    """What is known of these weights, by set."""
    if measured["digests"].get(seed) != digest:
        return {}
    return dict(measured["found"].get(kind, {}).get(seed, {}))


def write(kind: str, seed: str, digest: str, name: str, value: float) -> None:
    """Put a figure with the others; those of other weights with this seed are dropped."""
    measured = read()  # again, since another process may measure another seed
    if measured["digests"].get(seed) != digest:
        for values in measured["found"].values():
            values.pop(seed, None)
        measured["digests"][seed] = digest
    measured["found"].setdefault(kind, {}).setdefault(seed, {})[name] = value
    measured["sets"] = SETS
    measured["tables"] = {kind: table(found) for kind, found in sorted(measured["found"].items())}
    MEASURED.parent.mkdir(exist_ok=True)
    MEASURED.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
