"""What each part of the training is worth: MiniLM trained for 300 steps, with one thing changed at a time.

    python benchmarks/ablations.py DATA [--only NAMES] [--steps N] [--threads N] [--build FOLDER]

DATA holds the training and the evaluation sets. Every variant is trained from the same seed on the sets of
`recipes/train_minilm_insent.py`, and scored on four evaluation sets. What is trained stays in the build folder and is
not trained again; results go into `benchmarks/measured/ablations.json`, from which `results.py` makes a table.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from ctxindex.chunking import load_chunker
from ctxindex.encoding import EncoderOptions, load_encoder
from ctxindex.encoding.known_models import MINILM, find_folder
from ctxindex.encoding.trained import FILE
from ctxindex.evaluation.configuration import Configuration
from ctxindex.evaluation.corpus import Corpus, cut
from ctxindex.evaluation.datasets import open_dataset
from ctxindex.evaluation.evaluator import Evaluator
from ctxindex.training.data import Data, DataOptions, read_data
from ctxindex.training.finetune import Plan, finetune
from ctxindex.training.options import InsentOptions, ObjectiveOptions, Shares
from ctxindex.training.results.merging import merge_folders
from recipes import train_minilm_insent as recipe

MEASURED = Path(__file__).parent / "measured" / "ablations.json"
SETS = ("contracts", "medquad-eval-masked", "covidqa-eval", "squad-eval")
LATE = EncoderOptions(method="late", anchor=64, anchor_title=True)


@dataclass(frozen=True)
class Variant:
    """A training and how its model is read: settings of a configuration over those that it was trained with."""

    name: str
    encoder: EncoderOptions = LATE
    insent: Mapping[str, Any] = field(default_factory=lambda: {"lambda_seq": 0.3})
    plan: Mapping[str, Any] = field(default_factory=dict)
    read: Mapping[str, Any] = field(default_factory=dict)
    trained_as: str | None = None
    """The variant whose model is read, where it is not one of its own."""
    merge: float = 1.0
    """What the tuned weights count, the base's having the rest."""
    replay: float = 0.0
    """Share of steps, beside ten of the sets', with the health pages' chunks read alone."""


BOTH = replace(LATE, blend=0.6, isolated="opening")
SKIPS = Shares(titles=0.3, contextual=0.15, isolated=0.15)
CLOZES = {"clozes": 2}
KEPT = CLOZES | {"hold": 0.2}
PLAIN = "InSeNT, lambda 0.3"
REPLAYED = "medquad-train"
ALONE = f"{REPLAYED}, alone"
VARIANTS = (
    *(Variant(f"InSeNT, lambda {value:g}", insent={"lambda_seq": value}) for value in (0, 0.1, 0.3, 0.5, 1)),
    Variant("window: no anchor, no title", EncoderOptions(method="late")),
    Variant(
        "trained with anchor and title, read without",
        read={"anchor": 0, "anchor_title": False},
        trained_as=PLAIN,
    ),
    Variant("+Training: every chunk alone", EncoderOptions(method="independent"), {"mode": "joint"}),
    Variant("merged, half the tuned weights", trained_as=PLAIN, merge=0.5),
    Variant("merged, three quarters", trained_as=PLAIN, merge=0.75),
    Variant("with replay", replay=5.0),
    Variant("with hold", plan={"hold": 0.2}),
    Variant("with clozes", plan=CLOZES),
    Variant("with clozes and hold", plan=KEPT),
    Variant("through the blend", BOTH, plan={"shares": SKIPS}),
    Variant("through the blend, one pass (b = 0)", read={"blend": 0.0}, trained_as="through the blend"),
    Variant("through the blend, distilled", BOTH, plan={"distil": 1.0, "shares": SKIPS}),
    Variant(
        "through the blend, distilled, one pass (b = 0)",
        read={"blend": 0.0},
        trained_as="through the blend, distilled",
    ),
    Variant("trained with anchor and title, read with the anchor", read={"anchor_title": False}, trained_as=PLAIN),
    Variant("trained with anchor and title, read with the title", read={"anchor": 0}, trained_as=PLAIN),
)


