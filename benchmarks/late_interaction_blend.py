"""Which blend of contextual and isolated token vectors finds most: all of both, two scores, one mixed vector a token.

    python benchmarks/late_interaction_blend.py DATA [--model NAME] [--queries N] [--threads N]

The vectors are the token states of a model that was not trained for late interaction (MiniLM), divided by their length:
they tell the forms apart on real text, and say nothing of how well a late-interaction model finds. For a chunk with the
vectors C in its window (late chunking, anchor of 64 tokens and title) and I alone behind the title, of the same tokens:

    contextual    MaxSim(q, C)
    isolated      MaxSim(q, I)
    union         MaxSim(q, C and I)                             twice the vectors
    weighted b    (1 - b) MaxSim(q, C) + b MaxSim(q, I)          twice the vectors, and two scores to add up
    token-wise b  MaxSim(q, normalize((1 - b) C + b I))          as many vectors as without

Scores are exact, over all chunks (500 characters at most) of the first documents of each set. The results of each model
go into `benchmarks/measured/late_interaction_blend.json`, from which `results.py` makes a table.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from ctxindex.chunking import load_chunker
from ctxindex.encoding import EncoderOptions, load_encoder
from ctxindex.encoding.batching import cut_batches
from ctxindex.encoding.pooling import unit_rows
from ctxindex.encoding.rows import Place, Row
from ctxindex.evaluation.corpus import Corpus, cut
from ctxindex.evaluation.datasets import open_dataset
from ctxindex.evaluation.metrics import DEPTH, item_metrics
from ctxindex.evaluation.ranking import best
from ctxindex.evaluation.significance import interval
from ctxindex.spec import ChunkerSpec

if TYPE_CHECKING:
    import numpy.typing as npt

    from ctxindex.encoding.local import LocalEncoder
    from ctxindex.types import FloatArray

    Values = npt.NDArray[np.float64]

MEASURED = Path(__file__).parent / "measured" / "late_interaction_blend.json"
DOCUMENTS = {"medquad-eval-masked": 60, "squad-eval": 12, "contracts": 10, "covidqa-eval": 8}
"""How many documents of each set."""

WEIGHTS = (0.3, 0.5, 0.7)
CHUNKS = ChunkerSpec("recursive", 500, "chars", 0)
READ = EncoderOptions(method="late", anchor=64, anchor_title=True, blend=0.5, isolated="title", dtype="float32")
BATCH_TOKENS = 4096

Views = list[tuple["FloatArray", "FloatArray"]]
"""(tokens, dim) float32 of each chunk, unit rows: in context, and alone."""


def some(corpus: Corpus, documents: int, queries: int) -> Corpus:
    """The first documents, and at most so many of the queries that they answer, drawn with seed 0."""
    kept = range(min(documents, len(corpus.documents)))
    answered = [number for number in range(len(corpus.queries)) if set(corpus.gold_documents(number)) <= set(kept)]
    drawn = np.random.default_rng(0).permutation(answered)[:queries].tolist()
    return corpus.part(kept, [number for number in drawn if corpus.gold[number]])


def token_vectors(encoder: LocalEncoder, rows: Sequence[Row]) -> list[list[FloatArray]]:
    """For each row the unit vectors of the tokens of each of its places."""
    found: dict[int, list[FloatArray]] = {}
    for batch in cut_batches(rows, BATCH_TOKENS):
        # The sum over a place of one token is the token's state.
        tokens = [replace(row, places=tuple(_single(row.places)), context=()) for row in batch]
        states = unit_rows(encoder.load().place_sums(tokens))
        lengths = [place.end - place.start for row in batch for place in row.places]
        parts = iter(np.split(states, list(accumulate(lengths))[:-1]))
        found |= {id(row): [next(parts) for _ in row.places] for row in batch}
    return [found[id(row)] for row in rows]


def _single(places: Sequence[Place]) -> list[Place]:
    return [Place(place.chunk, at, at + 1) for place in places for at in range(place.start, place.end)]


def views(encoder: LocalEncoder, corpus: Corpus) -> Views:
    """Both views of every chunk of the corpus."""
    found: Views = []
    for source in corpus.documents:
        rows = encoder.document_rows(source)
        sides: dict[bool, list[list[FloatArray]]] = {side: [[] for _ in source.chunks] for side in (False, True)}
        for row, parts in zip(rows, token_vectors(encoder, rows), strict=True):
            for place, part in zip(row.places, parts, strict=True):
                sides[row.isolated][place.chunk].append(part)
        pairs = zip(sides[False], sides[True], strict=True)
        found += [(np.concatenate(contextual), np.concatenate(isolated)) for contextual, isolated in pairs]
    return found


def products(queries: FloatArray, chunks: Sequence[FloatArray]) -> FloatArray:
    """(query tokens, chunks) float32: the greatest product of each query token with one of each chunk's."""
    columns = []
    for start in range(0, len(chunks), 64):
        part = chunks[start : start + 64]
        firsts = list(accumulate(map(len, part), initial=0))[:-1]
        columns.append(np.maximum.reduceat(queries @ np.concatenate(part).T, firsts, axis=1))
    return np.concatenate(columns, axis=1)


