"""What a corpus context costs: documents encoded with one, beside plain late chunking with the same weights.

    python benchmarks/cde.py [FOLDER] [--model minilm] [--documents N] [--context 512] [--repeat K]
                             [--dtype auto|bfloat16|float32]

FOLDER holds .txt files (default: the bundled contracts). Both encoders are in one process and read the same chunks of
128 tokens, in turns, a batch at a time; what counts is the processor time of this process, so that a busy machine
disturbs the ratio little. The context is made of the documents' own chunks, again and again where there are too few.
The target is a ratio of 1.3 with 512 texts.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.contenders import CHUNK_TOKENS, load_recursive
from benchmarks.processes import ROOT, describe_machine, resolve_dtype
from ctxindex.encoding import Encoder, EncoderOptions, load_encoder
from ctxindex.encoding.cde.corpus_context import sample_context
from ctxindex.encoding.cde.encoder import CdeEncoder
from ctxindex.encoding.cde.folder import make_native_cde
from ctxindex.types import ChunkedDocument, Document, EncodedDocument

SAMPLES = ROOT / "recipes" / "data" / "contracts"
TARGET = 1.3


def seconds(encoder: Encoder, documents: list[ChunkedDocument]) -> float:
    """Processor time that the vectors of all documents take."""
    start = time.process_time()
    done = list(encoder.encode_documents(documents))
    taken = time.process_time() - start
    assert all(isinstance(one, EncodedDocument) for one in done)
    return taken


def fill(texts: list[str], size: int) -> list[str]:
    """`size` texts: all of them as often as it takes."""
    return [texts[number % len(texts)] for number in range(size)]


def measure(arguments: argparse.Namespace, place: Path) -> dict[str, Any]:
    """Both encoders in turns: seconds, their ratio, and the price of the context itself."""
    dtype = resolve_dtype(arguments.dtype)
    plain = load_encoder(arguments.model, EncoderOptions(method="late", device="cpu", dtype=dtype, threads=1))
    options = EncoderOptions(device="cpu", dtype=dtype, threads=1)
    null = load_encoder(str(make_native_cde(arguments.model, place / "model")), options)
    assert isinstance(null, CdeEncoder)
    chunker = load_recursive(plain.tokenizer)
    documents = [
        ChunkedDocument(document, chunker.chunk(document))
        for file in sorted(arguments.folder.glob("*.txt"))[: arguments.documents]
        for document in [Document(file.name, file.read_text(encoding="utf-8"))]
    ]
    start = time.process_time()
    texts = [chunk.text for chunk in sample_context(documents, arguments.context)]
    encoder = null.with_context(null.encode_context(fill(texts, arguments.context)))
    price = time.process_time() - start
    runs: dict[str, list[float]] = {"late": [], "cde": []}
    for round_number in range(arguments.repeat + 1):
        for name, contender in (("late", plain), ("cde", encoder)):
            taken = seconds(contender, documents)
            if round_number:  # the first round loads and warms up
                runs[name].append(taken)
    return {
        "machine": describe_machine(1, {"torch": version("torch")}),
        "dtype": dtype,
        "documents": len(documents),
        "chunks": sum(len(document.chunks) for document in documents),
        "chunk_tokens": CHUNK_TOKENS,
        "context": arguments.context,
        "context_seconds": round(price, 2),
        "seconds": {name: round(median(taken), 3) for name, taken in runs.items()},
        "ratio": round(median(cde / late for late, cde in zip(runs["late"], runs["cde"], strict=True)), 3),
        "target": TARGET,
    }


def main() -> None:
    """Read the arguments, measure, and print the result as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=SAMPLES)
    parser.add_argument("--model", default="minilm")
    parser.add_argument("--documents", type=int, default=4)
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--dtype", default="auto", choices=("auto", "bfloat16", "float32"))
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        print(json.dumps(measure(arguments, Path(place)), indent=2))


if __name__ == "__main__":
    main()