def plan_of(variant: Variant, steps: int) -> Plan:
    """The plan of the recipe, changed as the variant says."""
    plan = recipe.plan(seed=0, steps=steps)
    weights = {name: variant.plan[name] for name in ("hold", "distil") if name in variant.plan}
    clozes = variant.plan.get("clozes", 0)
    schedule = replace(plan.schedule, documents=4, windows=2, queries=6, clozes=clozes, learning_rate=1e-4)
    if variant.encoder.method == "independent":
        schedule = replace(schedule, windows=8)  # rows of one chunk: as many chunks as two windows hold
    return replace(
        plan,
        encoder=variant.encoder,
        merge=(1.0,),
        objective=ObjectiveOptions(InsentOptions(**variant.insent), **weights),
        schedule=schedule,
        shares=variant.plan.get("shares", Shares(titles=0.3)),
        source_shares={**recipe.SOURCES, **({ALONE: variant.replay} if variant.replay else {})},
    )


def train(variant: Variant, data: Data, folder: Path, steps: int, threads: int | None) -> Path:
    """The folder of a variant's model, made unless it is there."""
    out = folder / _folder(variant.trained_as or variant.name)
    if variant.trained_as is None and not (out / FILE).exists():
        if variant.replay:
            data = replace(data, replay={ALONE: replace(data.sources[REPLAYED], name=ALONE)})
        finetune(plan_of(variant, steps), data, out, resume=out.exists(), threads=threads)
    if variant.merge == 1:
        return out
    merged = folder / _folder(variant.name)
    if not merged.exists():
        merge_folders(find_folder(MINILM), out, variant.merge, merged)
    return merged


def _folder(name: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in name)


def score(variant: Variant, model: Path, corpora: list[Corpus], threads: int | None) -> dict[str, float]:
    """nDCG@10 by set."""
    method = variant.encoder.method
    configuration = Configuration(method, settings={"model": str(model), **variant.read})
    runs = Evaluator(threads=threads).run(configuration, corpora)
    return {run.corpus.name: run.metrics["ndcg@10"].mean for run in runs}


def main() -> None:
    """Train, score, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("data", type=Path)
    parser.add_argument("--only", help="numbers of variants from 0 on, separated by commas")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--build", type=Path, default=Path("build") / "ablations")
    given = parser.parse_args()
    chunker = load_chunker(recipe.CHUNKS, load_encoder(MINILM).tokenizer)
    names = tuple(str(given.data / name) for name in recipe.SOURCES)
    data = read_data(DataOptions(names, held_out=0.0), chunker, recipe.CHUNKS)
    corpora = [cut(open_dataset(str(given.data / name)), chunker, recipe.CHUNKS) for name in SETS]
    chosen = range(len(VARIANTS)) if given.only is None else map(int, given.only.split(","))
    for number in chosen:
        variant = VARIANTS[number]
        model = train(variant, data, given.build, given.steps, given.threads)
        scores = score(variant, model, corpora, given.threads)
        found = read()  # again, since another process may measure other variants
        found[variant.name] = {"name": variant.name, "ndcg@10": scores}
        write(found, given.steps)
        print(f"{variant.name:<50}", *(f"{name} {100 * value:.1f}" for name, value in scores.items()), flush=True)


def read() -> dict[str, Any]:
    """What was measured so far, by variant."""
    return {one["name"]: one for one in json.loads(MEASURED.read_text())["runs"]} if MEASURED.exists() else {}


def write(found: Mapping[str, Any], steps: int) -> None:
    """All that was measured so far, in the order of the variants."""
    about = (
        f"One seed, {steps} steps each, batches of 4 documents of one source with at most 2 windows and 6 queries of "
        "each, learning rate 1e-4, titles withheld in three steps of ten (`python benchmarks/ablations.py`). Where "
        "nothing else is said: late chunking alone, anchor and title before windows, lambda 0.3, no clozes, no hold, "
        "no blend. Clozes are two a document; replay reads the health pages chunk by chunk, in a third of the steps."
    )
    runs = [found[variant.name] for variant in VARIANTS if variant.name in found]
    MEASURED.parent.mkdir(exist_ok=True)
    MEASURED.write_text(json.dumps({"about": about, "sets": SETS, "runs": runs}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
