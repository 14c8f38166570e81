"""What an ingest has to do, decided from hashes alone: no file is parsed and no model is loaded.

A source is unchanged when the bytes it would be read from are those its live chunks were made of. The record in the
store says so, whatever machine asks. One that failed is not tried again until its bytes change, unless the failure lay
outside the file (no hash was kept then) or the user asks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from ctxindex.errors import DocumentError
from ctxindex.loading import Found, SkippedSource, Source
from ctxindex.types import DocumentRecord, FailedDocument

Verdict: TypeAlias = Literal["new", "changed", "unchanged", "failed"]


@dataclass(frozen=True, slots=True)
class Plan:
    """Sources to encode (`new` and `changed`), documents left as they are, and failures known without parsing."""

    new: tuple[Source, ...]
    changed: tuple[Source, ...]
    unchanged: int
    skips: tuple[SkippedSource, ...]
    failures: tuple[FailedDocument, ...]

    @property
    def work(self) -> tuple[Source, ...]:
        """What has to be loaded and encoded."""
        return self.new + self.changed


def make_plan(
    found: Found,
    records: Mapping[str, DocumentRecord],
    hash_source: Callable[[Source], str],
    *,
    retry_failed: bool = False,
) -> Plan:
    """Compare what was found with what the index has.

    Args:
        found: sources, and what could not become one.
        records: the index's records by doc_id.
        hash_source: the identity of a source's bytes; raises `DocumentError` where they cannot be read.
        retry_failed: try documents again that failed before, although they have not changed.
    """
    sorted_out: dict[Verdict, list[Source]] = {"new": [], "changed": [], "unchanged": [], "failed": []}
    failures = list(found.failures)
    for source in found.sources:
        record = records.get(source.doc_id)
        try:
            source_hash = hash_source(source)
        except DocumentError as error:
            failures.append(FailedDocument(source.doc_id, error.reason))
            continue
        verdict = judge(source_hash, record, retry_failed=retry_failed)
        sorted_out[verdict].append(source)
        if verdict == "failed" and record is not None:
            failures.append(FailedDocument(source.doc_id, record.error or "failed before", source_hash))
    return Plan(
        new=tuple(sorted_out["new"]),
        changed=tuple(sorted_out["changed"]),
        unchanged=len(sorted_out["unchanged"]),
        skips=found.skipped,
        failures=tuple(failures),
    )


def judge(source_hash: str, record: DocumentRecord | None, *, retry_failed: bool = False) -> Verdict:
    """What to do with a source of that hash, given the index's record of the document."""
    if record is None:
        return "new"
    if source_hash == record.source_hash:
        if record.status == "live":
            return "unchanged"
        if not retry_failed:
            return "failed"
    return "changed" if record.revision else "new"


def stale_failures(found: Found, records: Mapping[str, DocumentRecord], failing: Collection[str]) -> list[str]:
    """Records of lines of a JSONL file, or of the file itself, that failed once; it was read, and they fail no more."""
    lines = tuple(f"{container}#" for container in found.containers)
    return [
        doc_id
        for doc_id, record in records.items()
        if record.status == "failed"
        and not record.revision
        and doc_id not in failing
        and (doc_id in found.containers or doc_id.startswith(lines))
    ]
