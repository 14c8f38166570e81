"""The contenders of `encode.py`: a loaded model each, and the way a library is used to make chunks and vectors.

Peers are imported where they are used, since no interpreter has to have them all.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ctxindex.chunking import SpanChunker
    from ctxindex.encoding.rows import Row
    from ctxindex.types import FloatArray, Tokenizer

CHUNK_TOKENS = 128
DEFAULT_BATCH = 32


@dataclass(frozen=True, slots=True)
class Job:
    """What one process is to do; `kind` is a key of `CONTENDERS` or `TASKS`.

    `anchor` and `blend` are ours alone, `batch_size` is that of Sentence-Transformers. `folder` is where a task may
    write, `lengths` the tokens of a short and of a long document that it cuts there.
    """

    kind: str
    model: str = ""
    dtype: str = "float32"
    files: tuple[str, ...] = ()
    anchor: int = 0
    blend: float = 0.0
    batch_size: int = DEFAULT_BATCH
    folder: str = ""
    lengths: tuple[int, int] = (0, 0)

    def to_json(self) -> str:
        """The job as a line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str) -> Job:
        """The inverse of `to_json`."""
        values = json.loads(line)
        return cls(**{**values, "files": tuple(values["files"]), "lengths": tuple(values["lengths"])})


class Contender(ABC):
    """A loaded model and the way a library is used with it."""

    @abstractmethod
    def run(self, texts: Sequence[str]) -> int:
        """The whole job: chunks of all texts, and their vectors. Says how many there are."""

    def reset(self) -> None:  # noqa: B027 - most have counted nothing
        """Forget what warming up has counted."""

    def extras(self) -> dict[str, Any]:
        """What else is to be said of the last run."""
        return {}


class Ours(Contender):
    """Late chunking with this package."""

    def __init__(self, job: Job) -> None:
        from ctxindex.encoding import EncoderOptions, load_encoder, open_checkpoint
        from ctxindex.metering import Meter

        options = EncoderOptions(
            method="late", device="cpu", dtype=job.dtype, anchor=job.anchor or None, blend=job.blend or None
        )
        self._job = job
        self._meter = Meter()
        self._encoder = load_encoder(job.model, options, self._meter)
        self._rows = CountedRows(self._encoder.load())
        self._encoder._backbone = self._rows  # every row that goes through the model has to pass there
        self._config = open_checkpoint(job.model).backbone
        self._chunker = load_recursive(self._encoder.tokenizer)
        self._tokens = 0

    def run(self, texts: Sequence[str]) -> int:
        """See `Contender.run`."""
        from ctxindex.types import ChunkedDocument, Document, FailedDocument

        def chunked() -> Iterator[ChunkedDocument]:
            for number, text in enumerate(texts):
                document = Document(str(number), text)
                with self._meter.time("chunk"):
                    chunks = self._chunker.chunk(document)
                yield ChunkedDocument(document, chunks)

        vectors = []
        for encoded in self._encoder.encode_documents(chunked()):
            if isinstance(encoded, FailedDocument):
                raise RuntimeError(encoded.reason)
            vectors.append(encoded.vectors)
            self._tokens += encoded.n_tokens
        return sum(map(len, vectors))

    def reset(self) -> None:
        """See `Contender.reset`."""
        self._meter.reset()
        self._rows.lengths.clear()
        self._tokens = 0

    def extras(self) -> dict[str, Any]:
        """The stages' seconds, tokens, and the forward pass beside the machine's own matrix products."""
        import torch

        from benchmarks.matrix import ModelShape, forward_flops, matmul_rates

        shape = ModelShape.read(self._config)
        flops = forward_flops(shape, self._rows.lengths)
        rate = flops / self._meter.seconds["forward"]
        matmul = matmul_rates(shape, self._job.dtype)
        return {
            "tokens": self._tokens,
            "row_tokens": sum(self._rows.lengths),
            "stages": {stage: round(seconds, 4) for stage, seconds in self._meter.seconds.items()},
            "threads": torch.get_num_threads(),
            "forward_gflops": rate / 1e9,
            "matmul_gflops": {name: value / 1e9 for name, value in matmul.items()},
            "matrix_fraction": rate / matmul["all"],
        }


class CountedRows:
    """A backbone that writes down the length of every row it is given."""

    def __init__(self, backbone: Any) -> None:
        self.lengths: list[int] = []
        self._backbone = backbone

    def place_sums(self, rows: Sequence[Row]) -> FloatArray:
        """See `Backbone.place_sums`."""
        self.lengths += [row.length for row in rows]
        sums: FloatArray = self._backbone.place_sums(rows)
        return sums

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backbone, name)


