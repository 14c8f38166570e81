"""From a chunked document to the rows that the model reads: tokens, windows and anchor, as the spec says."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ctxindex.encoding.content import Content, join_chunks, locate_chunks, without_gaps
from ctxindex.encoding.independent import independent_rows, isolated_rows
from ctxindex.encoding.late import Anchor, Ends, late_rows, token_rows
from ctxindex.encoding.rows import Frame, Row
from ctxindex.encoding.tokenizer import ModelTokenizer
from ctxindex.spec import EncoderSpec, PoolingName
from ctxindex.types import ChunkedDocument, Document

if TYPE_CHECKING:
    from ctxindex.encoding.tokenizer import Ids


OPENING = 32
"""Tokens of a document without a title that an isolated chunk is read behind, with `opening`."""


@dataclass(frozen=True, slots=True)
class _Title:
    """The ids of a document's title, none where it is not wanted, and whether the text begins with it."""

    ids: Ids
    said: bool


class DocumentRows:
    """Makes the rows of documents. Only reads what it was made with, so that threads may share it.

    Args:
        tokenizer: the model's.
        spec: what decides the rows.
        pooling: how the model pools a text of its own.
    """

    def __init__(self, tokenizer: ModelTokenizer, spec: EncoderSpec, pooling: PoolingName) -> None:
        self._tokenizer = tokenizer
        self._spec = spec
        self._pooling = pooling

    def make(self, source: ChunkedDocument, frame: Frame) -> tuple[list[Row], int]:
        """The rows of a document, contextual ones first, and how many content tokens its chunks have.

        There are no rows where a chunk has no tokens.
        """
        if self._spec.method == "independent" or self._spec.windows == "chunk":
            chunks = self._alone(source, frame.lead)
            rows = list(independent_rows(chunks, frame, self._pooling)) if all(map(len, chunks)) else []
            return rows, sum(map(len, chunks))
        title = self._title(source.document, frame.lead)
        # Windows show the head of the document, which says the title where the text begins with it.
        shown = title.ids if self._spec.anchor_title and not title.said else title.ids[:0]
        content = self._content(source, frame, lead="" if len(shown) else frame.lead)
        if not all(start < end for start, end in content.spans):
            return [], 0
        rows = self._windows(content, shown, frame)
        if self._spec.blend:
            rows += self._isolated(source, content, title, frame)
        return rows, content.owned

    def _content(self, source: ChunkedDocument, frame: Frame, lead: str) -> Content:
        """The tokens of all chunks: what follows a prefix directly is read behind the blank that the prefix ends in."""
        if self._spec.join == "raw":
            return locate_chunks(self._tokenizer.locate(source.document.text, lead), source.chunks)
        first, *others = [chunk.text for chunk in source.chunks]
        return join_chunks(self._tokenizer.ids([lead + first, *others]), frame.sep_id)

    def _windows(self, content: Content, title: Ids, frame: Frame) -> list[Row]:
        spec, ends = self._spec, self._ends(frame)
        if spec.join == "raw" and spec.pooling == "inclusive":
            content = without_gaps(content)
        if spec.windows == "token-window":
            return token_rows(content, frame, spec.overlap, ends)
        owner = "centre" if spec.owner == "none" else spec.owner
        whole = spec.windows == "full"
        return late_rows(content, frame, spec.overlap, Anchor(title, spec.anchor), owner, whole=whole, ends=ends)

    def _ends(self, frame: Frame) -> Ends:
        """Which special tokens are pooled.

        The authors' code finds chunks by the separators and cuts the prefix, with CLS before it, away, so that CLS is
        pooled where there is no prefix; with late interaction CLS and marker always are (illuin-tech,
        contextual-embeddings at 9f4c6ff).
        """
        spec = self._spec
        if spec.pooling == "inclusive":  # pooled as the model pools a text of its own
            opening = frame.prompt_length if self._pooling == "no-prompt" else 0
            return Ends(opening, closing=True, closed=frame.closed)
        kept = spec.pooling == "authors-compat" and (spec.multivector or not len(frame.prefix))
        return Ends(0 if kept else None, closed=spec.join == "sep" or frame.closed)

    def _isolated(self, source: ChunkedDocument, content: Content, title: _Title, frame: Frame) -> list[Row]:
        """Every chunk alone, pooled as a document of this one chunk would be."""
        shown, bare = self._opening(content, title)
        if self._spec.join == "sep" and not frame.lead:  # then a chunk reads the same in a window and alone
            chunks = [content.ids[start:end] for start, end in content.spans]
        else:
            chunks = self._alone(source, "" if len(shown) else frame.lead)
        if self._spec.pooling == "inclusive":
            rows = independent_rows(chunks, frame, self._pooling)
            return [replace(row, content=0, isolated=True) for row in rows]
        return list(isolated_rows(chunks, frame, shown, bare))

    def _opening(self, content: Content, title: _Title) -> tuple[Ids, int]:
        """What an isolated chunk is read behind, and how many chunks are not, since they hold it themselves."""
        if self._spec.isolated == "chunk":
            return title.ids[:0], 0
        if len(title.ids) or self._spec.isolated == "title":
            return title.ids, int(title.said)
        end = content.head(OPENING, content.total)
        return content.ids[:end], sum(start < end for start, _ in content.spans)

    def _alone(self, source: ChunkedDocument, lead: str) -> list[Ids]:
        return self._tokenizer.ids([lead + chunk.text for chunk in source.chunks])

    def _title(self, document: Document, lead: str) -> _Title:
        """The title, where it is wanted."""
        wanted = self._spec.anchor_title or (self._spec.blend and self._spec.isolated != "chunk")
        title = " ".join((document.title or "").split()) if wanted else ""
        if not title:
            return _Title(np.empty(0, dtype=np.int32), said=False)
        opening = " ".join(document.text[: 2 * len(title) + 100].split())
        said = opening.casefold().startswith(title.casefold())
        return _Title(self._tokenizer.ids([lead + title])[0], said)
