"""How `minilm-insent` is best read: what the view of a chunk alone carries, and how much that view counts.

    python benchmarks/view.py DATA [--threads N] [--seeds FOLDER …]

DATA holds the training sets. Measured is on the documents of them that the recipe holds out (`train_minilm_insent.py`),
whose chunks training never saw: the mean nDCG@10 of the sets. The weights are those that ship, which were trained
through one of these readings; so the table says whether to read them otherwise, and not how another training would have
ended. `b` is the share of the view alone: at 0 there is none. Results go into `benchmarks/measured/view.json`, a set at
a time. `--seeds` are folders of the recipe, NAME-SEED: what they find,
read as they say of themselves, on the same documents.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.cde_effect import View, rank
from ctxindex.chunking import load_chunker
from ctxindex.encoding import load_encoder
from ctxindex.encoding.known_models import MINILM, MINILM_INSENT
from ctxindex.encoding.pooling import unit_rows
from ctxindex.evaluation.cache import MemoryCache, key_of
from ctxindex.evaluation.configuration import Configuration
from ctxindex.evaluation.corpus import Corpus
from ctxindex.evaluation.evaluator import Evaluator
from ctxindex.evaluation.scoring import Encoded
from ctxindex.training.data import DataOptions, read_data
from recipes import train_minilm_insent as recipe

if TYPE_CHECKING:
    from ctxindex.encoding import Encoder
    from ctxindex.types import FloatArray

MEASURED = Path(__file__).parent / "measured" / "view.json"
VIEWS = ("chunk", "title", "opening")
SHARES = (0.3, 0.4, 0.5, 0.6, 0.7)
HELD_OUT = 0.05
NOTHING = "none"
NEARLY = 0.999
"""The largest share but for rounding: what a chunk is alone, of which other shares are mixed."""


def key(view: str, share: float) -> str:
    """What a reading is called in the file."""
    return f"{view} {share:g}"


def mixed(contextual: FloatArray, alone: FloatArray, share: float) -> FloatArray:
    """Rows of unit length of both, as an encoder mixes them."""
    return unit_rows((1 - share) * contextual + share * alone)


def chunks_of(corpus: Corpus, threads: int | None, **settings: Any) -> tuple[Encoder, FloatArray]:
    """The shipped model with these settings, and what it makes of all chunks."""
    options = Configuration("late", settings={"model": MINILM_INSENT, **settings}).options()
    encoder = load_encoder(MINILM_INSENT, options.encoder_options("auto", threads=threads))
    cache = MemoryCache()
    Encoded(encoder, cache).index(corpus)
    keys = [key_of(one) for one in corpus.documents]
    kept = dict(cache.find(keys))
    return encoder, np.concatenate([kept[one].vectors.astype(np.float32) for one in keys])


def readings(corpus: Corpus, threads: int | None) -> dict[str, float]:
    """nDCG@10 of every view and share on a set; each view is encoded once."""
    encoder, contextual = chunks_of(corpus, threads, blend=0.0)
    queries = encoder.encode_queries([query.text for query in corpus.queries])
    assert isinstance(queries, np.ndarray), "one vector a query"

    def found(chunks: FloatArray) -> float:
        return float(rank(corpus, View(queries, chunks)).ndcg.mean())

    figures = {key(NOTHING, 0.0): found(contextual)}
    for view in VIEWS:
        _, alone = chunks_of(corpus, threads, blend=NEARLY, isolated=view)
        figures |= {key(view, share): found(mixed(contextual, alone, share)) for share in SHARES}
    return figures


def held_out(data: Path) -> Mapping[str, Corpus]:
    """The documents that the recipe holds out, by set."""
    tokenizer = load_encoder(MINILM).tokenizer
    names = tuple(str(data / name) for name in recipe.SOURCES)
    chunker = load_chunker(recipe.CHUNKS, tokenizer)
    return read_data(DataOptions(names, held_out=HELD_OUT), chunker, recipe.CHUNKS, tokenizer).held


def table(found: Mapping[str, Mapping[str, float]]) -> str:
    """Markdown: a row for each share, a column for each view; the mean of the sets, in points of 100."""

    def mean(view: str, share: float) -> str:
        figures = found.get(key(view, share))
        return "" if figures is None else f"{100 * statistics.fmean(figures.values()):.1f}"

    lines = [f"| b | {' | '.join(VIEWS)} |", f"| --- |{' --- |' * len(VIEWS)}"]
    lines.append(f"| 0 | {' | '.join([mean(NOTHING, 0.0)] * len(VIEWS))} |")
    lines += [f"| {share:g} | {' | '.join(mean(view, share) for view in VIEWS)} |" for share in SHARES]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("data", type=Path)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--seeds", type=Path, nargs="+", metavar="FOLDER")
    given = parser.parse_args()
    evaluator = Evaluator(threads=given.threads)
    for corpus in held_out(given.data).values():
        for folder in given.seeds or ():
            (run,) = evaluator.run(Configuration(settings={"model": str(folder)}), [corpus])
            write(f"seed {folder.name.rpartition('-')[2]}", corpus.name, run.metrics["ndcg@10"].mean)
        if not given.seeds:
            for name, figure in readings(corpus, given.threads).items():
                write(name, corpus.name, figure)
        print(corpus.name, {name: one[corpus.name] for name, one in read().items() if corpus.name in one}, flush=True)
    print(table(read()))


def read() -> dict[str, dict[str, float]]:
    """What was measured so far: by reading or seed, by set."""
    found: dict[str, dict[str, float]] = json.loads(MEASURED.read_text("utf-8")) if MEASURED.exists() else {}
    return found


def write(name: str, corpus: str, figure: float) -> None:
    """Put a figure with the others."""
    found = read()
    found.setdefault(name, {})[corpus] = figure
    MEASURED.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
