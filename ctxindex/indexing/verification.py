"""What a verification says: document by document, of all vectors together, and of the context in them.

Knows no index and no model: numbers, and the words for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from ctxindex.types import FloatArray

    Cosines = npt.NDArray[np.float64]

AGREEMENT = 0.999
"""Two vectors agree where their cosine is greater: rounding, another batch or another machine change far less."""

_UNIT = 0.01
"""How far the length of a stored vector may be from 1; float16 keeps it to a thousandth."""

DocumentVerdict: TypeAlias = Literal["agrees", "differs", "changed", "failed"]


@dataclass(frozen=True, slots=True)
class DocumentCheck:
    """What came of one document of the sample.

    `agrees` and `differs` are verdicts on what is stored. `changed` says that the source is not the one that was
    indexed any more, `failed` that the same source gives no vectors here and now; nothing was compared then. `cosine`
    is the least of a stored vector with the same one encoded anew, and `worst_chunk` the ordinal of its chunk; both are
    None where no vectors were compared. `reason` is for people, and None where the document agrees.
    """

    doc_id: str
    verdict: DocumentVerdict
    chunks: int = 0
    cosine: float | None = None
    worst_chunk: int | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class ContextCheck:
    """How far stored vectors are from those of their chunks alone.

    `cosine` is the mean over `chunks` chunks of documents with more than one, and None where there is nothing to
    compare; `note` then says why. Of multivectors, a chunk counts with the mean over its tokens.
    """

    cosine: float | None = None
    chunks: int = 0
    note: str | None = None

    @property
    def lost(self) -> bool:
        """Whether the vectors are those of the chunks alone."""
        return self.cosine is not None and self.cosine > AGREEMENT


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What a verification found.

    `documents` counts the live documents of the index, `checks` has those of the sample by doc_id, and `missing` names
    all that were not found in the sources (the sample is drawn from the others; `seed` draws it again). `vectors` were
    compared, with the least and the mean cosine; of a multivector each counts. `seconds` is as in `IngestReport`.
    """

    documents: int
    checks: tuple[DocumentCheck, ...]
    missing: tuple[str, ...]
    seed: int
    vectors: int
    min_cosine: float | None
    mean_cosine: float | None
    context: ContextCheck
    seconds: Mapping[str, float]

    def of(self, verdict: DocumentVerdict) -> tuple[DocumentCheck, ...]:
        """The checks with that verdict."""
        return tuple(check for check in self.checks if check.verdict == verdict)

    @property
    def compared(self) -> int:
        """How many documents were compared with what is stored of them."""
        return len(self.of("agrees")) + len(self.of("differs"))

    @property
    def agrees(self) -> bool:
        """Whether nothing that was compared differs; also true where nothing was."""
        return not self.of("differs")


def row_cosines(left: FloatArray, right: FloatArray) -> Cosines:
    """The cosine of each row of `left`, (rows, dim), with that of `right`: (rows,) float64.

    It is 0 where a row has no length or holds what is no number.
    """
    first, second = left.astype(np.float64), right.astype(np.float64)
    with np.errstate(all="ignore"):
        cosines = (first * second).sum(axis=1) / (np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1))
    usable: Cosines = np.nan_to_num(cosines, nan=0.0, posinf=0.0, neginf=0.0).clip(-1.0, 1.0)
    return usable


def compare_vectors(stored: FloatArray | None, fresh: FloatArray) -> tuple[Cosines, str | None]:
    """The cosines of a chunk's vector or vectors, (dim,) or (vectors, dim), with those stored, and what is wrong.

    There are no cosines where the two have not the same shape.
    """
    if stored is None or stored.shape != fresh.shape:
        return np.empty(0), f"has {_shape(stored)} in the index, and the model gives {_shape(fresh)}"
    rows = np.atleast_2d(stored)
    cosines = row_cosines(rows, np.atleast_2d(fresh))
    least = float(cosines.min())
    if least <= AGREEMENT:
        return cosines, f"is stored with another vector than the model gives (cosine {least:.4f})"
    lengths = np.linalg.norm(rows, axis=1)
    worst = float(lengths[np.abs(lengths - 1).argmax()])
    return cosines, None if abs(worst - 1) <= _UNIT else f"is stored with a vector of length {worst:.2f}, and not 1"


def _shape(vector: FloatArray | None) -> str:
    if vector is None:
        return "no vector"
    count, dim = np.atleast_2d(vector).shape
    return f"{count} {'vector' if count == 1 else 'vectors'} of {dim} numbers"
