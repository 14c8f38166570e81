"""An experiment: MiniLM learns how much context a token takes, so that one pass may do where two are blended.

    python benchmarks/gate.py DATA [--only NAMES] [--steps N] [--threads N] [--build FOLDER] [--out FILE]

DATA holds the training and the evaluation sets. Rows are those of late chunking, behind title and head of the document.
In every layer and head, a token of a chunk adds a bias to its scores with keys outside of its own chunk,

    g(q) = q u + b        u and b learnt for each layer and head, 0 at first: plain late chunking

Keys of its own chunk and those at the ends of the row (CLS, last separator) have no bias; tokens of no chunk (title,
head, context that a window reads and does not own, separators) look everywhere without one. So do queries.

The *mask*: in a share of the rows of a step the bias hides all but the chunk itself, the ends and the title (where none
is shown, what stands before the first separator). Tokens of no chunk see none there, so that nothing of other chunks
reaches a chunk through them in a later layer.

Our own attention makes the bias, out of columns behind queries and keys. A key has a 1 in the column of what it belongs
to: its chunk, the opening, or other context; the ends have none. A query has g in all columns but that of its chunk.
Their product is g where the key is foreign, and 0 elsewhere.

All else is as in a variant of `ablations.py` (`COMPARED`). A training that was stopped goes on from its checkpoint.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface, get_cosine_schedule_with_warmup

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import ablations
from ctxindex.chunking import load_chunker
from ctxindex.encoding import Checkpoint, load_encoder, open_checkpoint
from ctxindex.encoding.attention.packed import packed_attention
from ctxindex.encoding.known_models import MINILM
from ctxindex.encoding.local import LocalEncoder
from ctxindex.encoding.packing import Packing
from ctxindex.encoding.rows import Row
from ctxindex.encoding.runtime import choose_dtype, keep_freed_memory, use_threads
from ctxindex.evaluation.cache import MemoryCache
from ctxindex.evaluation.configuration import Configuration
from ctxindex.evaluation.corpus import Corpus, cut
from ctxindex.evaluation.datasets import open_dataset
from ctxindex.evaluation.run import evaluate
from ctxindex.evaluation.scoring import Encoded
from ctxindex.metering import Meter
from ctxindex.training.batches import draw_batches
from ctxindex.training.data import Data, DataOptions, read_data
from ctxindex.training.finetune import Plan
from ctxindex.training.model import ContextualModel
from ctxindex.training.objective import Objective
from ctxindex.training.readings import Reading, join
from ctxindex.training.running.parameters import choose_parameters
from ctxindex.training.sampling import Limits, Sampler
from ctxindex.training.sources import training_documents
from recipes import train_minilm_insent as recipe

MEASURED = Path(__file__).parent / "measured" / "gate.json"
COMPARED = "InSeNT, lambda 0.3"
"""The variant of `ablations.py` that differs in nothing but the gate and the mask."""
ENDS, OPENING, CONTEXT, FIRST = -1, 0, 1, 2
"""Columns: none for the ends of a row, title, other context, the row's first chunk."""
HIDDEN = -1e4
"""A bias that leaves no weight, and is still a number in every precision."""
MASKED, FASTER = 0.3, 10
"""The share of the rows that are masked; times the learning rate of the model, for the gate."""
SAVED, COLUMNS, PASSES = 50, 16, 7
"""Steps between checkpoints; columns come in multiples of so many; passes that are timed."""
VARIANTS = {"gate": (True, False), "mask": (False, True), "gate and mask": (True, True)}
"""Whether the gate is learnt, and whether rows are masked in training."""


