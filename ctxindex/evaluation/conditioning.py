"""The corpus context that a CDE encoder is evaluated in: of the corpus itself, of another one, or none.

As an index has one from its own documents, so has the corpus that is evaluated; the sample is the same that an index of
it would take. `context=null` and `context=NAME`, of another dataset or of documents, are the controls: what vectors are
worth without a context, and whether it has to be the right one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctxindex.chunking import load_chunker
from ctxindex.encoding.cde.corpus_context import sample_context
from ctxindex.errors import ConfigError
from ctxindex.evaluation.corpus import Corpus, cut
from ctxindex.evaluation.dataset import Dataset
from ctxindex.evaluation.datasets.opening import is_dataset, name_of, open_dataset
from ctxindex.indexing.freezing import SEED
from ctxindex.indexing.options import CORPUS_CONTEXT, IndexOptions, require_sample, sample_settings
from ctxindex.loading import load_documents
from ctxindex.spec import NULL_CONTEXT, SAMPLINGS
from ctxindex.types import ChunkedDocument, Chunker, Document, FailedDocument

if TYPE_CHECKING:
    from ctxindex.encoding.cde.context_encoder import ContextEncoder


class Conditioning:
    """Puts encoders in corpus contexts.

    Args:
        advance: told of the tokens that go through the model, but for those of contexts, which no plan counts.
    """

    def __init__(self, advance: Callable[[int], None]) -> None:
        self._told = advance
        self._at_work = False
        self._elsewhere: dict[str, Dataset] = {}

    def advance(self, tokens: int) -> None:
        """What the encoders report to."""
        if not self._at_work:
            self._told(tokens)

    def check(self, encoder: ContextEncoder | None, options: IndexOptions) -> None:
        """Find out whether the encoder can read in the context that is asked for.

        Raises:
            ConfigError: it reads no corpus context, has no stand-in for one, or no sample can be drawn like that.
            CtxIndexError: another corpus cannot be read.
        """
        source = options.context
        asked = {**({} if source is None else {"context": source}), **sample_settings(options)}
        if encoder is None and asked:
            name, value = next(iter(asked.items()))
            raise ConfigError(f"{name}={value} is for method cde, the only one that reads a corpus context")
        require_sample(options)
        if encoder is None or source is None:
            return
        if source == NULL_CONTEXT:
            encoder.with_context(None)
        elif source != CORPUS_CONTEXT:
            self._dataset(source)

    def of(
        self, encoder: ContextEncoder, options: IndexOptions, corpus: Corpus
    ) -> tuple[ContextEncoder, Mapping[str, Any]]:
        """The encoder in the context asked for, and what is to be told of it: whose it is, its texts, the seconds.

        Args:
            encoder: of documents and queries.
            options: `context` None or "corpus" for the corpus itself, "null" for none, or the name of a dataset, file
                or folder; and how its sample is drawn.
            corpus: what is evaluated.

        Raises:
            ConfigError: the model has no stand-in for a context.
            CtxIndexError: the other corpus cannot be read, or a context not be made.
        """
        source = options.context
        if source == NULL_CONTEXT:
            return encoder.with_context(None), {"of": NULL_CONTEXT, "texts": 0, "seconds": 0.0}
        documents: Sequence[ChunkedDocument] = corpus.documents
        if source not in (None, CORPUS_CONTEXT):
            documents = self._chunked(str(source), corpus, encoder)
        began = time.perf_counter()
        readable = list(_readable(documents, encoder))
        seed, sampling = options.context_seed or SEED, options.context_sampling or SAMPLINGS[0]
        texts = [one.text for one in sample_context(readable, encoder.context_size, seed, sampling)]
        with self._silence():
            placed = encoder.with_context(encoder.encode_context(texts, seed=seed))
        whose = corpus.name if source in (None, CORPUS_CONTEXT) else name_of(str(source))
        return placed, {"of": whose, "texts": len(texts), "seconds": time.perf_counter() - began}

    def _dataset(self, name: str) -> Dataset:
        if name not in self._elsewhere:
            documents = Path(name).exists() and not is_dataset(name)
            self._elsewhere[name] = _documents(name) if documents else open_dataset(name)
        return self._elsewhere[name]

    def _chunked(self, name: str, corpus: Corpus, encoder: ContextEncoder) -> Sequence[ChunkedDocument]:
        """Another corpus, cut as this one is; where both have chunks of their own, in its own."""
        dataset = self._dataset(name)
        if corpus.chunker is None and dataset.units is not None:
            return cut(dataset, None).documents
        spec = corpus.chunker or IndexOptions().chunker_spec()
        chunker: Chunker = load_chunker(spec, encoder.tokenizer)
        return cut(dataset, chunker, spec).documents

    @contextmanager
    def _silence(self) -> Iterator[None]:
        self._at_work = True
        try:
            yield
        finally:
            self._at_work = False


def _readable(documents: Sequence[ChunkedDocument], encoder: ContextEncoder) -> Iterator[ChunkedDocument]:
    """The documents with the chunks that hold something the model reads."""
    for one in documents:
        counts = encoder.tokenizer.count([chunk.text for chunk in one.chunks])
        said = tuple(chunk for chunk, count in zip(one.chunks, counts, strict=True) if count)
        if said:
            yield ChunkedDocument(one.document, said)


def _documents(path: str) -> Dataset:
    """The documents in a file or folder, without questions."""
    found: list[Document] = []
    failures: dict[str, str] = {}
    for one in load_documents(path):
        if isinstance(one, FailedDocument):
            failures[one.doc_id] = one.reason
        else:
            found.append(one)
    return Dataset(name_of(path), tuple(found), (), unreadable=failures)
