"""How numbers and foreign text are written for people: points of 100, intervals, p values, nothing that controls."""

from __future__ import annotations

import math
import re

from ctxindex.evaluation.results import Estimate

NOTHING = "-"
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")

TITLES = {
    "ndcg@10": "nDCG@10",
    "recall@1": "R@1",
    "recall@5": "R@5",
    "recall@10": "R@10",
    "mrr@10": "MRR@10",
    "document_hit@1": "DOC@1",
    "document_hit@5": "DOC@5",
    "document_hit@10": "DOC@10",
}


def title(metric: str) -> str:
    """What a metric is called at the head of a column."""
    return TITLES.get(metric, metric)


def points(value: float, *, signed: bool = False) -> str:
    """A value between 0 and 1 in points of 100."""
    if not math.isfinite(value):
        return NOTHING
    written = f"{100 * value:+.1f}" if signed else f"{100 * value:.1f}"
    return "0.0" if written in ("-0.0", "+0.0") else written


def interval(low: float, high: float, *, signed: bool = False) -> str:
    """`[19.8, 24.3]`, in points; nothing where it is not known."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return ""
    return f"[{points(low, signed=signed)}, {points(high, signed=signed)}]"


def estimate(value: Estimate, *, signed: bool = False) -> str:
    """`22.0 [19.8, 24.3]`, in points."""
    return f"{points(value.mean, signed=signed)} {interval(value.low, value.high, signed=signed)}".rstrip()


def probability(p: float) -> str:
    """A p value to three places."""
    if not math.isfinite(p):
        return NOTHING
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def amount(value: float) -> str:
    """A number as it was given: whole where it is whole."""
    if not math.isfinite(value):
        return NOTHING
    return f"{int(value):,}" if value == int(value) else f"{value:g}"


def rate(value: float) -> str:
    """Something a second, or seconds: to three figures where it is small."""
    if not math.isfinite(value):
        return NOTHING
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def clean(text: str) -> str:
    """The text without what neither XML nor HTML can hold, such as NUL: each is replaced by U+FFFD."""
    return _UNPRINTABLE.sub("\ufffd", text)