def columns_of(row: Row, sep_id: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """(length,) int64: the column of each token of a row."""
    found = np.full(row.length, CONTEXT)
    found[: int(np.argmax(row.ids == sep_id))] = OPENING
    numbers: dict[int, int] = {}
    for place in row.places:
        found[place.start : place.end] = numbers.setdefault(place.chunk, FIRST + len(numbers))
    found[[0, -1]] = ENDS
    return found


@dataclass(frozen=True, eq=False)
class Bias:
    """The gate, and the columns of a packed batch, (tokens, columns) float32 each.

    Keys have `shown`; queries have g times `foreign`, and `hidden` besides.
    """

    shown: torch.Tensor
    foreign: torch.Tensor
    hidden: torch.Tensor
    u: torch.Tensor
    b: torch.Tensor


def gated_attention(
    module: torch.nn.Module, *states: torch.Tensor, packing: Packing, bias: Bias | None = None, **more: Any
) -> tuple[torch.Tensor, None]:
    """As `packed_attention`, with the bias where there is one."""
    if bias is None:
        return packed_attention(module, *states, packing=packing, **more)
    query, key, value, _ = states
    layer, width = cast("int", module.layer_idx), bias.shown.shape[1]
    taken = torch.einsum("bhts,hs->bht", query, bias.u[layer].to(query.dtype)) + bias.b[layer][:, None]
    asked = (taken[..., None] * bias.foreign + bias.hidden) / more["scaling"]  # which scores are multiplied by
    query = torch.cat([query, asked.to(query.dtype)], dim=3)
    key = torch.cat([key, bias.shown.to(key.dtype).expand(1, key.shape[1], -1, -1)], dim=3)
    value = functional.pad(value, (0, width))
    return packed_attention(module, query, key, value, None, packing=packing, **more)[0][..., :-width], None


class GatedModel(ContextualModel):
    """A `ContextualModel` with the gate, (layers, heads, head size) and (layers, heads); also a `Backbone`.

    `draws`, where it is there, draws the rows to mask, as in training if `masked`. With `plain` there is no gate.
    """

    def __init__(self, encoder: LocalEncoder, checkpoint: Checkpoint, *, gated: bool, masked: bool) -> None:
        super().__init__(encoder, checkpoint, "cpu")
        AttentionInterface.register("gated", gated_attention)
        AttentionMaskInterface.register("gated", lambda *_, **__: None)
        self.transformer.set_attn_implementation("gated")
        config = self.transformer.config
        layers, heads = config.num_hidden_layers, config.num_attention_heads
        self.u = torch.nn.Parameter(torch.zeros(layers, heads, config.hidden_size // heads), gated)
        self.b = torch.nn.Parameter(torch.zeros(layers, heads), gated)
        self.plain, self.masked = not gated, masked
        self.draws: np.random.Generator | None = None
        self._sep_id = encoder.tokenizer.sep_id
        self._rows: Sequence[Row] = ()

    def forward(self, readings: Sequence[Reading]) -> list[torch.Tensor]:
        """See `ContextualModel.forward`."""
        self._rows = join(readings).rows
        return super().forward(readings)

    def place_sums(self, rows: Sequence[Row]) -> np.ndarray[Any, np.dtype[np.float32]]:
        """See `Backbone.place_sums`."""
        self._rows = rows
        with torch.inference_mode(), passes(self.spec.dtype):
            states, starts = self._read([row.ids for row in rows], self.device)
        array = states.float().numpy()
        places = [(start, place) for row, start in zip(rows, starts, strict=True) for place in row.places]
        return np.stack([array[start + place.start : start + place.end].sum(axis=0) for start, place in places])

    def _states_of(self, **inputs: Any) -> object:
        bias = None if self.plain and self.draws is None else self._bias(inputs["packing"])
        return self.transformer(**inputs, bias=bias)

    def _bias(self, packing: Packing) -> Bias:
        rows = sorted(self._rows, key=lambda row: -row.length)  # as they are packed
        masked = np.zeros(len(rows)) if self.draws is None else self.draws.random(len(rows)) < MASKED
        filling = packing.filled - packing.tokens
        column = np.concatenate([*(columns_of(row, self._sep_id) for row in rows), np.full(filling, ENDS)])
        hidden = np.concatenate([np.repeat(masked, packing.lengths), np.zeros(filling)])[:, None] * HIDDEN
        number = np.arange(-(-(int(column.max()) + 1) // COLUMNS) * COLUMNS)
        foreign = (column >= FIRST)[:, None] & (column[:, None] != number)
        parts = (column[:, None] == number, foreign, hidden * ((number >= CONTEXT) & (column[:, None] != number)))
        shown, faced, unseen = (torch.from_numpy(part.astype(np.float32)) for part in parts)
        return Bias(shown, faced, unseen, self.u, self.b)


def passes(dtype: str) -> torch.autocast:
    """What passes run in."""
    return torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16")


def optimiser(model: GatedModel, plan: Plan) -> torch.optim.AdamW:
    """As that of the Trainer, for matrices and for all else; the gate is faster, and not drawn to 0."""
    rate, decay = plan.schedule.learning_rate, plan.schedule.weight_decay
    groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            gate = name in ("u", "b")
            kind = (FASTER * rate if gate else rate, decay if weight.ndim > 1 and not gate else 0.0)
            groups.setdefault(kind, []).append(weight)
    return torch.optim.AdamW([{"params": own, "lr": lr, "weight_decay": kept} for (lr, kept), own in groups.items()])


def train(plan: Plan, data: Data, model: GatedModel, base: ContextualModel, file: Path) -> float:
    """Train the model, from the checkpoint `file` on where it is there; the seconds of a step."""
    schedule, steps = plan.schedule, plan.schedule.steps or 0
    sources = {name: training_documents(corpus) for name, corpus in data.sources.items()}
    limits = Limits(schedule.windows, schedule.queries, schedule.clozes)
    sampler = Sampler(sources, load_encoder(plan.model, plan.encoder), limits, plan.shares)
    sizes = {name: len(documents) for name, documents in sources.items()}
    draws = list(islice(draw_batches(sizes, schedule.documents, schedule.seed, plan.source_shares), steps))
    objective, learner = Objective(model, plan.objective, base), optimiser(model, plan)
    rates = get_cosine_schedule_with_warmup(learner, round(schedule.warmup * steps), steps)
    kept = {"model": model, "optimiser": learner, "rates": rates}
    autocast = partial(passes, schedule.precision)
    done, seconds = 0, 0.0
    if file.exists():
        held = torch.load(file, weights_only=True)
        done, seconds = held["done"], held["seconds"]
        for name, one in kept.items():
            one.load_state_dict(held[name])
    for draw in draws[done:]:
        began = time.perf_counter()
        model.draws = np.random.default_rng([schedule.seed, 2, draw.step]) if model.masked else None
        learner.zero_grad()
        found = objective.step(model, sampler.batch(draw), torch.autograd.backward, autocast=autocast)
        torch.nn.utils.clip_grad_norm_(model.parameters(), schedule.max_norm, error_if_nonfinite=True)
        learner.step()
        rates.step()
        done, seconds = draw.step + 1, seconds + time.perf_counter() - began
        print(f"{file.stem}: step {done}, loss {float(found.total):.3f}, {seconds / done:.2f} s each", flush=True)
        if done % SAVED == 0 or done == steps:
            states = {name: one.state_dict() for name, one in kept.items()}
            torch.save({**states, "done": done, "seconds": seconds}, file.with_suffix(".tmp"))
            file.with_suffix(".tmp").replace(file)
    model.draws = None
    return seconds / done


def score(model: GatedModel, encoder: LocalEncoder, corpora: Sequence[Corpus]) -> dict[str, float]:
    """nDCG@10 by set, every chunk ranked."""
    scorer = Encoded(encoder, MemoryCache())
    runs = [evaluate(corpus, Configuration("late"), scorer, model=model.spec.model) for corpus in corpora]
    return {run.corpus.name: run.metrics["ndcg@10"].mean for run in runs}


def relative_seconds(model: GatedModel, encoder: LocalEncoder, corpus: Corpus) -> float:
    """The seconds of a forward pass over 8 rows, relative to those without a bias."""
    rows = list(islice((row for one in corpus.documents for row in encoder.document_rows(one)), 8))
    plain, seconds = model.plain, list[float]()
    for number in range(2 * PASSES):
        model.plain = plain or number % 2 == 0
        began = time.perf_counter()
        model.place_sums(rows)
        seconds.append(time.perf_counter() - began)
    model.plain = plain
    return statistics.median(seconds[3::2]) / statistics.median(seconds[2::2])  # the first of each warms up


def main() -> None:
    """Train, score, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("data", type=Path)
    parser.add_argument("--only", help="names of variants, separated by commas")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--build", type=Path, default=Path("build") / "gate")
    parser.add_argument("--out", type=Path, default=MEASURED)
    given = parser.parse_args()
    use_threads(given.threads)
    keep_freed_memory()
    checkpoint, options = open_checkpoint(MINILM), replace(ablations.LATE, device="cpu", dtype=choose_dtype("cpu"))
    reader = load_encoder(MINILM, options)
    chunker = load_chunker(recipe.CHUNKS, reader.tokenizer)
    names = tuple(str(given.data / name) for name in recipe.SOURCES)
    data = read_data(DataOptions(names, held_out=0.0), chunker, recipe.CHUNKS)
    corpora = [cut(open_dataset(str(given.data / name)), chunker, recipe.CHUNKS) for name in ablations.SETS]
    plan = ablations.plan_of(next(one for one in ablations.VARIANTS if one.name == COMPARED), given.steps)
    given.build.mkdir(parents=True, exist_ok=True)
    for name in given.only.split(",") if given.only else VARIANTS:
        gated, masked = VARIANTS[name]
        model = GatedModel(reader, checkpoint, gated=gated, masked=masked)
        choose_parameters(model, plan.schedule)
        base = ContextualModel(reader, checkpoint, "cpu").eval().requires_grad_(False)
        step = train(plan, data, model, base, given.build / f"{name.replace(' ', '-')}-{given.steps}.pt")
        encoder = LocalEncoder(checkpoint, reader.spec, options, Meter(), model.eval())
        seconds, scores = relative_seconds(model, encoder, corpora[0]), score(model, encoder, corpora)
        one = {"name": name, "ndcg@10": scores, "seconds": seconds, "seconds_per_step": step}
        write({**read(given.out), name: one}, given.steps, given.out)  # another process may have measured by now
        points = " ".join(f"{dataset} {100 * value:.1f}" for dataset, value in scores.items())
        print(f"{name:<14} {points}, {seconds:.2f} times the seconds", flush=True)


def read(file: Path) -> dict[str, Any]:
    """What was measured so far, by variant."""
    return {one["name"]: one for one in json.loads(file.read_text())["runs"]} if file.exists() else {}


def write(found: Mapping[str, Any], steps: int, out: Path) -> None:
    """All that was measured so far, in the order of the variants."""
    about = (
        f"One seed, {steps} steps each. Gate and mask are trained as `{COMPARED}`: a bias for keys of other chunks, "
        f"learnt for each layer and head; {MASKED:.0%} of the rows in which a chunk sees nothing but itself. Seconds "
        "are those of a forward pass, relative to one without a gate (`python benchmarks/gate.py`). Through the blend, "
        "every chunk is read once more, alone (b = 0.6), for 1.6 to 1.9 times the seconds of an index (MiniLM with the "
        "chunk as it is, below; behind its opening it is a little more); in one pass that view is left out (`python "
        "benchmarks/ablations.py`)."
    )
    page = {"about": about, "sets": ablations.SETS, "runs": [found[name] for name in VARIANTS if name in found]}
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(page, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
