"""How fast documents become vectors, beside Sentence-Transformers, LlamaIndex and chonkie: same model, chunks, machine.

    python benchmarks/encode.py [FOLDER] [--documents N] [--dtype auto|bfloat16|float32] [--repeat K] [--only NAMES]
                                [--lengths 2000,100000] [--peers-python PATH]... [--json]

FOLDER holds .txt files (default: the bundled contracts). Every contender runs in a process of its own, started here one
after the other, `--repeat` times over, and the median counts. A process loads the model and reads a short text; then
the clock starts, and texts in memory become chunks of 128 tokens and their vectors. Tokens are the documents' own, the
same number for every contender. Run it on a machine that does nothing else, and carry only the ratios elsewhere.

Peers are measured at their defaults, which is float32, and in our dtype (`-same-dtype`). They need not share our
environment; each runs in the first interpreter that has it, our own being the last to be asked:

    python3 -m venv peers && peers/bin/pip install --constraint constraints.txt '.[bench]'
    python3 -m venv onnx && onnx/bin/pip install torch==2.13.0 'sentence-transformers[onnx]<6' langchain-text-splitters
    python benchmarks/encode.py --peers-python peers/bin/python --peers-python onnx/bin/python

The ONNX backend needs an environment to itself: optimum-onnx 0.1 refuses transformers 5, and sentence-transformers 6
any other.

`--only` takes names of contenders, `lengths` and `ingest`, separated by commas. `lengths`: tokens per second in one
long document against those in short documents of the same text. `ingest`: peak memory of whole ingests into LanceDB.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.contenders import DEFAULT_BATCH, Job
from benchmarks.processes import ROOT, Interpreters, describe_machine, how_to_install, require, resolve_dtype, run_job
from benchmarks.report import Goal, compare, describe, linearity, summarise
from ctxindex.encoding.known_models import find_folder

SAMPLES = ROOT / "recipes" / "data" / "contracts"
BEST = "sentence-transformers-best"
PARTS = ("lengths", "ingest")
MEMORY_GB = 1.5

Runs: TypeAlias = dict[str, list[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class Entry:
    """A contender by the name that it is reported under."""

    name: str
    job: Job


def make_entries(dtype: str, model: str, files: tuple[str, ...]) -> list[Entry]:
    """All contenders, ours in `dtype`; `BEST` aside, whose batch size is not known yet."""
    ours = Job("late", model, dtype, files)
    entries = [Entry("late", ours)]
    if dtype != "float32":
        entries.append(Entry("late-float32", replace(ours, dtype="float32")))
    entries += [Entry("late-anchor", replace(ours, anchor=64)), Entry("late-blend", replace(ours, blend=0.5))]
    for kind in ("sentence-transformers", "llama-index", "chonkie"):
        entries.append(Entry(kind, Job(kind, model, "float32", files)))
        if dtype != "float32":
            entries.append(Entry(f"{kind}-same-dtype", Job(kind, model, dtype, files)))
    return [*entries, Entry("sentence-transformers-onnx", Job("onnx", model, "float32", files))]


def choose(entries: Sequence[Entry], only: Collection[str]) -> list[Entry]:
    """The entries that `--only` names, or all."""
    known = [*(entry.name for entry in entries), BEST, *PARTS]
    if unknown := set(only) - set(known):
        sys.exit(f"--only {', '.join(sorted(unknown))}: there are {', '.join(known)}")
    return [entry for entry in entries if not only or entry.name in only]


def best_entry(model: str, files: tuple[str, ...], pythons: Interpreters) -> Entry:
    """Sentence-Transformers with the batch size that was fastest on a quarter of the documents."""
    job = Job("batch-sizes", model, files=files[: max(1, len(files) // 4)])
    python = pythons.find(job.kind)
    seconds = run_job(python, job).get("seconds_by_batch_size", {}) if python else {}
    size = int(min(seconds, key=seconds.__getitem__, default=DEFAULT_BATCH))
    return Entry(BEST, Job("sentence-transformers", model, files=files, batch_size=size))


def run_rounds(entries: Sequence[Entry], pythons: Interpreters, repeat: int) -> Runs:
    """Every entry once a round, so that what disturbs the machine for a while disturbs them all.

    One that fails, or has no interpreter, is not tried again; its only run then says why, as `failed`.
    """
    runs: Runs = {entry.name: [] for entry in entries}
    for number in range(repeat):
        for entry in entries:
            if runs[entry.name] and "failed" in runs[entry.name][0]:
                continue
            python = pythons.find(entry.job.kind)
            run = run_job(python, entry.job) if python else {"failed": how_to_install(entry.job.kind)}
            tell(f"{number + 1}/{repeat} {entry.name}: {run.get('failed') or format(run['seconds'], '.2f') + ' s'}")
            runs[entry.name] = [run] if "failed" in run else [*runs[entry.name], run]
    return runs


def contender_figures(
    entries: Sequence[Entry], runs: Runs, pythons: Interpreters, corpus: Mapping[str, int]
) -> dict[str, dict[str, Any]]:
    """For every contender its figures, or `unavailable` and why."""
    found: dict[str, dict[str, Any]] = {}
    for entry in entries:
        done = runs[entry.name]
        if "failed" in done[0]:
            found[entry.name] = {"unavailable": done[0]["failed"]}
            continue
        figures: dict[str, Any] = {"dtype": entry.job.dtype, "versions": pythons.versions(entry.job.kind)}
        if entry.job.kind in ("sentence-transformers", "onnx"):
            figures["batch_size"] = entry.job.batch_size
        found[entry.name] = {**figures, **summarise(done, corpus["documents"], corpus["tokens"])}
    return found


def length_entries(ours: Job, place: Path) -> list[Entry]:
    """The short and the long documents that the job `prepare` has cut."""
    files = {name: tuple(map(str, sorted((place / name).glob("*.txt")))) for name in ("short", "long")}
    return [Entry(name, replace(ours, files=files[name])) for name in files]


def measure_memory(ours: Job, place: Path, folder: Path) -> dict[str, Any]:
    """Peak memory of whole ingests: of the long document alone, and of the given folder."""
    found: dict[str, Any] = {}
    for name, source in {"long document": place / "long", "folder": folder}.items():
        job = replace(ours, kind="ingest", files=(str(source),), folder=str(place / f"db of {name}"))
        found[name] = require(run_job(sys.executable, job))
        tell(f"ingest of the {name}: {found[name]['peak_mib']:.0f} MiB")
    return found


def measure(arguments: argparse.Namespace, place: Path) -> tuple[dict[str, Any], list[Goal]]:
    """Everything that was asked for: the result, and its figures beside their targets."""
    dtype, model, only = resolve_dtype(arguments.dtype), str(find_folder("minilm")), arguments.only
    files = tuple(map(str, sorted(arguments.folder.glob("*.txt"))[: arguments.documents]))
    entries = choose(make_entries(dtype, model, files), only)
    lengths, ingest = [not only or part in only for part in PARTS]
    pythons = Interpreters(arguments.peers_python)
    folder = str(place) if lengths or ingest else ""
    corpus = require(
        run_job(sys.executable, Job("prepare", model, files=files, folder=folder, lengths=arguments.lengths))
    )
    if not only or BEST in only:
        entries.append(best_entry(model, files, pythons))
    ours = Job("late", model, dtype)
    extra = length_entries(ours, place) if lengths else []
    runs = run_rounds([*entries, *extra], pythons, arguments.repeat)
    contenders = contender_figures(entries, runs, pythons, corpus)
    result = {
        "machine": describe_machine(runs.get("late", [{}])[0].get("threads"), pythons.versions("late")),
        **{"dtype": dtype, "repeat": arguments.repeat, **corpus, "contenders": contenders},
        "matrix_fraction": {
            name: round(figures["matrix_fraction"], 4)
            for name, figures in contenders.items()
            if "matrix_fraction" in figures
        },
        "linearity": linearity(*map(require_all, (runs["short"], runs["long"]))) if lengths else {},
        "memory": measure_memory(ours, place, arguments.folder) if ingest else {},
    }
    return add_goals(result)


def require_all(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [require(run) for run in runs]


def add_goals(result: dict[str, Any]) -> tuple[dict[str, Any], list[Goal]]:
    """The result with `ratios` and `targets`, and both as goals."""
    seconds = {name: part["seconds"] for name, part in result["contenders"].items() if "seconds" in part}
    if result["dtype"] == "float32" and "late" in seconds:
        seconds["late-float32"] = seconds["late"]
    ratios = compare(seconds, result["dtype"])
    goals = list(ratios)
    if "late" in result["matrix_fraction"]:
        goals.append(Goal("fraction of the matrix-product rate", result["matrix_fraction"]["late"], 0.65))
    if result["linearity"]:
        goals.append(Goal("tokens/s in a long document over short ones", result["linearity"]["ratio"], 0.9))
    for name, part in result["memory"].items():
        gigabytes = part["peak_mib"] * (1 << 20) / 1e9
        goals.append(Goal(f"peak memory of an ingest ({name}), GB", gigabytes, MEMORY_GB, at_most=True))
    named = {
        goal.name: {"value": round(goal.value, 4), "target": goal.target, "at_most": goal.at_most, "met": goal.met}
        for goal in goals
        if goal.target is not None
    }
    return {**result, "ratios": {goal.name: round(goal.value, 4) for goal in ratios}, "targets": named}, goals


def tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def two_lengths(text: str) -> tuple[int, int]:
    """SHORT,LONG as numbers of tokens."""
    short, long = map(int, text.split(","))
    if not 0 < short <= long:
        raise ValueError(text)
    return short, long


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path, default=SAMPLES)
    parser.add_argument("--documents", type=int, metavar="N", help="the first N alone")
    parser.add_argument("--dtype", choices=("auto", "bfloat16", "float32"), default="auto")
    parser.add_argument("--repeat", type=int, default=3, metavar="K", help="runs of each, of which the median counts")
    parser.add_argument("--only", type=lambda text: text.split(","), default=[], metavar="NAMES")
    parser.add_argument("--lengths", type=two_lengths, default=(2000, 100_000), metavar="SHORT,LONG")
    parser.add_argument("--peers-python", action="append", default=[], metavar="PATH")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if arguments.repeat < 1:
        parser.error("--repeat must be at least 1")
    if not any(arguments.folder.glob("*.txt")):
        parser.error(f"there are no .txt files in {arguments.folder}")
    return arguments


def main() -> None:
    arguments = parse()
    with tempfile.TemporaryDirectory() as place:
        result, goals = measure(arguments, Path(place))
    print(json.dumps(result, indent=2) if arguments.json else "\n".join(describe(result, goals)))


if __name__ == "__main__":
    main()
