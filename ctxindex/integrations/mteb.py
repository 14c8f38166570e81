"""Our encoders in mteb: an object that its search protocol takes, so that its retrieval tasks run through them.

    mteb.evaluate(MtebSearch(load_encoder("minilm")), tasks=mteb.get_tasks(tasks=["NanoNQRetrieval"]))

A corpus can be seen in two ways. As mteb gives it, every row is a document of its own, of one chunk or of those that a
chunker makes. Or rows are chunks: ids of the form `docid_index` say which document each belongs to and where, and the
chunks of a document go through the encoder together, as they would in an index.

The corpus is encoded in the search, in a stream, and scored block by block, so that memory holds the query vectors,
the best of each query and one block: of the corpus as a whole only its ids. The price: mteb counts the time that the
corpus takes as that of the queries, and a second search of the same corpus encodes it again.

A CDE encoder reads a corpus in the context of a sample of it, the one that an index of the corpus would have; its first
search reads the corpus once more for that.

Needs the package mteb, which the extra `mteb` installs: importing this module without it raises MissingDependencyError.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections import defaultdict
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ctxindex.chunking.chunker import load_chunker
from ctxindex.encoding.cde.corpus_context import sample_context
from ctxindex.encoding.encoder import Encoder, as_context_encoder
from ctxindex.errors import DocumentError, MissingDependencyError, UsageError
from ctxindex.evaluation.cache import CODE
from ctxindex.indexing.freezing import SEED
from ctxindex.indexing.options import CORPUS_CONTEXT
from ctxindex.retrieval.exact import ExactRanking
from ctxindex.spec import NULL_CONTEXT, SAMPLINGS, ChunkerSpec, EncoderSpec
from ctxindex.types import Chunk, ChunkedDocument, Chunker, Document, FailedDocument, Tokenizer

try:
    from mteb.models import ModelMeta
    from mteb.models.model_meta import ScoringFunction
except ModuleNotFoundError as error:
    if (error.name or "").split(".")[0] != "mteb":
        raise
    raise MissingDependencyError("mteb", extra="mteb", purpose="evaluation with mteb") from None

if TYPE_CHECKING:
    from mteb.types import CorpusDatasetType, QueryDatasetType, RetrievalOutputType, TopRankedDocumentsType

    from ctxindex.encoding.cde.context_encoder import ContextEncoder
    from ctxindex.retrieval.exact import Places

_log = logging.getLogger("ctxindex")

_BETWEEN = "\n\n"
"""Stands between chunks that are put together to a document; `--join raw` reads it."""

_CORPUS_ID = "corpus_id"
"""Key in the metadata of a chunk that mteb ranks by itself."""

_CHUNK_OF_DOCUMENT = re.compile(r"(.+)_([0-9]+)", re.DOTALL)

_GLANCE = 40
"""Characters to look at for a letter or digit before the tokenizer is asked."""


class MtebSearch:
    """Implements mteb's `SearchProtocol`: `mteb.evaluate` takes it as a model.

    All rows of a corpus are ranked, by cosine or MaxSim; of equal scores the greater id comes first, which is how
    trec_eval orders them. A row without text the model can read, and one that cannot be encoded, is not among the
    results; a warning in the log counts these. Prefixes are those of the encoder: the prompts of mteb's tasks are not
    used, but an instruction that belongs to a query stands behind it, as in mteb.

    Args:
        encoder: what `load_encoder` gives, of one vector a chunk or of several.
        chunker: cuts each row in chunks, and the row counts as much as its best chunk; without it a row is one chunk.
        group_by_prefix: rows are chunks, and their ids are `docid_index`: all that have the part before the last
            underscore in common are encoded as one document, in the order of the integer behind it.
        name: `owner/model`, under which mteb files the results; else it is made of the model's name and the method.
        context: what a CDE encoder reads in: "corpus", a sample of what is indexed, or "null", the model's own
            stand-in for one. None is "corpus", unless the encoder was given a context by hand, be it the null context
            (`with_context`): that is kept then.

    Raises:
        UsageError: both a chunker and group_by_prefix are given, or a context to an encoder that reads none.
        ConfigError: the chunker's settings cannot be used, or the model has no stand-in for a context.
    """

    def __init__(
        self,
        encoder: Encoder,
        chunker: ChunkerSpec | None = None,
        *,
        group_by_prefix: bool = False,
        name: str | None = None,
        context: str | None = None,
    ) -> None:
        if chunker is not None and group_by_prefix:
            raise UsageError("with group_by_prefix every row of the corpus is one chunk: leave the chunker out")
        encoder, self._sampled = _conditioned(encoder, context)
        size = None if self._sampled is None else self._sampled.context_size
        self.mteb_model_meta = _metadata(encoder.spec, chunker, group_by_prefix, name, size)
        self._encoder = encoder
        self._chunker = None if chunker is None else load_chunker(chunker, encoder.tokenizer)
        self._grouped = group_by_prefix
        self._corpus: _Corpus | None = None
        self._conditioned_on: _Corpus | None = None

    def index(self, corpus: CorpusDatasetType, **_: Any) -> None:
        """Take note of a corpus, with the columns `id`, `text` and perhaps `title`; `search` encodes it.

        Raises:
            UsageError: documents are to be grouped, and an id does not say which it belongs to.
        """
        self._corpus = _Corpus(corpus, self._grouped)

    def search(
        self,
        queries: QueryDatasetType,
        *,
        top_k: int,
        top_ranked: TopRankedDocumentsType | None = None,
        **_: Any,
    ) -> RetrievalOutputType:
        """For each query the `top_k` best ids of the corpus and their scores, best first.

        A query without text the model can read finds nothing, with a warning in the log.

        Args:
            queries: with the columns `id`, `text` (or a conversation) and perhaps `instruction`.
            top_k: how many ids to return.
            top_ranked: for each query the ids to rank; without it, all are ranked.

        Raises:
            UsageError: there was no `index` before.
        """
        corpus = self._corpus
        if corpus is None:
            raise UsageError("there is no corpus to search: call index first")
        texts = {str(row["id"]): _query_text(row) for row in queries}
        asked = [query_id for query_id, text in texts.items() if self._readable(text)]
        if len(asked) < len(texts):
            _log.warning("%d queries have no text that the model can read", len(texts) - len(asked))
        results: dict[str, dict[str, float]] = {query_id: {} for query_id in texts}
        if not asked or not self._condition(corpus):
            return results
        vectors = self._encoder.encode_queries([texts[query_id] for query_id in asked])
        candidates = None if top_ranked is None else corpus.candidates(asked, top_ranked)
        ranking = ExactRanking(vectors, top_k, candidates)
        self._feed(ranking, corpus, None if candidates is None else corpus.named(candidates))
        for query_id, found in zip(asked, ranking.best(), strict=True):
            results[query_id] = {corpus.ids[place]: score for place, score in found}
        return results

    def _condition(self, corpus: _Corpus) -> bool:
        """Read in the context of a sample of the corpus from now on, where one is to be drawn and was not yet.

        False where there is no text to draw, and so nothing to be ranked either.
        """
        if self._sampled is None or self._conditioned_on is corpus:
            return True
        unranked: dict[str, str] = {}
        documents = (_said(one, self._encoder.tokenizer) for one in self._documents(corpus, None, unranked))
        texts = [one.text for one in sample_context(documents, self._sampled.context_size, SEED)]
        if not texts:
            _log.warning("no document of the corpus has any text that the model can read: nothing is ranked")
            return False
        self._encoder = self._sampled.with_context(self._sampled.encode_context(texts, seed=SEED))
        self._conditioned_on = corpus
        return True

    def _feed(self, ranking: ExactRanking, corpus: _Corpus, wanted: Container[str] | None) -> None:
        """Encode the documents that hold any of the ids `wanted`, all without it, and hand on their vectors."""
        unranked: dict[str, str] = {}
        for result in self._encoder.encode_documents(self._documents(corpus, wanted, unranked)):
            if isinstance(result, FailedDocument):
                unranked.update(dict.fromkeys(corpus.documents[result.doc_id], result.reason))
                continue
            for chunk, vectors in zip(result.chunks, result.chunk_vectors(), strict=True):
                corpus_id = chunk.metadata.get(_CORPUS_ID, result.document.doc_id)
                ranking.add(corpus.places[corpus_id], vectors)
        if unranked:
            some = ", ".join(f"{corpus_id} ({reason})" for corpus_id, reason in list(unranked.items())[:3])
            _log.warning("%d documents of the corpus are not ranked, among them %s", len(unranked), some)

    def _documents(
        self, corpus: _Corpus, wanted: Container[str] | None, unranked: dict[str, str]
    ) -> Iterator[ChunkedDocument]:
        """Runs in the encoder's thread; what is left out is noted in `unranked`."""
        for doc_id, ids in corpus.documents.items():
            if wanted is not None and not any(corpus_id in wanted for corpus_id in ids):
                continue
            passages = [corpus.passage(corpus_id) for corpus_id in ids]
            readable = [passage for passage in passages if self._readable(passage.text)]
            if len(readable) < len(passages):  # one chunk without text must not fail its whole document
                lost = set(ids) - {passage.corpus_id for passage in readable}
                unranked.update(dict.fromkeys(lost, "no text that the model can read"))
            if not readable:
                continue
            source = _put_together(doc_id, readable)
            try:
                yield source if self._chunker is None else _chunked(source.document, self._chunker)
            except DocumentError as error:
                unranked[doc_id] = error.reason

    def _readable(self, text: str) -> bool:
        return any(map(str.isalnum, text[:_GLANCE])) or (
            bool(text.strip()) and self._encoder.tokenizer.count([text])[0] > 0
        )


