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

Verdict: TypeAlias = Literal["new", "changed", "unchanged", "failed", "skipped"]


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
    sources: dict[Verdict, list[Source]] = {"new": [], "changed": [], "unchanged": [], "failed": [], "skipped": []}
    failures = list(found.failures)
    for source in found.sources:
        record = records.get(source.doc_id)
        try:
            # Without a record it is new whatever its bytes are; they are hashed when they are read.
            verdict = "new" if record is None else judge(hash_source(source), record, retry_failed=retry_failed)
        except DocumentError as error:
            failures.append(FailedDocument(source.doc_id, error.reason))
            continue
        sources[verdict].append(source)
        if verdict == "failed" and record is not None:
            failures.append(FailedDocument(source.doc_id, record.error or "failed before", record.source_hash))
    skips = [SkippedSource(source.doc_id, records[source.doc_id].error or "no text") for source in sources["skipped"]]
    for skipped in found.skipped:
        lost = lost_document(skipped, records.get(skipped.doc_id))
        if lost is None:
            skips.append(skipped)
        else:
            failures.append(lost)
    return Plan(
        new=tuple(sources["new"]),
        changed=tuple(sources["changed"]),
        unchanged=len(sources["unchanged"]),
        skips=tuple(skips),
        failures=tuple(failures),
    )


def judge(source_hash: str, record: DocumentRecord, *, retry_failed: bool = False) -> Verdict:
    """What to do with a source of that hash, given the index's record of the document."""
    if source_hash == record.source_hash:
        if record.status == "live":
            return "unchanged"
        if record.status == "skipped":
            return "skipped"
        if not retry_failed:
            return "failed"
    return "changed" if record.revision else "new"


def lost_document(skipped: SkippedSource, record: DocumentRecord | None) -> FailedDocument | None:
    """The failure of a document that is in the index and whose source is no document any more; None for others."""
    if record is None or not record.revision:
        return None
    return FailedDocument(skipped.doc_id, f"no document any more: {skipped.reason}")


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
