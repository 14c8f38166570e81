"""Index real contracts and ask them questions, with and without context: the demonstration behind `make demo`.

Two indexes of the same contracts are made side by side. In one MiniLM embeds every chunk alone (`independent`); the
other is what `ctxindex ingest` makes by itself: the model that comes with ctxindex was trained to read every chunk in
the context of its document. What both find is counted over all twenty bundled questions, so that nobody has to take
our word for what helps. (These contracts were in no training set.)

    python recipes/01_quickstart.py [--path DIR]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from ctxindex import Hit, Index

CONTRACTS = Path(__file__).parent / "data" / "contracts"
QUESTIONS = (
    "Which law governs the endorsement agreement with Andy North?",
    "Can Yaskawa or Argo end the strategic alliance without cause?",
    "What is the consultant of Kiromic paid per hour?",
)
INDEXES: dict[str, tuple[str, dict[str, Any]]] = {
    "contracts": ("in the context of its document", {}),
    "contracts-alone": ("alone", {"model": "minilm", "method": "independent"}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--path", default=".ctxindex", help="folder of the store")
    path = parser.parse_args().path
    asked = [json.loads(line) for line in (CONTRACTS / "questions.jsonl").read_text(encoding="utf-8").splitlines()]
    for name, (how, settings) in INDEXES.items():
        print(f"\n== {name}: every chunk {how}", flush=True)
        with Index.open(name, path=path, **settings) as index:
            ingest(index)
            for question in QUESTIONS:
                show(question, index.search(question, k=2))
            score(index, asked)
    command = Path(sys.executable).parent / "ctxindex"
    print(f"\nAsk your own: {os.path.relpath(command)} search 'your question' --index contracts --path {path}")


def ingest(index: Index) -> None:
    report = index.ingest(CONTRACTS, include=["*.txt"])
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
