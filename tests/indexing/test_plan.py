from __future__ import annotations

import pytest

from ctxindex.indexing.plan import judge
from ctxindex.types import DocumentRecord

LIVE = DocumentRecord("a", "r1", "h1", 3, 100)
FAILED_NEW = DocumentRecord("a", "", "h1", 0, 0, status="failed", error="broken")
FAILED_OLD = DocumentRecord("a", "r1", "h2", 3, 100, status="failed", error="broken")
TRANSIENT = DocumentRecord("a", "r1", "", 3, 100, status="failed", error="permission denied")
SKIPPED = DocumentRecord("a", "", "h1", 0, 0, status="skipped", error="binary data")


@pytest.mark.parametrize(
    ("record", "source_hash", "verdict"),
    [
        (LIVE, "h1", "unchanged"),
        (LIVE, "h2", "changed"),
        (FAILED_NEW, "h1", "failed"),
        (FAILED_NEW, "h2", "new"),
        (FAILED_OLD, "h2", "failed"),
        (FAILED_OLD, "h1", "changed"),
        (TRANSIENT, "h1", "changed"),
        (SKIPPED, "h1", "skipped"),
        (SKIPPED, "h2", "new"),
    ],
)
def test_a_source_is_judged_by_its_bytes_and_its_record(record: DocumentRecord, source_hash: str, verdict: str) -> None:
    assert judge(source_hash, record) == verdict


def test_failed_documents_are_tried_again_when_asked() -> None:
    assert judge("h1", FAILED_NEW, retry_failed=True) == "new"
    assert judge("h2", FAILED_OLD, retry_failed=True) == "changed"
    assert judge("h1", LIVE, retry_failed=True) == "unchanged"
