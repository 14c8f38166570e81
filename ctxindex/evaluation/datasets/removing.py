"""Sentences that a question was made of, cut out of their documents: by them it would be found by its own words.

A row of a file of questions names them as `"remove": [start, end]`, in characters of the text as loaded.
"""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate

from ctxindex.chunking.spans import Span
from ctxindex.evaluation.dataset import Dataset, DatasetError, GoldSpan
from ctxindex.evaluation.datasets.rows import Row
from ctxindex.types import Document

_log = logging.getLogger("ctxindex")


class Cuts:
    """Stretches cut out of a text; they are in order and do not overlap."""

    def __init__(self, spans: Sequence[Span]) -> None:
        self._spans = spans
        self._ends = [end for _, end in spans]
        self._lost = [0, *accumulate(end - start for start, end in spans)]

    def apply(self, text: str) -> str:
        """What is left."""
        starts = [0, *self._ends]
        stops = [*(start for start, _ in self._spans), len(text)]
        return "".join(text[start:stop] for start, stop in zip(starts, stops, strict=True))

    def move(self, place: int) -> int:
        """Where a place of the text lies in what is left; one inside of a cut lies where the cut was."""
        number = bisect_right(self._ends, place)
        inside = max(0, place - self._spans[number][0]) if number < len(self._spans) else 0
        return place - self._lost[number] - inside


def removed_by(rows: Iterable[Row], lengths: Mapping[str, int]) -> dict[str, list[Span]]:
    """What is to be cut out of each document: in order, and no two stretches overlap.

    Args:
        rows: of questions.
        lengths: of the documents that could be read, in characters.

    Raises:
        DatasetError: a `remove` is no stretch of its document.
    """
    found: dict[str, list[Span]] = {}
    for row in rows:
        if row.has("remove"):
            doc_id = row.identifier("doc_id")
            span = _span(row, "remove")
            if doc_id in lengths and span[1] > lengths[doc_id]:
                raise row.error(f'"remove" is outside of the {lengths[doc_id]:,} characters of {doc_id!r}')
            found.setdefault(doc_id, []).append(span)
    return {doc_id: _joined(spans) for doc_id, spans in found.items()}


def _span(row: Row, name: str) -> Span:
    value = row.values[name]
    numbers = value if isinstance(value, list) and len(value) == 2 else [None, None]
    start, end = numbers
    if type(start) is not int or type(end) is not int or not 0 <= start < end:
        raise row.error(f'"{name}" is {value!r}, and no [start, end] in characters')
    return start, end


def _joined(spans: Iterable[Span]) -> list[Span]:
    joined: list[Span] = []
    for start, end in sorted(spans):
        if joined and start <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(end, joined[-1][1])
        else:
            joined.append((start, end))
    return joined


def without(dataset: Dataset, removed: Mapping[str, Sequence[Span]]) -> Dataset:
    """The dataset with these stretches cut out of its documents, and its answers where they stand then.

    Raises:
        DatasetError: nothing is left to ask.
    """
    if not removed:
        return dataset
    cuts = {doc_id: Cuts(spans) for doc_id, spans in removed.items()}
    documents = [_shortened(one, cuts[one.doc_id]) if one.doc_id in cuts else one for one in dataset.documents]
    queries = [replace(query, spans=tuple(_moved(query.spans, cuts))) for query in dataset.queries]
    asked = zip(queries, dataset.queries, strict=True)
    kept = tuple(query for query, before in asked if query.spans or not before.spans)
    if not kept:
        raise DatasetError(f'{dataset.name}: all that answers its questions is to be removed ("remove"): mend the file')
    if count := len(queries) - len(kept):
        _log.warning("%s: questions left out, since their answers are removed: %d", dataset.name, count)
    return replace(dataset, documents=tuple(documents), queries=kept)


def _shortened(document: Document, cut_out: Cuts) -> Document:
    return replace(
        document,
        text=cut_out.apply(document.text),
        sections=tuple(replace(section, start=cut_out.move(section.start)) for section in document.sections),
        pages=tuple(cut_out.move(page) for page in document.pages),
    )


def _moved(spans: Iterable[GoldSpan], cuts: Mapping[str, Cuts]) -> Iterable[GoldSpan]:
    for span in spans:
        if span.doc_id not in cuts:
            yield span
            continue
        start, end = cuts[span.doc_id].move(span.start), cuts[span.doc_id].move(span.end)
        if start < end:
            yield replace(span, start=start, end=end)
