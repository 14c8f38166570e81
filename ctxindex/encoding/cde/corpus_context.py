"""The corpus context of a CDE encoder: which texts it is made of, what the encoder has made of them, and its name.

A vector means something only together with the context that it was made in. So a context is made once, from a sample
of the corpus, and frozen: documents that come later are read with the same one. Its `context_id` is part of the spec of
every encoder that reads with it.

The sample must not depend on the order in which documents come. Every document has a place given by a hash of the seed
and its `doc_id`, and so has every chunk in its document; those with the first places are taken. By document, no second
chunk of a document is taken before all documents have given one, so that one long manual does not fill the context.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ctxindex.encoding.model_files import read_object
from ctxindex.errors import ConfigError, ModelError, UsageError
from ctxindex.spec import NULL_CONTEXT, SAMPLINGS, Sampling
from ctxindex.types import ChunkedDocument

if TYPE_CHECKING:
    from ctxindex.types import FloatArray

_NAMING = 1
"""Of the rule by which `context_id` names."""

_FORMAT = 2
_MANIFEST = "context.json"
_ARRAYS = "context.safetensors"


class TooFewTextsError(UsageError):
    """There are not two texts that differ on both sides, so nothing tells a corpus that moved from chance."""


@dataclass(frozen=True, slots=True)
class ContextChunk:
    """One text of a sample: chunk number `ordinal` of the document `doc_id`."""

    doc_id: str
    ordinal: int
    text: str


@dataclass(frozen=True, eq=False)
class CorpusContext:
    """What a CDE encoder conditions on; frozen.

    `vectors` is (C, width) float32: what the first stage makes of each text, not normalised and no search vectors;
    without rows in the null context. `layers` is (layers, 2, heads, C, head size) float32: the keys and values that
    the second stage looks at, or None where the encoder makes them itself. `model` names the model by a hash of its
    files, `prefix` is what the texts were read behind, and `reading` what else decided how (`context_id`).
    """

    context_id: str
    model: str
    vectors: FloatArray
    layers: FloatArray | None = None
    prefix: str = ""
    texts: tuple[str, ...] = ()
    reading: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_null(self) -> bool:
        """Whether this is the model's stand-in for a context."""
        return self.context_id == NULL_CONTEXT

    @property
    def size(self) -> int:
        """How many texts it is made of."""
        return len(self.vectors)

    def save(self, folder: Path) -> None:
        """Write the context to `folder`, which is made: context.json (what it is made of) and context.safetensors.

        Both are written aside and then put in their places, so that an interruption leaves no half of a file; two files
        that do not belong together are told by `load`.

        Raises:
            ModelError: it cannot be written.
        """
        from safetensors.numpy import save_file

        given = {"vectors": self.vectors} | ({} if self.layers is None else {"layers": self.layers})
        arrays = {name: np.ascontiguousarray(array) for name, array in given.items()}
        sums = {name: _sum(array) for name, array in arrays.items()}
        made = _Manifest(self.context_id, self.model, self.prefix, self.texts, dict(self.reading), sums)
        text = json.dumps({"format": _FORMAT, **asdict(made)}, ensure_ascii=False, indent=2) + "\n"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with TemporaryDirectory(dir=folder, prefix=".new-") as name:
                aside = Path(name)
                save_file(arrays, aside / _ARRAYS)
                (aside / _MANIFEST).write_text(text, encoding="utf-8")
                for file in (_ARRAYS, _MANIFEST):
                    os.replace(aside / file, folder / file)
        except OSError as error:
            raise ModelError(f"cannot write the corpus context to {folder}: {error}") from None

    @classmethod
    def load(cls, folder: Path) -> CorpusContext:
        """The inverse of `save`.

        Raises:
            ModelError: there is no context, or it is damaged.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        values = read_object(folder / _MANIFEST)
        if values.pop("format", None) != _FORMAT:
            raise ModelError(f"{folder / _MANIFEST} is not in format {_FORMAT}: it is of another ctxindex")
        try:
            arrays = load_file(folder / _ARRAYS)
            made = _Manifest(**{**values, "texts": tuple(values["texts"])})
            whole = {name: _sum(array) for name, array in arrays.items()} == made.sha256
            vectors, layers = arrays["vectors"], arrays.get("layers")
            found = cls(made.context_id, made.model, vectors, layers, made.prefix, made.texts, made.reading)
            named = not made.reading or made.context_id == _named(made)
        except (OSError, SafetensorError, KeyError, TypeError) as error:
            raise ModelError(f"the corpus context in {folder} is damaged: {error}") from None
        if not whole or (not found.is_null and len(found.texts) != found.size):
            raise ModelError(f"the corpus context in {folder} is damaged: its two files do not belong together")
        if not named:
            raise ModelError(
                f"the corpus context in {folder} is damaged: its texts are not those that it is named after"
            )
        return found


@dataclass(frozen=True, slots=True)
class _Manifest:
    context_id: str
    model: str
    prefix: str
    texts: tuple[str, ...]
    reading: dict[str, Any]
    sha256: dict[str, str]


def _named(made: _Manifest) -> str:
    return context_id(made.model, made.texts, made.prefix, **made.reading)


def _sum(array: FloatArray) -> str:
    """sha256, hex, of an array and its form."""
    return hashlib.sha256(f"{array.dtype.str} {array.shape} ".encode() + array.tobytes()).hexdigest()


def context_id(model: str, texts: Sequence[str], prefix: str, **reading: Any) -> str:
    """The name of a context: sha256, hex, of the model, the texts in order, and how they are read."""
    said = {"format": _NAMING, "model": model, "texts": list(texts), "prefix": prefix, **reading}
    canonical = json.dumps(said, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def sample_context(
    documents: Iterable[ChunkedDocument], size: int, seed: int = 0, policy: Sampling = SAMPLINGS[0]
) -> list[ContextChunk]:
    """Draw `size` chunks, or all there are, none of them twice; the same ones in whatever order documents come.

    Chunks of blanks alone are passed over. Documents are read once and are not kept, but for what may be drawn.

    Raises:
        ConfigError: a size below 1, or an unknown policy.
    """
    if size < 1:
        raise ConfigError(f"a corpus context has 1 text or more, not {size}")
    if policy not in SAMPLINGS:
        raise ConfigError(f"a corpus context is drawn by {' or '.join(SAMPLINGS)}, not {policy}")
    if policy == "uniform-chunk":
        chunks = (chunk for document in documents for chunk in _candidates(document, seed))
        return [one for *_, one in heapq.nsmallest(size, chunks, key=_order)]
    drawn: list[tuple[str, str, list[_Candidate]]] = []
    for document in documents:
        doc_id = document.document.doc_id
        chunks_of = heapq.nsmallest(size, _candidates(document, seed), key=_order)
        if chunks_of:
            drawn.append((document_place(seed, doc_id), doc_id, chunks_of))
        if len(drawn) >= 2 * size:  # enough documents: each gives one chunk at most
            drawn = [(place, name, chunks[:1]) for place, name, chunks in heapq.nsmallest(size, drawn, key=_order)]
    drawn.sort(key=_order)
    longest = max((len(chunks) for *_, chunks in drawn), default=0)
    rounds = [chunks[number][-1] for number in range(longest) for *_, chunks in drawn if number < len(chunks)]
    return rounds[:size]


def document_place(seed: int, doc_id: str) -> str:
    """The place of a document in a sample by document; places are in the order of strings.

    Where there are `size` documents with a text, the sample is of the first `size` of them: whoever reads documents in
    this order may stop there.
    """
    return _place(seed, doc_id)


_Candidate: TypeAlias = tuple[str, str, int, ContextChunk]
"""Place, document and number of a chunk, and the chunk."""


def _candidates(source: ChunkedDocument, seed: int) -> Iterable[_Candidate]:
    doc_id = source.document.doc_id
    for chunk in source.chunks:
        if chunk.text.strip():
            one = ContextChunk(doc_id, chunk.ordinal, chunk.text)
            yield _place(seed, doc_id, chunk.ordinal), doc_id, chunk.ordinal, one


def _order(entry: tuple[Any, ...]) -> tuple[Any, ...]:
    return entry[:-1]


def _place(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def drift(frozen: FloatArray, fresh: FloatArray) -> float:
    """How far a corpus has moved from its context: the distance of two means, in units of what sampling alone does.

    With unit rows, let S be the variance within both samples, summed over all numbers of a vector. Two samples of n and
    m texts of one corpus have means whose squared distance is S (1/n + 1/m) on average; the result is the root of the
    squared distance divided by that. About 1 means that the corpus is still the one sampled; above 2, a new context is
    worth its price. Rows that are there twice count once: repetition makes no sample larger.

    Args:
        frozen: vectors of the first stage, (n, width) float32, of the context's own texts.
        fresh: the same of a new sample, (m, width).

    Raises:
        TooFewTextsError: fewer than two different rows in one of them.
        UsageError: values that are not numbers.
    """
    if not (np.isfinite(frozen).all() and np.isfinite(fresh).all()):
        raise UsageError("vectors with values that are not numbers tell nothing of a corpus: make the context anew")
    frozen, fresh = (part[np.sort(np.unique(part, axis=0, return_index=True)[1])] for part in (frozen, fresh))
    if min(len(frozen), len(fresh)) < 2:
        raise TooFewTextsError(
            "to tell a corpus that moved from chance takes two texts or more that differ, on both sides"
        )
    one, other = (
        np.asarray(part, np.float64) / np.linalg.norm(part, axis=1, keepdims=True) for part in (frozen, fresh)
    )
    distance = float(((one.mean(axis=0) - other.mean(axis=0)) ** 2).sum())
    within = sum(float(((part - part.mean(axis=0)) ** 2).sum()) for part in (one, other))
    noise = within / (len(one) + len(other) - 2) * (1 / len(one) + 1 / len(other))
    if noise <= np.finfo(np.float32).eps ** 2:  # all texts of a sample say the same
        return 0.0 if distance <= np.finfo(np.float32).eps else float("inf")
    return float(np.sqrt(distance / noise))
