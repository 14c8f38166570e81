"""Small datasets of pieces, and an encoder whose vectors a test can compute by itself."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ctxindex.evaluation import Corpus, Dataset, GoldSpan, Query, cut
from ctxindex.spec import EncoderSpec
from ctxindex.types import Chunk, ChunkedDocument, Document, EncodedDocument, FailedDocument

if TYPE_CHECKING:
    from ctxindex.types import FloatArray

Question = tuple[str, Sequence[tuple[str, int]]]
"""A text, and the pieces that answer it: doc_id and number of the piece."""

PEOPLE = {
    "napoleon": [
        "Napoleon was born in Corsica, in the year 1769.",
        "He became emperor of the French in 1804.",
        "He died in exile, on the island of Saint Helena.",
    ],
    "curie": ["Marie Curie was born in Warsaw.", "She discovered polonium and radium.", "She won two Nobel prizes."],
    "edo": ["Tokyo is the capital of Japan.", "Its old name is Edo."],
    "fee": ["The agreement may be terminated early by either party."],
}
QUESTIONS: list[Question] = [
    ("Where was Napoleon born?", [("napoleon", 0)]),
    ("When did Napoleon become emperor?", [("napoleon", 1)]),
    ("Which elements did Marie Curie discover?", [("curie", 1)]),
    ("What was Tokyo called?", [("edo", 1), ("edo", 0)]),
    ("Who may terminate the agreement?", [("fee", 0)]),
]


def pieces(doc_id: str, texts: Sequence[str], **more: Any) -> tuple[Document, tuple[tuple[int, int], ...]]:
    """A document of these texts, an empty line between them, and the span of each."""
    spans, end = [], 0
    for text in texts:
        spans.append((end, end + len(text)))
        end += len(text) + 2
    return Document(doc_id, "\n\n".join(texts), **more), tuple(spans)


def dataset_of(
    texts: Mapping[str, Sequence[str]],
    questions: Sequence[Question],
    *,
    name: str = "set",
    level: str = "chunk",
    titles: Mapping[str, str] | None = None,
    given: bool = False,
) -> Dataset:
    """Documents of pieces, which are the set's own chunks; at the level "document" whole documents answer."""
    made = [pieces(doc_id, parts, title=(titles or {}).get(doc_id)) for doc_id, parts in texts.items()]
    units = {document.doc_id: spans for document, spans in made}
    queries = []
    for number, (text, gold) in enumerate(questions):
        spans = tuple(GoldSpan(doc_id, *units[doc_id][piece]) for doc_id, piece in gold)
        grades = {doc_id: 1 for doc_id, _ in gold}
        answer: dict[str, Any] = {"spans": spans} if level == "chunk" else {"grades": grades}
        queries.append(Query(f"q{number}", text, **answer))
    return Dataset(name, tuple(document for document, _ in made), tuple(queries), units, given)


def corpus_of(texts: Mapping[str, Sequence[str]], questions: Sequence[Question], **more: Any) -> Corpus:
    """The same, each piece a chunk."""
    return cut(dataset_of(texts, questions, **more), None)


def people(**more: Any) -> Corpus:
    return corpus_of(PEOPLE, QUESTIONS, **more)


def vectors_of(text: str, count: int, dim: int) -> FloatArray:
    """Unit vectors that a text has by chance, the same in every process."""
    drawn = np.random.default_rng(zlib.crc32(text.encode())).normal(size=(count, dim))
    unit: FloatArray = (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)
    return unit


def length_of(text: str) -> int:
    """How many vectors a text has where it has several: one a word."""
    return len(text.split())


class FakeEncoder:
    """Implements `Encoder`: the vectors of a text are `vectors_of` it; documents of `failing` give none.

    It takes all documents in before it gives the first out, and gives them out in reverse; or one by one.
    """

    class Words:
        """Implements `Tokenizer` as far as it is asked: a token a word."""

        def count(self, texts: Sequence[str]) -> list[int]:
            return [length_of(text) for text in texts]

    tokenizer: Any = Words()

    def __init__(
        self,
        *,
        dim: int = 6,
        multivector: bool = False,
        failing: Sequence[str] = (),
        one_by_one: bool = False,
        **spec: Any,
    ) -> None:
        values: dict[str, Any] = {
            "model": "fake",
            "digest": "0",
            "method": "independent",
            "max_tokens": 64,
            "pooling": "inclusive",
            "join": "none",
            "overlap": 0,
            "owner": "none",
            **spec,
        }
        self.spec = EncoderSpec(dim=dim, multivector=multivector, **values)
        self.failing = set(failing)
        self.one_by_one = one_by_one
        self.encoded: list[str] = []

    def encode_documents(self, documents: Iterable[ChunkedDocument]) -> Iterator[EncodedDocument | FailedDocument]:
        for one in documents if self.one_by_one else reversed(list(documents)):
            self.encoded.append(one.document.doc_id)
            yield self._encode(one)

    def encode_queries(self, queries: Sequence[str]) -> FloatArray | list[FloatArray]:
        if self.spec.multivector:
            return [self.vectors(query) for query in queries]
        return np.concatenate([self.vectors(query) for query in queries])

    def vectors(self, text: str) -> FloatArray:
        return vectors_of(text, length_of(text) if self.spec.multivector else 1, self.spec.dim)

    def _encode(self, one: ChunkedDocument) -> EncodedDocument | FailedDocument:
        if one.document.doc_id in self.failing:
            return FailedDocument(one.document.doc_id, "no luck")
        chunks: tuple[Chunk, ...] = one.chunks
        found = [self.vectors(chunk.text) for chunk in chunks]
        zeros = (0,) * len(chunks)
        lengths = tuple(map(len, found)) if self.spec.multivector else None
        return EncodedDocument(one.document, chunks, np.concatenate(found), zeros, zeros, 0, lengths)
