"""How fast a model trains, beside the trainer of Sentence-Transformers: same chunks, model, precision and machine.

    python benchmarks/train.py [FOLDER] [--steps N] [--dtype bfloat16|float32] [--repeat K] [--json]

The precision is by default the one in which the machine is fastest.

FOLDER holds documents (default: the bundled contracts). Every contender trains in a process of its own for `--steps`
steps with AdamW, the first quarter of which is not counted; contenders take turns, `--repeat` times, and the median
counts. A step is a whole one: batch, forward and backward pass, optimiser.

What is compared is content: the tokens of the chunks that get a vector, without special tokens, titles, anchors and
padding, in a second of training. All ask a query of each chunk, about 64 in a step; the tokens of queries take time as
well and are counted apart.

    late         our trainer: chunks of a document in their windows (anchor 64, title), InSeNT
    late-blend   the same with the isolated view of each chunk, titled: every token is read twice
    alone        our trainer, every chunk alone
    flattened    Sentence-Transformers' trainer, multiple negatives ranking loss over the same chunks, as many in a
                 batch as `late` has about; without dropout, which ours has not either
    dropout      the same with the dropout that the model comes with, and that a user of it would have
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from transformers import TrainerCallback

from benchmarks.processes import ROOT
from ctxindex.chunking import load_chunker
from ctxindex.encoding import load_encoder, open_checkpoint
from ctxindex.encoding.known_models import find_folder
from ctxindex.encoding.options import EncoderOptions
from ctxindex.encoding.runtime import choose_dtype
from ctxindex.loading import load_documents
from ctxindex.spec import ChunkerSpec
from ctxindex.types import ChunkedDocument, Document

if TYPE_CHECKING:
    from ctxindex.training.sampling import Batch

SAMPLES = ROOT / "recipes" / "data" / "contracts"
CONTENDERS = ("late", "late-blend", "alone", "flattened", "dropout")
DOCUMENTS, WINDOWS, CHUNKS = 4, 4, 4
"""Of a step, of a document, and (about so many of 500 characters) of a window."""

QUERIES = WINDOWS * CHUNKS
"""Of a document: one for each chunk that a step reads, as every contender has it."""


@dataclass(frozen=True)
class Work:
    """What a step reads: content tokens of chunks, queries, and the content tokens of these."""

    tokens: float
    queries: float
    query_tokens: float


class Clock(TrainerCallback):
    """When each step was done."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Note the time."""
        self.times.append(time.perf_counter())


def documents(folder: Path) -> list[ChunkedDocument]:
    """The documents of a folder in chunks of 500 characters."""
    chunker = load_chunker(ChunkerSpec("recursive", 500, "chars", 0), load_encoder("minilm").tokenizer)
    loaded = [one for one in load_documents(str(folder)) if isinstance(one, Document) and len(one.text) > 5000]
    return [ChunkedDocument(one, chunker.chunk(one)) for one in loaded]


def question(source: ChunkedDocument, ordinal: int) -> str:
    """Some words of a chunk: what is asked decides nothing about speed."""
    return " ".join(source.chunks[ordinal].text.split()[:12])


def train_ours(name: str, folder: Path, steps: int, dtype: str) -> dict[str, float]:
    """Steps of our trainer."""
    from ctxindex.training.model import ContextualModel
    from ctxindex.training.objective import ObjectiveOptions
    from ctxindex.training.running.trainer import make_trainer
    from ctxindex.training.sampling import Limits, Question, Sampler, TrainingDocument
    from ctxindex.training.schedule import Schedule

    blend = 0.4 if name == "late-blend" else 0.0
    late = {"method": "late", "anchor": 64, "anchor_title": True, "blend": blend or None}
    late |= {"isolated": "title"} if blend else {}
    options: dict[str, Any] = {"method": "independent"} if name == "alone" else late
    encoder = load_encoder("minilm", EncoderOptions(dtype="float32", **options))
    trained = [
        TrainingDocument(one, tuple(Question(question(one, place), (place,)) for place in range(len(one.chunks))))
        for one in documents(folder)
    ]
    model = ContextualModel(encoder, open_checkpoint("minilm"), "cpu")
    # Alone, a row holds one chunk.
    limits = Limits(CHUNKS * WINDOWS if name == "alone" else WINDOWS, QUERIES)
    sampler = Sampler({"bench": trained}, encoder, limits)
    counted: list[Work] = []
    batch_of = sampler.batch

    def counting(draw: Any) -> Any:
        batch = batch_of(draw)
        counted.append(work_of(batch))
        return batch

    sampler.batch = counting  # type: ignore[method-assign]
    clock = Clock()
    with tempfile.TemporaryDirectory() as work:
        trainer = make_trainer(
            model,
            None,
            sampler,
            {"bench": len(trained)},
            Schedule(steps=steps, documents=DOCUMENTS, precision=dtype, save_every=10**6),  # type: ignore[arg-type]
            ObjectiveOptions(),
            folder=Path(work),
            device="cpu",
            callbacks=[clock],
        )
        trainer.train()
    return rate(clock.times, counted)


