"""What a contextual training makes once, before its first step, and keeps beside its checkpoints.

- The *surrogate's* vectors of all pairs, which clusters are made by and false negatives are found with. The surrogate
  is the base model, each text read alone: a question as it is, a document as its title and the chunk that answers.
- The *clusters* themselves: made anew on another machine they might be others.
- The vectors of a *frozen first stage* of all texts that contexts are drawn from: a step then pays for the
  second stage only.

All is a function of the base, the pairs and the options. A file says what it was made of by a hash, and one that says
otherwise is made anew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ctxindex.errors import ModelError
from ctxindex.training.contextual.clustering import ClusteringOptions, Clusters, cluster_pairs
from ctxindex.training.contextual.contrastive import cosines
from ctxindex.training.contextual.filtering import FalseNegativeFilter, known_positives
from ctxindex.types import Chunk, ChunkedDocument, Document, EncodedDocument

if TYPE_CHECKING:
    import numpy.typing as npt

    from ctxindex.encoding.local import LocalEncoder
    from ctxindex.training.contextual.pairs import Pair, Sources

    Floats = npt.NDArray[np.float32]
    Arrays = Mapping[str, npt.NDArray[Any]]

_MADE_OF = "made_of"


@dataclass(frozen=True, slots=True, eq=False)
class PairTexts:
    """What the surrogate reads of each pair: the question, and the gold chunk behind the title of its document."""

    queries: tuple[str, ...]
    documents: tuple[str, ...]

    @classmethod
    def of(cls, sources: Sources, pairs: Sequence[Pair]) -> PairTexts:
        """The texts of these pairs."""
        documents = []
        for one in pairs:
            source = sources[one.source][one.document].source
            title = " ".join((source.document.title or "").split())
            text = source.chunks[one.gold].text
            documents.append(f"{title}\n{text}" if title else text)
        return cls(tuple(one.question.text for one in pairs), tuple(documents))


class PairFilter:
    """Which golds of a batch are no negatives: false ones by the surrogate, and what is known to answer.

    Args:
        rule: for false negatives.
        texts: of all pairs.
        queries: (pairs, dim), the surrogate's.
        documents: the same of documents.
    """

    def __init__(self, rule: FalseNegativeFilter, texts: PairTexts, queries: Floats, documents: Floats) -> None:
        self._rule = rule
        self._texts = texts
        self._queries = queries
        self._documents = documents

    def __call__(self, pairs: Sequence[int]) -> npt.NDArray[np.bool_]:
        """(pairs, pairs), for the numbers of the pairs of a batch."""
        import torch

        numbers = list(pairs)
        scores = cosines(*(torch.from_numpy(one[numbers]) for one in (self._queries, self._documents)))
        known = known_positives(
            [self._texts.queries[number] for number in numbers], [self._texts.documents[number] for number in numbers]
        )
        removed: npt.NDArray[np.bool_] = (self._rule.removed(scores) | known).numpy()
        return removed


def embed(surrogate: LocalEncoder, texts: PairTexts) -> tuple[Floats, Floats]:
    """The surrogate's vectors of queries and documents, (pairs, dim) float32 each; a text is read once.

    Raises:
        ModelError: a document has no vector.
    """
    queries, documents = (list(dict.fromkeys(own)) for own in (texts.queries, texts.documents))
    of_queries = dict(zip(queries, np.asarray(surrogate.encode_queries(queries)), strict=True))
    named = [
        ChunkedDocument(Document(str(number), text), (Chunk(0, 0, len(text), text),))
        for number, text in enumerate(documents)
    ]
    of_documents: dict[str, Floats] = {}
    for found in surrogate.encode_documents(named):
        if not isinstance(found, EncodedDocument):
            raise ModelError(f"the base model gives a text of a pair no vector: {found.reason}")
        of_documents[documents[int(found.document.doc_id)]] = found.vectors[0]
    return (
        np.stack([of_queries[text] for text in texts.queries]),
        np.stack([of_documents[text] for text in texts.documents]),
    )


def clusters_of(
    queries: Floats, documents: Floats, sources: Sequence[str], options: ClusteringOptions
) -> dict[str, npt.NDArray[Any]]:
    """The clusters of pairs as arrays, for `kept`."""
    found = cluster_pairs(queries, documents, options, sources)
    return {"labels": found.labels, "centroids": found.centroids}


def read_clusters(arrays: Arrays, sources: Sequence[str]) -> Clusters:
    """The inverse of `clusters_of`."""
    labels = np.asarray(arrays["labels"], dtype=np.int64)
    owners = dict(zip(labels.tolist(), sources, strict=True))
    return Clusters(labels, tuple(owners[label] for label in range(len(owners))), np.asarray(arrays["centroids"]))


def kept(file: Path, made_of: Mapping[str, Any], make: Callable[[], Arrays]) -> dict[str, npt.NDArray[Any]]:
    """The arrays in a file, or new ones, which are written there.

    Args:
        file: in a folder that is made where it is not there.
        made_of: all that decides the arrays, as JSON values.
        make: makes the arrays.

    Raises:
        ModelError: the file cannot be written.
    """
    from safetensors import SafetensorError, safe_open
    from safetensors.numpy import load_file, save_file

    digest = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()
    try:
        with safe_open(file, framework="np") as held:
            if (held.metadata() or {}).get(_MADE_OF) == digest:
                return load_file(file)
    except (OSError, SafetensorError):
        pass  # there is none yet, or it is damaged
    arrays = {name: np.ascontiguousarray(array) for name, array in make().items()}
    partial = file.with_name(f".{file.name}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file(arrays, partial, metadata={_MADE_OF: digest})
        partial.replace(file)
    except OSError as error:
        raise ModelError(f"cannot write {file}: {error}") from None
    return arrays