@dataclass(frozen=True, slots=True)
class _Passage:
    """A row of the corpus, its text as mteb joins it."""

    corpus_id: str
    title: str
    text: str


class _Corpus:
    """What mteb handed over, and how it is seen.

    `documents` gives for each document the ids of its rows in order; `ids` are all ids, sorted, and `places` says where
    in it each is.

    Raises:
        UsageError: rows are to be grouped, and an id is not of the form for it.
    """

    def __init__(self, rows: CorpusDatasetType, grouped: bool) -> None:
        self._rows = rows
        self._numbers: dict[str, int] = {}
        for number, corpus_id in enumerate(rows["id"]):
            self._numbers.setdefault(str(corpus_id), number)
        if len(self._numbers) < len(rows):
            _log.warning("%d rows of the corpus repeat an id and are left out", len(rows) - len(self._numbers))
        self.ids = sorted(self._numbers)
        self.places = {corpus_id: place for place, corpus_id in enumerate(self.ids)}
        self.documents = _group(self._numbers) if grouped else {corpus_id: [corpus_id] for corpus_id in self._numbers}

    def passage(self, corpus_id: str) -> _Passage:
        """The row of that id."""
        row = self._rows[self._numbers[corpus_id]]
        title, text = row.get("title") or "", row["text"] or ""
        return _Passage(corpus_id, title.strip(), f"{title} {text}".strip())

    def candidates(self, query_ids: Sequence[str], top_ranked: Mapping[str, Sequence[str]]) -> list[Places]:
        """For each query the places of the ids to rank; ids that are not in the corpus are passed over."""
        without = sum(query_id not in top_ranked for query_id in query_ids)
        if without:
            _log.warning("%d queries have no documents to rank", without)
        known = ([self.places.get(str(each)) for each in top_ranked.get(query_id, ())] for query_id in query_ids)
        return [np.array([place for place in places if place is not None], dtype=np.int64) for places in known]

    def named(self, candidates: Sequence[Places]) -> set[str]:
        """The ids at any of the places."""
        return {self.ids[place] for places in candidates for place in places}


