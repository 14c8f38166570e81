"""What a contextual training makes once, before its first step, and keeps beside its checkpoints.

- The *surrogate's* vectors of all pairs, which clusters are made by and false negatives are found with. The surrogate
  is the base model, each text read alone: a question as it is, a document as its title and a chunk that answers. What
  several pairs have in common is read once.
- The *clusters* themselves: made anew on another machine they might be others.
- The vectors of a *frozen first stage* of all texts that contexts are drawn from: a step then pays for the
  second stage only.

All is a function of the base, the pairs and the options. A file says what it was made of by a hash, and one that says
otherwise is made anew.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ctxindex.errors import ModelError
from ctxindex.training.contextual.clustering import ClusteringOptions, Clusters, cluster_pairs
from ctxindex.training.contextual.contrastive import cosines
from ctxindex.training.contextual.filtering import FalseNegativeFilter, known_positives
from ctxindex.training.contextual.golds import Golds
from ctxindex.types import Chunk, ChunkedDocument, Document, EncodedDocument

if TYPE_CHECKING:
    import numpy.typing as npt
    import torch

    from ctxindex.encoding.local import LocalEncoder
    from ctxindex.training.contextual.pairs import Pair, Sources

    Floats = npt.NDArray[np.float32]
    Numbers = npt.NDArray[np.int64]
    Arrays = Mapping[str, npt.NDArray[Any]]

_MADE_OF = "made_of"


@dataclass(frozen=True, slots=True, eq=False)
class PairTexts:
    """What the surrogate reads: the question of each pair, and gold chunks behind the titles of their documents.

    Each of the `documents` is there once; `golds` says which of them answer which pair.
    """

    queries: tuple[str, ...]
    documents: tuple[str, ...]
    golds: Golds

    @classmethod
    def of(cls, sources: Sources, pairs: Sequence[Pair]) -> PairTexts:
        """The texts of these pairs."""
        return cls(tuple(one.question.text for one in pairs), *Golds.of(_titled(sources, one) for one in pairs))


def _titled(sources: Sources, pair: Pair) -> list[str]:
    """The chunks that answer a pair, each behind the title of its document."""
    source = sources[pair.source][pair.document].source
    title = " ".join((source.document.title or "").split())
    texts = [source.chunks[gold].text for gold in pair.question.golds]
    return [f"{title}\n{text}" for text in texts] if title else texts


class PairFilter:
    """Which positives of a batch are no negatives: false ones by the surrogate, and what is known to answer.

    Known is all that answers the same words in any pair, whether or not it is in the batch.

    Args:
        rule: for false negatives.
        texts: of all pairs.
        queries: (pairs, dim), the surrogate's.
        documents: (documents, dim), the same of the documents.
    """

    def __init__(self, rule: FalseNegativeFilter, texts: PairTexts, queries: Floats, documents: Floats) -> None:
        self._rule = rule
        self._texts = texts
        self._queries = queries
        self._documents = documents
        self._asking: dict[str, list[int]] = defaultdict(list)
        for number, text in enumerate(texts.queries):
            self._asking[text.casefold()].append(number)

    def __call__(self, pairs: Numbers, places: Numbers) -> npt.NDArray[np.bool_]:
        """(pairs, pairs), for the numbers of the pairs of a batch, and the place of each positive among its golds."""
        texts = self._texts
        drawn = texts.golds.texts(pairs, places)
        queries = [texts.queries[number] for number in pairs.tolist()]
        answers = [{texts.documents[one] for one in self._answering(query)} for query in queries]
        known = known_positives(queries, [texts.documents[one] for one in drawn.tolist()], answers)
        removed: npt.NDArray[np.bool_] = (self._false(pairs, drawn) | known).numpy()
        return removed

    def _false(self, pairs: Numbers, drawn: Numbers) -> torch.Tensor:
        """(pairs, pairs): what the surrogate likes too well, beside the best gold of each pair."""
        import torch

        golds = [self._texts.golds.of_pair(number) for number in pairs.tolist()]
        every = np.unique(np.concatenate(golds))
        scores = cosines(torch.from_numpy(self._queries[pairs]), torch.from_numpy(self._documents[every]))
        best = [scores[row, np.searchsorted(every, own)].max() for row, own in enumerate(golds)]
        return self._rule.removed(scores[:, np.searchsorted(every, drawn)], best=torch.stack(best))

    def _answering(self, query: str) -> set[int]:
        """The documents that answer these words."""
        return {one for pair in self._asking[query.casefold()] for one in self._texts.golds.of_pair(pair).tolist()}


def embed(surrogate: LocalEncoder, texts: PairTexts) -> tuple[Floats, Floats]:
    """The surrogate's vectors of queries, (pairs, dim), and documents, (documents, dim), float32; a text is read once.

    Raises:
        ModelError: a document has no vector.
    """
    queries, documents = list(dict.fromkeys(texts.queries)), texts.documents
    of_queries = dict(zip(queries, np.asarray(surrogate.encode_queries(queries)), strict=True))
    named = [
        ChunkedDocument(Document(str(number), text), (Chunk(0, 0, len(text), text),))
        for number, text in enumerate(documents)
    ]
    of_documents = np.empty((len(documents), surrogate.spec.dim), dtype=np.float32)
    for found in surrogate.encode_documents(named):
        if not isinstance(found, EncodedDocument):
            raise ModelError(f"the base model gives a text of a pair no vector: {found.reason}")
        of_documents[int(found.document.doc_id)] = found.vectors[0]
    return np.stack([of_queries[text] for text in texts.queries]), of_documents


def vectors_of_pairs(documents: Floats, golds: Golds) -> Floats:
    """(pairs, dim): the document of each pair, as the mean of the vectors of its golds."""
    found: Floats = np.stack([documents[golds.of_pair(pair)].mean(axis=0) for pair in range(len(golds.starts) - 1)])
    return found


def clusters_of(
    queries: Floats, documents: Floats, sources: Sequence[str], options: ClusteringOptions
) -> dict[str, npt.NDArray[Any]]:
    """The clusters of pairs as arrays, for `kept`; all are (pairs, dim)."""
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
    partial = file.with_name(f".{file.name}-{os.getpid()}")  # another training may make the same
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file(arrays, partial, metadata={_MADE_OF: digest})
        partial.replace(file)
    except OSError as error:
        raise ModelError(f"cannot write {file}: {error}") from None
    finally:
        partial.unlink(missing_ok=True)
    return arrays
