"""What a corpus context does to vectors and to what is found, and what the simplest knowledge of a corpus would do.

    python benchmarks/cde_effect.py DATA MODEL... [--documents N] [--cache FOLDER] [--threads N]

Every MODEL is a folder of `recipes/train_minilm_cde.py`. What it says of chunks and questions in the context of a set
is laid beside what it says in that of the other set, and in none: the cosine of the two, how many questions have
another first chunk, and the difference in nDCG@10 with an interval over questions. Beside it stands what is gained by
taking the mean of the set's vectors away from each, which is the least that anybody could do who knew the corpus: if
that gains nothing, what the documents have in common does not stand in the way of finding.

A table is printed, and the results go into `benchmarks/measured/cde_effect.json`. With `--cache`, vectors that
`cde_rows.py` made there are not made again.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.cde_rows import OTHER, READINGS, SETS, first
from benchmarks.corpus_context import ANOTHER, NONE, OWN, effect_lines
from ctxindex.chunking import load_chunker
from ctxindex.encoding import load_encoder
from ctxindex.encoding.encoder import as_context_encoder
from ctxindex.encoding.known_models import MINILM
from ctxindex.encoding.pooling import unit_rows
from ctxindex.evaluation.cache import Cache, DiskCache, MemoryCache, key_of
from ctxindex.evaluation.conditioning import Conditioning
from ctxindex.evaluation.configuration import Configuration
from ctxindex.evaluation.corpus import Corpus, cut
from ctxindex.evaluation.datasets import open_dataset
from ctxindex.evaluation.metrics import DEPTH, item_metrics
from ctxindex.evaluation.ranking import best
from ctxindex.evaluation.scoring import Encoded
from ctxindex.evaluation.significance import interval
from recipes import train_minilm_cde as recipe

if TYPE_CHECKING:
    import numpy.typing as npt

    from ctxindex.types import FloatArray

    Values = npt.NDArray[np.float64]

MEASURED = Path(__file__).parent / "measured" / "cde_effect.json"
BLOCK = 1000
"""Questions that are scored at once."""


@dataclass(frozen=True)
class View:
    """A corpus as a model reads it: (queries, dim) and (chunks, dim) float32, unit rows."""

    queries: FloatArray
    chunks: FloatArray

    def centred(self) -> View:
        """The same without what all chunks have in common: their mean taken away from everything."""
        mean = self.chunks.mean(axis=0)
        return View(unit_rows(self.queries - mean), unit_rows(self.chunks - mean))


@dataclass(frozen=True)
class Ranked:
    """What a view finds: nDCG@10 of each question, and the number of its first chunk."""

    ndcg: Values
    firsts: npt.NDArray[np.int64]


def rank(corpus: Corpus, view: View) -> Ranked:
    """All chunks for every question, exactly."""
    parts = [
        best(view.queries[start : start + BLOCK] @ view.chunks.T, corpus.chunk_order, DEPTH)
        for start in range(0, len(view.queries), BLOCK)
    ]
    ranked, scores = (np.concatenate(side) for side in zip(*parts, strict=True))
    return Ranked(item_metrics(corpus.gold, ranked, scores, corpus.chunk_names)["ndcg@10"], ranked[:, 0])


def cosine(one: FloatArray, other: FloatArray) -> float:
    """The mean cosine of rows of unit length."""
    return float((one.astype(np.float64) * other).sum(axis=1).mean())


def read(model: Path, corpus: Corpus, data: Path, reading: str, given: argparse.Namespace) -> View:
    """A corpus as a model reads it in one of the contexts."""
    other = str(data / OTHER[corpus.name])
    settings = {name: other if value is ... else value for name, value in READINGS[reading].items()}
    options = Configuration("cde", settings={"model": str(model), **settings}).options()
    encoder = as_context_encoder(load_encoder(str(model), options.encoder_options("auto", threads=given.threads)))
    assert encoder is not None, "a model of the recipe reads a corpus"
    placed, _ = Conditioning(lambda tokens: None).of(encoder, options, corpus)
    cache: Cache = MemoryCache() if given.cache is None else DiskCache(given.cache, placed.spec)
    Encoded(placed, cache).index(corpus)
    keys = [key_of(one) for one in corpus.documents]
    kept = dict(cache.find(keys))
    chunks = np.concatenate([kept[key].vectors.astype(np.float32) for key in keys])
    return View(placed.encode_queries([query.text for query in corpus.queries]), chunks)


def difference(one: Values, other: Values) -> dict[str, float]:
    """The mean of the differences, with its 95 % interval over questions."""
    apart = interval(one - other)
    return {"mean": apart.mean, "low": apart.low, "high": apart.high}


def compare(corpus: Corpus, views: dict[str, View]) -> dict[str, Any]:
    """A corpus in its own context beside others, and without its mean."""
    found = {name: rank(corpus, view) for name, view in views.items()}
    own = views[OWN]
    against = {
        name: {
            "cosine of chunks": cosine(own.chunks, views[name].chunks),
            "cosine of questions": cosine(own.queries, views[name].queries),
            "other first chunk": float((found[OWN].firsts != found[name].firsts).mean()),
            "difference": difference(found[OWN].ndcg, found[name].ndcg),
        }
        for name in views
        if name != OWN
    }
    centred = rank(corpus, views[NONE].centred())
    return {
        "queries": len(corpus.queries),
        "against": against,
        "centred": difference(centred.ndcg, found[NONE].ndcg),
    }


def bias(model: Path) -> dict[str, float]:
    """The bias of context scores, mean over layers: before the training, and after it."""
    from safetensors.numpy import load_file

    from ctxindex.encoding.cde.settings import TENSORS, read_cde

    settings = read_cde(model)
    assert settings is not None, "a model of the recipe is a CDE model"
    return {"before": settings.context_bias_init, "after": float(load_file(model / TENSORS)["bias"].mean())}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("data", type=Path)
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--documents", type=int)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--threads", type=int)
    given = parser.parse_args()
    chunker = load_chunker(recipe.CHUNKS, load_encoder(MINILM).tokenizer)
    corpora = [
        first(cut(open_dataset(str(given.data / name)), chunker, recipe.CHUNKS), given.documents) for name in SETS
    ]
    found = json.loads(MEASURED.read_text(encoding="utf-8"))["models"] if MEASURED.exists() else {}
    for model in given.models:
        sets = {
            corpus.name: compare(
                corpus, {name: read(model, corpus, given.data, name, given) for name in (OWN, ANOTHER, NONE)}
            )
            for corpus in corpora
        }
        found[model.name] = {"documents": given.documents, "bias": bias(model), "sets": sets}
        write(found)
        print("\n".join(effect_lines({model.name: found[model.name]})), flush=True)


def write(found: dict[str, Any]) -> None:
    """All that was measured so far."""
    MEASURED.parent.mkdir(exist_ok=True)
    MEASURED.write_text(json.dumps({"models": found}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