def train_flattened(folder: Path, steps: int, dtype: str, *, dropout: bool) -> dict[str, float]:
    """Steps of Sentence-Transformers' trainer, with the dropout of the model or without any."""
    import torch
    from datasets import Dataset
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    batch = DOCUMENTS * QUERIES
    chunked = documents(folder)
    pairs = [(question(one, place), chunk.text) for one in chunked for place, chunk in enumerate(one.chunks)]
    pairs = (pairs * (1 + batch * steps // len(pairs)))[: batch * steps]
    count = load_encoder("minilm").tokenizer.count
    queries, chunks = (sum(count([pair[side] for pair in pairs])) / steps for side in (0, 1))
    model = SentenceTransformer(str(find_folder("minilm")), device="cpu")
    model.max_seq_length = 512
    if not dropout:
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
    clock = Clock()
    with tempfile.TemporaryDirectory() as work:
        trainer = SentenceTransformerTrainer(
            model=model,
            args=SentenceTransformerTrainingArguments(
                output_dir=work,
                max_steps=steps,
                per_device_train_batch_size=batch,
                bf16=dtype == "bfloat16",
                use_cpu=True,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                dataloader_pin_memory=False,
            ),
            train_dataset=Dataset.from_dict(
                {"anchor": [one for one, _ in pairs], "positive": [two for _, two in pairs]}
            ),
            loss=MultipleNegativesRankingLoss(model),
            callbacks=[clock],
        )
        trainer.train()
    # Batches are drawn in another order than that of the pairs: the mean of all stands for each.
    return rate(clock.times, [Work(chunks, batch, queries)] * steps)


def work_of(batch: Batch) -> Work:
    """What a batch of ours reads. Of an isolated view the same chunks are read again, and count once."""
    # A row may pool special tokens as well, or fewer chunks than it holds.
    chunks = sum(
        min(row.content, sum(place.end - place.start for place in row.places))
        for part in batch.contextual
        for row in part.rows
    )
    queries = [row.content for part in batch.queries for row in part.rows]
    return Work(chunks, len(queries), sum(queries))


def rate(times: Sequence[float], works: Sequence[Work]) -> dict[str, float]:
    """Content tokens in a second, without the first quarter of the steps, and what a step was on average.

    Args:
        times: in seconds, when each step was done; two at least.
        works: what each step read.
    """
    warm = max(1, len(times) // 4)
    counted, steps = works[warm : len(times)], len(times) - warm
    seconds, tokens = times[-1] - times[warm - 1], sum(one.tokens for one in counted)
    return {
        "tokens_per_second": tokens / seconds,
        "seconds_per_step": seconds / steps,
        "tokens": tokens / steps,
        "queries": sum(one.queries for one in counted) / steps,
        "query_tokens": sum(one.query_tokens for one in counted) / steps,
    }


def medians(found: Mapping[str, Sequence[Mapping[str, float]]]) -> dict[str, dict[str, float]]:
    """Of each contender's runs, number by number."""
    return {name: {key: statistics.median(run[key] for run in runs) for key in runs[0]} for name, runs in found.items()}


def lines(each: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    """What people read of the medians: a line a contender."""
    peer = each["flattened"]["tokens_per_second"]
    for name, one in each.items():
        yield (
            f"  {name:<12} {one['tokens_per_second']:7,.0f}   {one['tokens_per_second'] / peer:5.2f} x flattened   "
            f"{one['seconds_per_step']:6.2f} s a step of {one['tokens']:,.0f} tokens and {one['queries']:,.0f} queries "
            f"of {one['query_tokens']:,.0f}"
        )


def main() -> None:
    """Run the contenders, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path, nargs="?", default=SAMPLES)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default=choose_dtype("cpu"))
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--contender", choices=CONTENDERS, help="run one here (what the others are started with)")
    given = parser.parse_args()
    if given.contender:
        one = given.contender
        work = given.folder, given.steps, given.dtype
        theirs = one in ("flattened", "dropout")
        print(json.dumps(train_flattened(*work, dropout=one == "dropout") if theirs else train_ours(one, *work)))
        return
    found: dict[str, list[dict[str, float]]] = {name: [] for name in CONTENDERS}
    for _ in range(given.repeat):
        for name in CONTENDERS:
            rest = [str(given.folder), "--steps", str(given.steps), "--dtype", given.dtype, "--contender", name]
            printed = subprocess.run([sys.executable, __file__, *rest], stdout=subprocess.PIPE, check=True, text=True)
            found[name].append(json.loads(printed.stdout.splitlines()[-1]))
    each = medians(found)
    if given.json:
        processors = len(os.sched_getaffinity(0))
        print(json.dumps({"dtype": given.dtype, "processors": processors, "median": each, "runs": found}))
        return
    print(f"content tokens trained on in a second, {given.dtype}, median of {given.repeat}")
    for line in lines(each):
        print(line)


if __name__ == "__main__":
    main()
