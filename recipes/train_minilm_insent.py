"""Train the model that ships with ctxindex, `minilm-insent`: MiniLM, tuned with InSeNT on four sets of documents.

    python recipes/train_minilm_insent.py DATA [--seed N] [--steps N] [--threads N] [--out FOLDER] [--ship]

DATA holds the training sets (contracts, health pages, clinical trials, meetings), each a folder with documents.jsonl
and queries.jsonl. A run that was stopped goes on where it stood when the same command is given again. `--ship` writes
the difference to MiniLM's weights into the package, with its settings and card.

What is particular to this training:

- *Both views.* A chunk's vector is a blend of one from its window and one of the chunk alone, behind the document's
  title. The loss is taken on the blend; in some steps on one of both, so that each is of use by itself.
- *Queries of two kinds.* Those of the sets mostly name their document, and teach that a chunk is of its document.
  Clozes, words of a sentence of a chunk, name nothing, and keep what the chunk says from being lost.
- *Nothing is forgotten.* Isolated chunks and queries are held near what MiniLM made of them.
- The table of token embeddings, half of the weights, stays as it is: the difference is small enough to ship.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ctxindex.chunking import load_chunker
from ctxindex.encoding import EncoderOptions, load_encoder
from ctxindex.encoding.difference import write_difference
from ctxindex.encoding.known_models import MINILM, find_folder
from ctxindex.encoding.packaged import DIFFERENCE, FOLDER
from ctxindex.encoding.trained import FILE
from ctxindex.spec import ChunkerSpec
from ctxindex.training.card import command_line, write_card
from ctxindex.training.data import DataOptions, read_data
from ctxindex.training.finetune import Finetuned, Plan, finetune
from ctxindex.training.options import InsentOptions, ObjectiveOptions, Shares
from ctxindex.training.schedule import Schedule

CHUNKS = ChunkerSpec("recursive", 500, "chars", 0)
SOURCES = {"cuad-train": 4.0, "medquad-train": 3.0, "evinf-train": 2.0, "qmsum-train": 1.0}
"""The training sets, and what part of the steps each gets."""

READ = EncoderOptions(method="late", anchor=64, anchor_title=True, blend=0.6, isolated="opening")


def plan(seed: int, steps: int) -> Plan:
    """Everything that decides the model."""
    return Plan(
        model=MINILM,
        encoder=READ,
        chunker=CHUNKS,
        objective=ObjectiveOptions(InsentOptions(lambda_seq=0.4), hold=0.2),
        schedule=Schedule(
            steps=steps,
            documents=6,
            windows=3,
            queries=6,
            clozes=2,
            learning_rate=1e-4,
            freeze_embeddings=True,
            precision="bfloat16",
            save_every=100,
            seed=seed,
        ),
        shares=Shares(titles=0.3, contextual=0.15, isolated=0.15),
        source_shares=SOURCES,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path, help="the folder of the training sets")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--held-out", type=float, default=0.05, help="share of the documents that are measured on")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--out", type=Path, default=None, help="default: build/minilm-insent-SEED")
    parser.add_argument("--ship", action="store_true", help="put the result into the package")
    given = parser.parse_args()
    out = given.out or Path("build") / f"minilm-insent-{given.seed}"
    chosen = plan(given.seed, given.steps)
    chunker = load_chunker(CHUNKS, load_encoder(MINILM).tokenizer)
    names = tuple(str(given.data / name) for name in SOURCES)
    data = read_data(DataOptions(names, held_out=given.held_out), chunker, CHUNKS)

    def card(found: Finetuned) -> str:
        return write_card(found, chosen, data, command_line(["python", *sys.argv]))

    found = finetune(chosen, data, out, resume=True, threads=given.threads, card=card)
    for name, runs in found.runs.items():
        print(f"{name:<24}", *(f"{run.corpus.name} {100 * run.metrics['ndcg@10'].mean:.1f}" for run in runs))
    print(f"the model: {out}")
    if given.ship:
        ship(out)


def ship(folder: Path) -> None:
    """Put the difference, the settings and the card into the package."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    facts = write_difference(find_folder(MINILM), folder, FOLDER / DIFFERENCE)
    for name in (FILE, "README.md"):
        (FOLDER / name).write_bytes((folder / name).read_bytes())
    size = (FOLDER / DIFFERENCE).stat().st_size
    print(f"shipped: {DIFFERENCE}, {size / 1e6:.1f} MB; weights {facts.weights_sha256[:16]}…")


if __name__ == "__main__":
    main()
