"""Index real contracts and ask them questions, with and without context: the demonstration behind `make demo`.

Two indexes of the same contracts are made side by side: one embeds every chunk alone (`independent`), one in the
context of its document (`late`). MiniLM was never trained for the second, and it shows: what it finds is counted over
all twenty bundled questions, so that nobody has to take our word for what helps.

    python recipes/01_quickstart.py [--path DIR]
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from ctxindex import Hit, Index
from ctxindex.cli.progress import choose

CONTRACTS = Path(__file__).parent / "data" / "contracts"
QUESTIONS = (
    "Which law governs the endorsement agreement with Andy North?",
    "Can Yaskawa or Argo end the strategic alliance without cause?",
    "What is the consultant of Kiromic paid per hour?",
)
HOW = {"late": "in the context of its document", "independent": "alone"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--path", default=".ctxindex", help="folder of the store")
    path = parser.parse_args().path
    asked = [json.loads(line) for line in (CONTRACTS / "questions.jsonl").read_text(encoding="utf-8").splitlines()]
    for method in HOW:
        print(f"\n== contracts-{method}: every chunk {HOW[method]}")
        with Index.open(f"contracts-{method}", path=path, method=method) as index:
            ingest(index)
            for question in QUESTIONS:
                show(question, index.search(question, k=2))
            score(index, asked)
    print(f'\nAsk your own: ctxindex search "…" --index contracts-independent --path {path}')


def ingest(index: Index) -> None:
    progress = choose(quiet=False)
    report = index.ingest(CONTRACTS, include=["*.txt"], progress=progress)
    if progress is not None:
        progress.close()
    if report.failures:
        sys.exit(f"failed: {report.failures[0].doc_id}: {report.failures[0].reason}")
    seconds = report.seconds["total"]
    print(f"{report.new} new, {report.unchanged} unchanged; {report.tokens:,} tokens in {seconds:.1f} s")


def show(question: str, hits: list[Hit]) -> None:
    print(f"\n{question}")
    for hit in hits:
        print(f"  {hit.score:.3f}  {hit.doc_id} [{hit.start}:{hit.end}]")
        print(f"         {' '.join(hit.text.split())[:150]}…")


def score(index: Index, asked: list[dict[str, object]]) -> None:
    """How many of the bundled questions find their document, and their clause, among the first five chunks."""
    documents = clauses = 0
    for question in asked:
        hits = index.search(str(question["query"]), k=5)
        own = [hit for hit in hits if hit.doc_id == question["doc_id"]]
        documents += bool(own)
        clauses += any(hit.start < int(str(question["end"])) and int(str(question["start"])) < hit.end for hit in own)
    print(f"\nOf {len(asked)} questions, {documents} find their contract and {clauses} their clause in the first five.")


if __name__ == "__main__":
    main()
