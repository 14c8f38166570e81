"""plan -> encode -> replace: keeping an index equal to its sources, and able to go on after any interruption."""

from __future__ import annotations

from ctxindex.indexing.ingest import Ingest, Progress, Quiet, Totals, settled_records
from ctxindex.indexing.options import IndexOptions, require_agreement
from ctxindex.indexing.plan import Plan, make_plan, stale_failures
from ctxindex.indexing.tools import Tools
from ctxindex.indexing.verification import ContextCheck, DocumentCheck, VerifyReport
from ctxindex.indexing.verify import DEFAULT_SAMPLE, Verify

__all__ = [
    "DEFAULT_SAMPLE",
    "ContextCheck",
    "DocumentCheck",
    "IndexOptions",
    "Ingest",
    "Plan",
    "Progress",
    "Quiet",
    "Tools",
    "Totals",
    "Verify",
    "VerifyReport",
    "make_plan",
    "require_agreement",
    "settled_records",
    "stale_failures",
]