def _group(ids: Mapping[str, int]) -> dict[str, list[str]]:
    """The ids of each document's chunks in the order of their index; documents in the order of the corpus."""
    found: defaultdict[str, list[tuple[int, int, str]]] = defaultdict(list)
    for corpus_id, number in ids.items():
        match = _CHUNK_OF_DOCUMENT.fullmatch(corpus_id)
        if match is None:
            raise UsageError(
                f"the corpus id {corpus_id!r} is not of the form docid_index, with an integer behind the last "
                "underscore: this corpus cannot be grouped by document, leave group_by_prefix out"
            )
        found[match[1]].append((int(match[2]), number, corpus_id))
    return {doc_id: [corpus_id for _, _, corpus_id in sorted(chunks)] for doc_id, chunks in found.items()}


def _put_together(doc_id: str, passages: Sequence[_Passage]) -> ChunkedDocument:
    """A document of which each passage is a chunk; its title is the first that a passage has."""
    ends = accumulate(len(passage.text) + len(_BETWEEN) for passage in passages)
    spans = [(end - len(_BETWEEN) - len(passage.text), passage) for end, passage in zip(ends, passages, strict=True)]
    chunks = tuple(
        Chunk(ordinal, start, start + len(passage.text), passage.text, {_CORPUS_ID: passage.corpus_id})
        for ordinal, (start, passage) in enumerate(spans)
    )
    title = next((passage.title for passage in passages if passage.title), None)
    return ChunkedDocument(Document(doc_id, _BETWEEN.join(passage.text for passage in passages), title), chunks)


