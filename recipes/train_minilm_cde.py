"""Train contextual document embeddings: `minilm-insent` with a corpus context, and the controls that say what it gains.

    python recipes/train_minilm_cde.py DATA [--row NAME …] [--seed N …] [--steps N] [--threads N] [--out FOLDER]

DATA holds the training sets of `train_minilm_insent.py`. Every row is a training of its own, in FOLDER/ROW-SEED. Where
documents are held out (`--held-out 0.05`), what each row finds there is printed at the end, from trainings of earlier
runs, too; `benchmarks/cde_rows.py` scores rows on the evaluation sets. A run that was stopped goes on where it stood
when the same command is given again.

    clusters        batches of what is alike, the relative filter, a context of the batch's clusters
    random          batches of any pairs of a source
    no-filter       clusters, without the filter
    null            clusters, and never a context: what a gain of the context is measured against
    insent          clusters, and the InSeNT loss on half of the weight
    insent-null     the same without a context
    strong          clusters, with a context that counts for more from the start: the bias begins at 2 (which goes for
                    the null vector, too, so that `null` is not its control)

The gain of batches is clusters less random; that of the corpus context is clusters less null, not less the base, since
hard batches help by themselves. A row that is to be spoken of takes three seeds: one alone is chance as well.

What makes it fit a machine of two cores: the first stage is frozen; its vectors and those that clusters are made by
are made once for all rows (FOLDER/made); one window a document; batches of 12 pairs; the table of token embeddings
stays as it is; nothing is held out unless it is asked for.

The bias of context scores begins at 0, and has a learning rate of its own. At the -2 of a model that nobody trains, the
vectors in two contexts have a cosine of 0.9999 (MiniLM), and in so few steps nothing would be learnt of them: rows with
and without a context would be one row twice. At 0 the context counts for seven times as much, and vectors are still
those of the base (cosine 0.985); at 2 they begin far from it (0.88), which is a row as well.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ctxindex.chunking import load_chunker
from ctxindex.cli.progress import choose_training
from ctxindex.encoding import EncoderOptions, load_encoder
from ctxindex.encoding.known_models import MINILM_INSENT
from ctxindex.spec import ChunkerSpec
from ctxindex.training.contextual.context import ContextDropout
from ctxindex.training.contextual.filtering import FalseNegativeFilter
from ctxindex.training.contextual.options import ContextualOptions
from ctxindex.training.data import Data, DataOptions, read_data
from ctxindex.training.finetune import Finetuned, Plan, finetune
from ctxindex.training.options import InsentOptions, ObjectiveOptions
from ctxindex.training.results.card import command_line, write_card
from ctxindex.training.results.comparison import measurements
from ctxindex.training.running.watching import Watching
from ctxindex.training.schedule import Schedule

CHUNKS = ChunkerSpec("recursive", 500, "chars", 0)
SOURCES = ("cuad-train", "medquad-train", "evinf-train", "qmsum-train")
PAIRS = 12
"""Of a batch, and of a cluster."""

MADE = "made"
RESULTS = "results.json"
"""What a row found, beside its model; written last."""

_CLUSTERS = ContextualOptions(cluster_size=PAIRS, context_size=(8, 64), context_bias_init=0.0)
_NEVER = ContextDropout(0.0, 1.0)

ROWS = {
    "clusters": _CLUSTERS,
    "random": replace(_CLUSTERS, batches="random"),
    "no-filter": replace(_CLUSTERS, filter=FalseNegativeFilter("none")),
    "null": replace(_CLUSTERS, dropout=_NEVER),
    "insent": replace(_CLUSTERS, insent=0.5),
    "insent-null": replace(_CLUSTERS, insent=0.5, dropout=_NEVER),
    "strong": replace(_CLUSTERS, context_bias_init=2.0),
}
"""The trainings that are compared."""


def plan(row: str, seed: int, steps: int) -> Plan:
    """Everything that decides a model; how it is read is what its base says of itself."""
    return Plan(
        model=MINILM_INSENT,
        encoder=EncoderOptions(method="cde"),
        chunker=CHUNKS,
        objective=ObjectiveOptions(InsentOptions(lambda_seq=0.4, tau=0.05)),
        schedule=Schedule(
            steps=steps,
            documents=PAIRS,
            windows=1,
            learning_rate=2e-5,
            warmup=0.1,
            weight_decay=0.0,
            freeze_embeddings=True,
            save_every=50,
            seed=seed,
        ),
        contextual=ROWS[row],
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path, help="the folder of the training sets")
    parser.add_argument("--row", choices=ROWS, nargs="+", default=list(ROWS))
    parser.add_argument("--seed", type=int, nargs="+", default=[0])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--held-out", type=float, default=0.0, help="share of the documents that are measured on")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--out", type=Path, default=Path("build/minilm-cde"))
    arguments = sys.argv[1:] if arguments is None else arguments
    given = parser.parse_args(arguments)
    command = command_line(["python", "recipes/train_minilm_cde.py", *arguments])
    data = None
    for row in given.row:
        for seed in given.seed:
            out = given.out / f"{row}-{seed}"
            if (out / RESULTS).exists():
                continue
            data = data or read(given)
            print(f"training {row} with seed {seed} for {given.steps} steps into {out}", flush=True)
            found = train(plan(row, seed, given.steps), data, out, given.threads, command, given.out / MADE)
            (out / RESULTS).write_text(json.dumps(measurements(found.runs), indent=1) + "\n", encoding="utf-8")
    print_results(given.out)


def read(given: argparse.Namespace) -> Data:
    """The sets; what is held out is the same for all rows and seeds."""
    tokenizer = load_encoder(MINILM_INSENT).tokenizer
    names = tuple(str(given.data / name) for name in SOURCES)
    return read_data(DataOptions(names, held_out=given.held_out), load_chunker(CHUNKS, tokenizer), CHUNKS, tokenizer)


def train(chosen: Plan, data: Data, out: Path, threads: int | None, command: str, made: Path) -> Finetuned:
    """Train a row into a folder, telling how far it is."""
    steps, measuring = choose_training(quiet=False)
    return finetune(
        chosen,
        data,
        out,
        resume=True,
        threads=threads,
        made=made,
        callbacks=[] if steps is None else [Watching(steps)],
        watch=measuring,
        card=lambda found: write_card(found, chosen, data, command),
    )


def print_results(folder: Path) -> None:
    """nDCG@10 of all rows that are trained, in points of 100: the mean over sets, and each set."""
    for file in sorted(folder.glob(f"*/{RESULTS}")):
        by_name: dict[str, list[float]] = {}
        for one in json.loads(file.read_text(encoding="utf-8")):
            by_name.setdefault(one["measured"], []).append(100 * one["metrics"]["ndcg@10"])
        for name, values in by_name.items():
            each = " ".join(f"{value:5.1f}" for value in values)
            print(f"{file.parent.name:<16} {name:<32} {sum(values) / len(values):5.1f}   {each}")


if __name__ == "__main__":
    main()
