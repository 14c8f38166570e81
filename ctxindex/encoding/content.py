"""What a model reads of a document: one array of token ids, and where in it each chunk lies.

- `sep`: chunks are tokenised each alone and joined by separators, as models are trained that were trained for context.
- `raw`: the original text is tokenised as it stands, once, and a chunk owns the tokens that begin in it. A token whose
  first character that is no blank lies in a chunk begins there, so one that covers a boundary belongs to one chunk, and
  the blank that a byte-level tokenizer glues to a word does not take the word to the chunk before. Chunks that overlap
  share tokens: each owns all that begin in it. Where a chunk is so short that none begins in it, it takes those that
  cover it. Tokens between chunks belong to nobody, or to the chunk before them where a policy pools everything.

Sources: arXiv 2505.24782, section 3 (separators); arXiv 2409.04701 and its reference code (the text as it is).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ctxindex.encoding.windows import Span

if TYPE_CHECKING:
    import numpy.typing as npt

    from ctxindex.encoding.tokenizer import Ids, Located
    from ctxindex.types import Chunk


@dataclass(frozen=True, slots=True)
class Content:
    """A document's tokens.

    `ids` is (tokens,) int32; `separators`, (tokens,) bool, marks those that stand between chunks and are no content.
    `spans` says which tokens each chunk owns, in the order of the chunks; one of a chunk without any is empty.
    """

    ids: Ids
    separators: npt.NDArray[np.bool_]
    spans: tuple[Span, ...]

    @property
    def total(self) -> int:
        """Tokens, separators included."""
        return len(self.ids)

    @property
    def owned(self) -> int:
        """Content tokens of all chunks; those that chunks share count for each."""
        return sum(end - start for start, end in self.spans)

    def count(self, start: int, end: int) -> int:
        """Content tokens in `[start, end)`."""
        return end - start - int(self.separators[start:end].sum())

    def trimmed(self, start: int, end: int) -> Span:
        """`[start, end)` without a separator at either end."""
        while start < end and self.separators[start]:
            start += 1
        while start < end and self.separators[end - 1]:
            end -= 1
        return start, end

    def head(self, tokens: int, limit: int) -> int:
        """The end of the first `tokens` content tokens, or of as many as `limit` tokens hold with their separators."""
        counts = np.cumsum(~self.separators[: max(0, limit)])
        end = int(np.searchsorted(counts, tokens)) + 1 if tokens else 0
        return self.trimmed(0, min(end, len(counts)))[1]


def join_chunks(chunks: Sequence[Ids], sep_id: int) -> Content:
    """Chunks of the content ids `chunks` with a separator between any two."""
    ends = np.cumsum([len(ids) + 1 for ids in chunks]) - 1
    ids = np.full(int(ends[-1]), sep_id, dtype=np.int32)
    separators = np.zeros(len(ids), dtype=np.bool_)
    separators[ends[:-1]] = True
    ids[~separators] = np.concatenate(chunks)
    starts = [0, *(ends[:-1] + 1)]
    return Content(ids, separators, tuple((int(start), int(end)) for start, end in zip(starts, ends, strict=True)))


def locate_chunks(tokens: Located, chunks: Sequence[Chunk]) -> Content:
    """The document's own tokens, with the chunks laid over them."""
    begins = np.maximum.accumulate(tokens.begins) if len(tokens.begins) else tokens.begins
    firsts = np.searchsorted(begins, [chunk.start for chunk in chunks])
    lasts = np.searchsorted(begins, [chunk.end for chunk in chunks])
    covering = np.searchsorted(np.maximum.accumulate(tokens.ends), [chunk.start for chunk in chunks], side="right")
    firsts = np.where(firsts == lasts, np.minimum(firsts, covering), firsts)
    spans = tuple((int(first), int(last)) for first, last in zip(firsts, lasts, strict=True))
    return Content(tokens.ids, np.zeros(len(tokens.ids), dtype=np.bool_), spans)


def without_gaps(content: Content) -> Content:
    """Every token belongs to a chunk: what lies between two to the one before, what lies before all to the first."""
    spans = list(content.spans)
    following = [start for start, _ in spans[1:]] + [content.total]
    reach = 0
    for number, (start, end) in enumerate(spans):
        reach = max(reach, end)
        if following[number] > reach:  # nobody else has what comes next
            spans[number], reach = (start, following[number]), following[number]
    spans[0] = (0, spans[0][1])
    return replace(content, spans=tuple(spans))