def forms(queries: FloatArray, chunks: Views) -> dict[str, FloatArray]:
    """What each form gives each query token with each chunk, to be added up over a query's tokens."""
    contextual, isolated = (products(queries, [one[side] for one in chunks]) for side in (0, 1))
    found = {"contextual": contextual, "isolated": isolated, "union": np.maximum(contextual, isolated)}
    for b in WEIGHTS:
        found[f"weighted {b:g}"] = (1 - b) * contextual + b * isolated
    for b in WEIGHTS:
        found[f"token-wise {b:g}"] = products(queries, [unit_rows((1 - b) * one + b * other) for one, other in chunks])
    return found


def measure(encoder: LocalEncoder, corpus: Corpus) -> dict[str, Values]:
    """nDCG@10 of every query by form."""
    rows = encoder.query_rows([query.text for query in corpus.queries])
    asked = [parts[0] for parts in token_vectors(encoder, rows)]
    edges = list(accumulate(map(len, asked), initial=0))
    found = {}
    for name, tokens in forms(np.concatenate(asked), views(encoder, corpus)).items():
        scores = np.stack([tokens[start:end].sum(axis=0) for start, end in pairwise(edges)])
        ranked, values = best(scores, corpus.chunk_order, DEPTH)
        found[name] = item_metrics(corpus.gold, ranked, values, corpus.chunk_names)["ndcg@10"]
    return found


def difference(found: dict[str, dict[str, Values]], one: str, other: str) -> dict[str, float]:
    """The mean of the differences of all queries, with its 95 % interval."""
    apart = interval(np.concatenate([of[one] - of[other] for of in found.values()]))
    return {"mean": apart.mean, "low": apart.low, "high": apart.high}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="minilm")
    parser.add_argument("--queries", type=int, default=200, help="of each set, at most")
    parser.add_argument("--threads", type=int, default=None)
    given = parser.parse_args()
    encoder = load_encoder(given.model, replace(READ, threads=given.threads))
    chunker = load_chunker(CHUNKS, encoder.tokenizer)
    found: dict[str, dict[str, Values]] = {}
    sizes: dict[str, Any] = {}
    for name, documents in DOCUMENTS.items():
        corpus = some(cut(open_dataset(str(given.data / name)), chunker, CHUNKS), documents, given.queries)
        found[name] = measure(encoder, corpus)
        sizes[name] = {"documents": len(corpus.documents), "chunks": corpus.n_chunks, "queries": len(corpus.queries)}
        print(name, sizes[name], *(f"{form} {100 * one.mean():.1f}" for form, one in found[name].items()), flush=True)
    apart = {
        f"{form} - {other}": difference(found, form, other)
        for b in WEIGHTS
        for form in (f"token-wise {b:g}", f"weighted {b:g}")
        for other in ("contextual", "union", *([f"weighted {b:g}"] if form.startswith("token") else []))
    }
    for form, one in apart.items():
        print(f"{form}: {100 * one['mean']:+.2f} [{100 * one['low']:+.2f}, {100 * one['high']:+.2f}]")
    scores = {form: {name: float(of[form].mean()) for name, of in found.items()} for form in next(iter(found.values()))}
    write(given.model, {"sets": sizes, "ndcg@10": scores, "differences": apart})


def write(model: str, measured: dict[str, Any]) -> None:
    """What was found with a model, beside what was found with others."""
    held = json.loads(MEASURED.read_text(encoding="utf-8")) if MEASURED.exists() else {}
    MEASURED.parent.mkdir(exist_ok=True)
    MEASURED.write_text(json.dumps({**held, model: measured}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