class SentenceTransformers(Contender):
    """`SentenceTransformer.encode` on the same chunks as ours."""

    def __init__(self, job: Job, backend: str = "torch") -> None:
        from sentence_transformers import SentenceTransformer

        # The provider is named so that no GPU build of the runtime takes the job elsewhere.
        known: dict[str, Any] = {"provider": "CPUExecutionProvider"} if backend == "onnx" else model_kwargs(job)
        chosen: dict[str, Any] = {"backend": backend, "model_kwargs": known} if known else {}
        self._model = SentenceTransformer(job.model, device="cpu", **chosen)
        self._chunker = load_recursive(load_tokenizer(job))
        self.batch_size = job.batch_size

    def run(self, texts: Sequence[str]) -> int:
        """See `Contender.run`."""
        chunks = [chunk for number, text in enumerate(texts) for chunk in chunk_texts(self._chunker, number, text)]
        return len(self._model.encode(chunks, batch_size=self.batch_size))


class Onnx(SentenceTransformers):
    """The same with the ONNX backend; the model is exported in loading, untimed."""

    def __init__(self, job: Job) -> None:
        super().__init__(job, "onnx")


class LlamaIndex(Contender):
    """`IngestionPipeline` with a sentence splitter that counts the model's tokens, and `HuggingFaceEmbedding`."""

    def __init__(self, job: Job) -> None:
        from llama_index.core.node_parser import SentenceSplitter
        from llama_index.embeddings.huggingface import HuggingFaceEmbedding
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(Path(job.model) / "tokenizer.json"))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        chosen: dict[str, Any] = {"model_kwargs": known} if (known := model_kwargs(job)) else {}
        self._steps = [
            SentenceSplitter(
                chunk_size=CHUNK_TOKENS,
                chunk_overlap=0,
                tokenizer=lambda text: tokenizer.encode(text, add_special_tokens=False).ids,
            ),
            HuggingFaceEmbedding(model_name=job.model, device="cpu", **chosen),
        ]

    def run(self, texts: Sequence[str]) -> int:
        """See `Contender.run`. A new pipeline every time: one keeps what it has embedded."""
        from llama_index.core import Document
        from llama_index.core.ingestion import IngestionPipeline

        pipeline = IngestionPipeline(transformations=list(self._steps))
        return len(pipeline.run(documents=[Document(text=text) for text in texts]))


class Chonkie(Contender):
    """`LateChunker`, one text after the other."""

    def __init__(self, job: Job) -> None:
        from chonkie import LateChunker

        chosen: dict[str, Any] = {"model_kwargs": known} if (known := model_kwargs(job)) else {}
        self._chunker = LateChunker(embedding_model=job.model, chunk_size=CHUNK_TOKENS, device="cpu", **chosen)
        self._documents = self._alone = 0

    def run(self, texts: Sequence[str]) -> int:
        """See `Contender.run`."""
        found = [self._chunker.chunk(text) for text in texts]
        self._documents = len(found)
        # Where the states do not add up to the chunks, it embeds every chunk again, alone, and calls it one token.
        self._alone = sum(len(chunks) > 1 and all(chunk.token_count == 1 for chunk in chunks) for chunks in found)
        return sum(map(len, found))

    def extras(self) -> dict[str, Any]:
        """Of how many documents the chunks were not chunked late after all."""
        if not self._alone:
            return {}
        return {"note": f"embedded the chunks alone in {self._alone} of {self._documents} documents"}


def load_recursive(tokenizer: Tokenizer) -> SpanChunker:
    """The chunker whose chunks are the same for us and for Sentence-Transformers."""
    from ctxindex.chunking import load_chunker
    from ctxindex.spec import ChunkerSpec

    return load_chunker(ChunkerSpec("recursive", CHUNK_TOKENS, "tokens", 0), tokenizer)


def load_tokenizer(job: Job) -> Tokenizer:
    """The tokenizer that our encoder of this model measures chunks with. Brings in no torch."""
    from ctxindex.encoding import EncoderOptions, load_encoder

    return load_encoder(job.model, EncoderOptions(method="late")).tokenizer


def chunk_texts(chunker: SpanChunker, number: int, text: str) -> list[str]:
    """The chunks of one text, as text."""
    from ctxindex.types import Document

    return [chunk.text for chunk in chunker.chunk(Document(str(number), text))]


def model_kwargs(job: Job) -> dict[str, Any]:
    """What makes a peer load the model in the job's dtype; nothing for float32, its default."""
    import torch

    return {"dtype": torch.bfloat16} if job.dtype == "bfloat16" else {}


CONTENDERS: dict[str, Callable[[Job], Contender]] = {
    "late": Ours,
    "sentence-transformers": SentenceTransformers,
    "onnx": Onnx,
    "llama-index": LlamaIndex,
    "chonkie": Chonkie,
}
