"""What became of a corpus since the corpus context of its index was frozen.

How much it has grown, and how much of what the context was made of is still there, is in the records and costs nothing.
Whether it says other things now takes the model: a new sample of the documents goes through the first stage, and the
distance of its mean from that of the context is laid beside what two samples of one corpus have by chance.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from ctxindex.encoding.cde.corpus_context import TooFewTextsError, document_place, sample_context
from ctxindex.indexing.freezing import FrozenContext
from ctxindex.spec import revision
from ctxindex.stores import Store
from ctxindex.types import Chunk, ChunkedDocument, ContextStatus, Document, DocumentRecord

if TYPE_CHECKING:
    from ctxindex.encoding.cde.context_encoder import ContextEncoder

_LEAST_TEXTS = 2
"""To tell a corpus that moved from chance."""


def context_status(frozen: FrozenContext, records: Sequence[DocumentRecord], fingerprint: str) -> ContextStatus:
    """The context beside the documents that an index with this fingerprint has now.

    Documents that cannot be read count then and now: how many they were among the first is not known before all of
    these have been read, and the context is made before.
    """
    now: Mapping[str, str] = {record.doc_id: record.revision for record in records if record.revision}
    then = {one.doc_id: revision(fingerprint, one.content_hash) for one in frozen.sample}
    return ContextStatus(
        context_id=frozen.context.context_id,
        size=frozen.context.size,
        texts=len(frozen.sample),
        seed=frozen.seed,
        sampling=frozen.sampling,
        made_at=frozen.made_at,
        documents_then=frozen.documents,
        documents_now=len(records),
        sampled=len(then),
        changed=sum(doc_id in now and now[doc_id] != was for doc_id, was in then.items()),
        gone=sum(doc_id not in now for doc_id in then),
    )


def context_drift(
    frozen: FrozenContext, store: Store, records: Sequence[DocumentRecord], encoder: ContextEncoder
) -> float | None:
    """How far the corpus has moved: about 1 is chance, 0 the very same texts; see `corpus_context.drift`.

    None where one of both samples has fewer than two texts that differ.

    Raises:
        ModelError: the model cannot be loaded.
    """
    seed = frozen.seed + 1  # the seed of the context would draw its own texts again
    # A chunk of each is taken first, so as many documents will do; of all chunks alike, all have to be seen.
    most = encoder.context_size if frozen.sampling == "by-document" else None
    documents = _documents(store, records, encoder, seed, most)
    texts = [one.text for one in sample_context(documents, encoder.context_size, seed, frozen.sampling)]
    if len(set(texts)) < _LEAST_TEXTS:
        return None
    try:
        return encoder.drift(frozen.context, texts)
    except TooFewTextsError:  # only the vectors tell how many differ: texts may differ in what the model does not read
        return None


def _documents(
    store: Store, records: Sequence[DocumentRecord], encoder: ContextEncoder, seed: int, most: int | None
) -> Iterator[ChunkedDocument]:
    """The first `most` documents of the index, or all of them, with the chunks that the model can read."""
    live = [record.doc_id for record in records if record.revision]
    given = 0
    for doc_id in sorted(live, key=lambda doc_id: document_place(seed, doc_id)):
        stored = store.chunks(doc_id)
        counts = encoder.tokenizer.count([chunk.text for chunk in stored])
        said = tuple(
            Chunk(chunk.ordinal, chunk.start, chunk.end, chunk.text)
            for chunk, count in zip(stored, counts, strict=True)
            if count and chunk.text.strip()
        )
        if said:
            yield ChunkedDocument(Document(doc_id, ""), said)
            given += 1
        if given == most:
            return
