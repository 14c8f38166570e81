"""One process of `encode.py`: a job as JSON on standard input, what came of it as JSON on standard output.

    python -m benchmarks.jobs < job.json

Every contender loads the model and reads a short text before the clock starts. What is timed is the whole job: texts
in memory -> chunks -> vectors.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.contenders import (
    CONTENDERS,
    DEFAULT_BATCH,
    Job,
    SentenceTransformers,
    chunk_texts,
    load_recursive,
    load_tokenizer,
)

if TYPE_CHECKING:
    from ctxindex.types import Tokenizer

BATCH_SIZES = (8, 16, DEFAULT_BATCH, 64)
WARM_UP = "Either party may terminate this agreement with a notice of thirty days."
DISTRIBUTIONS = (
    *("torch", "transformers", "tokenizers", "sentence-transformers", "optimum-onnx", "onnxruntime"),
    *("llama-index-core", "llama-index-embeddings-huggingface", "chonkie"),
)


def measure(job: Job) -> dict[str, Any]:
    """Load, warm up, and time the whole job once."""
    texts = read_texts(job)
    contender = CONTENDERS[job.kind](job)
    contender.run([WARM_UP])
    contender.reset()
    began = time.perf_counter()
    chunks = contender.run(texts)
    seconds = time.perf_counter() - began
    peak = peak_mib()  # before the matrix products, which are none of the contender's
    return {"seconds": seconds, "chunks": chunks, "peak_mib": peak, **contender.extras()}


def try_batch_sizes(job: Job) -> dict[str, Any]:
    """Seconds of Sentence-Transformers for each batch size, in one process: enough to choose one."""
    texts = read_texts(job)
    contender = SentenceTransformers(job)
    contender.run([WARM_UP])
    found: dict[str, float] = {}
    for contender.batch_size in BATCH_SIZES:
        began = time.perf_counter()
        contender.run(texts)
        found[str(contender.batch_size)] = time.perf_counter() - began
    return {"seconds_by_batch_size": found}


def prepare(job: Job) -> dict[str, Any]:
    """Count the content tokens of our chunks, and cut documents of two lengths out of the same text."""
    tokenizer = load_tokenizer(job)
    chunker = load_recursive(tokenizer)
    texts = read_texts(job)
    chunks = [chunk for number, text in enumerate(texts) for chunk in chunk_texts(chunker, number, text)]
    if job.folder:
        short, long = job.lengths
        write_texts(Path(job.folder) / "long", cut_text(texts, tokenizer, long, long))
        write_texts(Path(job.folder) / "short", cut_text(texts, tokenizer, short, long))
    return {"documents": len(texts), "chunks": len(chunks), "tokens": sum(tokenizer.count(chunks))}


def cut_text(texts: Sequence[str], tokenizer: Tokenizer, size: int, total: int) -> list[str]:
    """The first `total` tokens of the texts, over and over if need be, in parts of `size`."""
    taken: list[str] = []
    missing = total
    for text in cycle(texts):
        taken.append(text)
        missing -= tokenizer.count([text])[0]
        if missing <= 0:
            break
    whole = "\n\n".join(taken)
    places = tokenizer.offsets(whole)[:total]
    parts = [places[first : first + size] for first in range(0, total, size)]
    return [whole[part[0][0] : part[-1][1]] for part in parts]


def write_texts(folder: Path, texts: Sequence[str]) -> None:
    folder.mkdir()
    for number, text in enumerate(texts):
        (folder / f"{number:04}.txt").write_text(text, encoding="utf-8")


def ingest(job: Job) -> dict[str, Any]:
    """A whole ingest of a folder into LanceDB: what it takes in memory."""
    from ctxindex import Index

    (source,) = job.files
    with Index.open("bench", store="lancedb", path=job.folder, method="late", dtype=job.dtype, device="cpu") as index:
        report = index.ingest(source, include=["*.txt"])
    if report.failures:
        raise RuntimeError(report.failures[0].reason)
    return {"peak_mib": peak_mib(), "tokens": report.tokens, "documents": report.new, "seconds": report.seconds}


def probe(_: Job) -> dict[str, Any]:
    """The versions of what this interpreter has of the peers."""
    found: dict[str, str] = {}
    for name in DISTRIBUTIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {"versions": found}


def read_texts(job: Job) -> list[str]:
    return [Path(file).read_text(encoding="utf-8") for file in job.files]


def peak_mib() -> float:
    """The largest resident memory that the system has seen of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)


TASKS: dict[str, Callable[[Job], dict[str, Any]]] = {
    "prepare": prepare,
    "batch-sizes": try_batch_sizes,
    "ingest": ingest,
    "probe": probe,
}


def main() -> None:
    job = Job.from_json(sys.stdin.read())
    # Libraries print what they like; the answer goes out where the parent listens, and nothing else does.
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        result = TASKS.get(job.kind, measure)(job)
    except Exception as error:  # a peer may fail in any way, and the others are measured all the same
        lines = str(error).strip().splitlines() or [""]
        result = {"failed": f"{type(error).__name__}: {lines[0]}"[:300]}
    with answer:
        print(json.dumps(result), file=answer)


if __name__ == "__main__":
    main()