def _conditioned(encoder: Encoder, context: str | None) -> tuple[Encoder, ContextEncoder | None]:
    """The encoder as it reads, and the same where it is to read in the context of a sample of each corpus."""
    found = as_context_encoder(encoder)
    if context not in (None, CORPUS_CONTEXT, NULL_CONTEXT):
        raise UsageError(f"context {context} is none of {CORPUS_CONTEXT}, {NULL_CONTEXT}")
    if found is None:
        if context is not None:
            raise UsageError(f"{encoder.spec.model} reads no corpus context ({encoder.spec.method}): leave context out")
        return encoder, None
    if context == NULL_CONTEXT:
        return found.with_context(None), None
    if context is None and found.was_given_context:
        return encoder, None
    return encoder, found


def _said(source: ChunkedDocument, tokenizer: Tokenizer) -> ChunkedDocument:
    """The document with the chunks that hold something the model reads."""
    counts = tokenizer.count([chunk.text for chunk in source.chunks])
    return ChunkedDocument(
        source.document, tuple(chunk for chunk, count in zip(source.chunks, counts, strict=True) if count)
    )


def _chunked(document: Document, chunker: Chunker) -> ChunkedDocument:
    return ChunkedDocument(document, chunker.chunk(document))


def _query_text(row: Mapping[str, Any]) -> str:
    """A query as mteb puts it together; the turns of a conversation behind each other."""
    text, instruction = row["text"], row.get("instruction")
    if isinstance(text, str):
        return text if instruction is None else f"{text} {instruction}"
    turns = [turn if isinstance(turn, str) else f"{turn['role']}: {turn['content']}" for turn in text or ()]
    return "; ".join(turns) if instruction is None else f"{instruction} {'; '.join(turns)}"


def _metadata(
    encoder: EncoderSpec, chunker: ChunkerSpec | None, grouped: bool, name: str | None, sample: int | None
) -> ModelMeta:
    """What mteb writes beside results. The revision stands for all that decides them: it is mteb's key to its cache.

    `sample` is how many texts of a corpus make its context, where it is drawn from each.
    """
    decisive = {key: value for key, value in asdict(encoder).items() if key != "model"}
    setting = {"code": CODE, "encoder": decisive, "chunker": chunker and asdict(chunker), "grouped": grouped}
    if sample is not None:
        decisive["context"] = {"of": CORPUS_CONTEXT, "texts": sample, "seed": SEED, "sampling": SAMPLINGS[0]}
    seen = "-grouped" if grouped else "" if chunker is None else "-chunked"
    if encoder.method == "cde" and sample is None:
        seen += "-null" if encoder.context == NULL_CONTEXT else f"-{encoder.context[:12]}"
    return ModelMeta(
        loader=None,
        name=name or f"ctxindex/{Path(encoder.model).resolve().name}-{encoder.method}{seen}",
        revision=hashlib.sha256(json.dumps(setting, sort_keys=True).encode()).hexdigest()[:40],
        release_date=None,
        languages=None,
        n_parameters=None,
        memory_usage_mb=None,
        max_tokens=encoder.max_tokens,
        embed_dim=encoder.dim,
        license=None,
        open_weights=None,
        public_training_code=None,
        public_training_data=None,
        framework=["PyTorch"],
        similarity_fn_name=ScoringFunction.MAX_SIM if encoder.multivector else ScoringFunction.COSINE,
        use_instructions=bool(encoder.query_prefix or encoder.document_prefix),
        training_datasets=None,
        model_type=["late-interaction" if encoder.multivector else "dense"],
    )
