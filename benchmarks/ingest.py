"""What an ingest costs: where its time goes, what a run over unchanged files takes, how memory grows with the corpus.

    python benchmarks/ingest.py [FOLDER] [--store lancedb|qdrant] [--times 10] [--json]

Every figure is that of a whole process, started here: wall time, and the largest resident memory the system saw. All
are taken in one run on one machine; only the ratios should be carried elsewhere. FOLDER holds .txt files (default: the
bundled contracts). The grown corpus is the same files `--times` over, under other names.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SAMPLES = Path(__file__).parents[1] / "recipes" / "data" / "contracts"

INGEST = """
import json, sys
from ctxindex import Index
with Index.open("bench", store=sys.argv[1], path=sys.argv[2], method=sys.argv[4]) as index:
    report = index.ingest(sys.argv[3], include=["*.txt"])
print(json.dumps({"seconds": dict(report.seconds), "idle": report.idle, "chunks": report.chunks,
                  "tokens": report.tokens, "new": report.new, "unchanged": report.unchanged}))
"""
CLIENTS = {"lancedb": "import lancedb", "qdrant": "import qdrant_edge"}


@dataclass(frozen=True)
class Run:
    """One finished process: wall seconds, peak resident memory in MiB, and what it printed as JSON."""

    wall: float
    peak: float
    printed: dict[str, Any]


def run(code: str, *arguments: str) -> Run:
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"a measured run failed with status {status}")
    return Run(time.perf_counter() - began, usage.ru_maxrss / 1024, json.loads(output) if output.strip() else {})


def grow(folder: Path, times: int, place: Path) -> Path:
    grown = place / "grown"
    for number in range(times):
        copy = grown / str(number)
        copy.mkdir(parents=True)
        for file in folder.glob("*.txt"):
            shutil.copy(file, copy)
    return grown


def measure(folder: Path, store: str, method: str, times: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        first = run(INGEST, store, str(place / "db"), str(folder), method)
        again = min(
            (run(INGEST, store, str(place / "db"), str(folder), method) for _ in range(3)), key=lambda r: r.wall
        )
        client = min((run(CLIENTS[store]) for _ in range(3)), key=lambda r: r.wall)
        grown = run(INGEST, store, str(place / "grown-db"), str(grow(folder, times, place)), method)
    return {
        "store": store,
        "method": method,
        "documents": first.printed["new"],
        "chunks": first.printed["chunks"],
        "tokens": first.printed["tokens"],
        "seconds": {stage: round(value, 3) for stage, value in first.printed["seconds"].items()},
        "idle_between_forward_passes": round(first.printed["idle"], 4),
        "tokens_per_second": round(first.printed["tokens"] / first.printed["seconds"]["total"]),
        "unchanged_run_seconds": round(again.wall, 3),
        "import_of_the_client_seconds": round(client.wall, 3),
        "peak_mib": round(first.peak),
        "peak_mib_grown": round(grown.peak),
        "peak_ratio": round(grown.peak / first.peak, 3),
        "grown_documents": grown.printed["new"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path, default=SAMPLES)
    parser.add_argument("--store", choices=sorted(CLIENTS), default="lancedb")
    parser.add_argument("--method", default="late")
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    figures = measure(arguments.folder, arguments.store, arguments.method, arguments.times)
    if arguments.json:
        print(json.dumps(figures, indent=2))
        return
    for label, value in figures.items():
        print(f"{label:30} {json.dumps(value) if isinstance(value, dict) else value}")


if __name__ == "__main__":
    main()
