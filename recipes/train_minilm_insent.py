"""Train the model that ships with ctxindex, `minilm-insent`: MiniLM, tuned with InSeNT on four sets of documents.

    python recipes/train_minilm_insent.py DATA [--seed N] [--steps N] [--threads N] [--out FOLDER] [--ship]

DATA holds the training sets (contracts, health pages, clinical trials, meetings), each a folder with documents.jsonl
and queries.jsonl. A run that was stopped goes on where it stood when the same command is given again. `--ship` writes
the difference to MiniLM's weights into the package, with its settings and a card: `minilm_insent_card.md`, which names
the sources and their licences, around what the training's own card says was done and found.

What is particular to this training:

- *Both views.* A chunk's vector is a blend of one from its window and one of the chunk alone, behind the document's
  title. The loss is taken on the blend; in some steps on one of both, so that each is of use by itself.
- *Queries of two kinds.* Those of the sets mostly name their document, and teach that a chunk is of its document.
  Clozes, words of a sentence of a chunk, name nothing, and keep what the chunk says from being lost.
- *Nothing is forgotten.* Isolated chunks and queries are held near what MiniLM made of them, and in the end so much of
  every weight is MiniLM's as costs nothing on held-out documents that is told from chance.
- The table of token embeddings, half of the weights, stays as it is: the difference is small enough to ship.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ctxindex.chunking import load_chunker
from ctxindex.cli.progress import choose_training
from ctxindex.encoding import EncoderOptions, load_encoder
from ctxindex.encoding.difference import write_difference
from ctxindex.encoding.known_models import MINILM, find_folder
from ctxindex.encoding.modules import TRANSFORMER_SETTINGS
from ctxindex.encoding.packaged import DIFFERENCE, FOLDER
from ctxindex.encoding.trained import FILE
from ctxindex.spec import ChunkerSpec
from ctxindex.training.data import DataOptions, read_data
from ctxindex.training.finetune import Finetuned, Plan, finetune
from ctxindex.training.options import InsentOptions, ObjectiveOptions, Shares
from ctxindex.training.results.card import TRAINED_ON, command_line, write_card
from ctxindex.training.running.watching import Watching
from ctxindex.training.schedule import Schedule

CARD = Path(__file__).parent / "minilm_insent_card.md"
"""What the card says whatever was measured; `{measured}` is where that goes."""

CHUNKS = ChunkerSpec("recursive", 500, "chars", 0)
SOURCES = {"cuad-train": 4.0, "medquad-train": 3.0, "evinf-train": 2.0, "qmsum-train": 1.0}
"""The training sets, and what part of the steps each gets."""

KEPT = (0.8, 0.9, 1.0)
"""What the tuned weights may count, MiniLM's having the rest; held-out documents decide."""

READ = EncoderOptions(method="late", anchor=64, anchor_title=True, blend=0.6, isolated="opening")


def plan(seed: int, steps: int) -> Plan:
    """Everything that decides the model; in float32, so that other machines make the same."""
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
            precision="float32",
            save_every=100,
            seed=seed,
        ),
        shares=Shares(titles=0.3, contextual=0.15, isolated=0.15),
        source_shares=SOURCES,
        merge=KEPT,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path, help="the folder of the training sets")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--held-out", type=float, default=0.05, help="share of the documents that are measured on")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--out", type=Path, default=None, help="default: build/minilm-insent-SEED")
    parser.add_argument("--ship", action="store_true", help="put the result into the package")
    arguments = sys.argv[1:] if arguments is None else arguments
    given = parser.parse_args(arguments)
    out = given.out or Path("build") / f"minilm-insent-{given.seed}"
    if (out / "README.md").exists():  # what is written last
        print(f"{out} is trained already")
    else:
        print(f"training with seed {given.seed} for {given.steps} steps into {out}", flush=True)
        found = train(given, out, command_line(["python", "recipes/train_minilm_insent.py", *arguments]))
        for name, runs in found.runs.items():
            print(f"{name:<24}", *(f"{run.corpus.name} {100 * run.metrics['ndcg@10'].mean:.1f}" for run in runs))
    print(f"the model: {out}")
    if given.ship:
        ship(out)


def train(given: argparse.Namespace, out: Path, command: str) -> Finetuned:
    """Train into a folder, telling how far it is; what is held out is the same for all seeds."""
    chosen = plan(given.seed, given.steps)
    tokenizer = load_encoder(MINILM).tokenizer
    names = tuple(str(given.data / name) for name in SOURCES)
    data = read_data(DataOptions(names, held_out=given.held_out), load_chunker(CHUNKS, tokenizer), CHUNKS, tokenizer)
    steps, measuring = choose_training(quiet=False)

    return finetune(
        chosen,
        data,
        out,
        resume=True,
        threads=given.threads,
        callbacks=[] if steps is None else [Watching(steps)],
        watch=measuring,
        card=lambda found: write_card(found, chosen, data, command),
    )


def ship(folder: Path) -> None:
    """Put the difference, the settings and the card into the package."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    facts = write_difference(find_folder(MINILM), folder, FOLDER / DIFFERENCE)
    for name in (FILE, TRANSFORMER_SETTINGS):
        (FOLDER / name).write_bytes((folder / name).read_bytes())
    (FOLDER / "README.md").write_text(shipped_card((folder / "README.md").read_text("utf-8")), encoding="utf-8")
    size = (FOLDER / DIFFERENCE).stat().st_size
    print(f"shipped: {DIFFERENCE}, {size / 1e6:.1f} MB; weights {facts.weights_sha256[:16]}…")


def shipped_card(card: str) -> str:
    """The card of the package: what a training's card tells of data, results and settings, in ours."""
    _, heading, measured = card.partition(TRAINED_ON)
    if not heading:
        raise SystemExit(f"the card of this model lacks the section {TRAINED_ON!r}: train it again in another folder")
    return CARD.read_text(encoding="utf-8").replace("{measured}", (heading + measured).strip())


if __name__ == "__main__":
    main()
