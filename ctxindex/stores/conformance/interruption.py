"""Conformance: a run killed between any two writes harms no reader, and `recover` ends what it left.

The kill is simulated: the n-th call of a write primitive raises, before it or after it did its work, or (for stores
that write in several requests) half way through it. The index is then opened anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from ctxindex.stores.conformance.documents import assert_only
from ctxindex.stores.conformance.samples import Connecting, assert_same_chunks, document, indexed, unit_vectors
from ctxindex.stores.protocol import Store
from ctxindex.types import DocumentRecord, DocumentRevision

When = Literal["before", "half", "after"]
OLD = (document("kept", "r1", 2), document("a", "r1", 4), document("b", "r1", 1), document("emptied", "r1", 2))
NEW = (document("a", "r2", 2), document("b", "r2", 6), document("new", "r1", 5), document("emptied", "r2", 0))


class Killed(Exception):
    """Where the process would have died."""


class InterruptionConformance(Connecting):
    """Set `atomic_writes` where the store's `write_chunks` is one commit: then there is no half of it to test."""

    primitives: tuple[str, ...] = ("put_records", "write_chunks", "delete_chunks", "delete_records")
    atomic_writes = False

    def test_killed_replace(self, tmp_path: Path) -> None:
        """At every write: readers see old or new, recovery ends it, a second run completes it."""
        for number, when in self._kills(tmp_path / "dry", lambda store: store.replace(NEW), halves=True):
            path = tmp_path / f"{number}{when}"
            self._interrupt(path, number, when, lambda store: store.replace(NEW))
            with self.opened(path) as store:
                _assert_old_or_new(store)
                before = {each.record.doc_id: store.chunks(each.record.doc_id) for each in NEW}
                rolled_back = store.recover()
                _assert_recovered(store, rolled_back)
                for doc_id, chunks in before.items():
                    was_new = [chunk.chunk_id for chunk in chunks] == _ids(NEW, doc_id) != _ids(OLD, doc_id)
                    is_new = indexed(store).get(doc_id) == _record(NEW, doc_id)
                    assert is_new or not was_new, f"{doc_id} went back to its old revision before readers' eyes"
                missing = [each for each in NEW if indexed(store).get(each.record.doc_id) != each.record]
                store.replace(missing)
                assert_only(store, [OLD[0], *NEW])
                assert store.recover() == []

    def test_search_is_full_while_a_replace_is_in_flight(self, tmp_path: Path) -> None:
        """However many chunks of a revision that is not live lie nearer to the query."""
        near = document("big", "r2", 80)
        query = unit_vectors(1)[0]
        chunks = [replace(chunk, vector=query) for chunk in near.chunks]
        action = partial(_replace_one, document=DocumentRevision(near.record, tuple(chunks)))
        for number, when in self._kills(tmp_path / "dry", action, halves=True):
            path = tmp_path / f"{number}{when}"
            self._interrupt(path, number, when, action)
            with self.opened(path) as store:
                hits = store.search(query, 4)
                assert len(hits) == 4
                live = {chunk.chunk_id for doc_id in ("kept", "a", "b", "emptied") for chunk in store.chunks(doc_id)}
                big = {chunk.chunk_id for chunk in store.chunks("big")}
                assert all(hit.chunk_id in (big or live) for hit in hits)

    def test_killed_recovery(self, tmp_path: Path) -> None:
        """Recovery may be killed as well."""
        for number, when in self._kills(tmp_path / "dry", lambda store: store.replace(NEW)):
            path = tmp_path / f"{number}{when}"
            self._interrupt(path, number, when, lambda store: store.replace(NEW))
            rolled_back: set[str] = set()
            for write in range(1, 20):
                with self.opened(path) as store:
                    _assert_old_or_new(store)
                    try:
                        with _dying(store, self.primitives, write % 3 + 1, "after"):
                            rolled_back.update(store.recover())
                    except Killed:
                        continue
                    break
            with self.opened(path) as store:
                rolled_back.update(store.recover())
                assert all(record.pending is None for record in store.records())
                missing = [each for each in NEW if indexed(store).get(each.record.doc_id) != each.record]
                store.replace(missing)
                assert_only(store, [OLD[0], *NEW])

    def test_killed_delete(self, tmp_path: Path) -> None:
        """What is not yet deleted is still whole, or deleted by the next attempt."""
        gone = ["a", "b", "unknown"]
        for number, when in self._kills(tmp_path / "dry", lambda store: store.delete(gone), halves=True):
            path = tmp_path / f"{number}{when}"
            self._interrupt(path, number, when, lambda store: store.delete(gone))
            with self.opened(path) as store:
                store.recover()
                store.delete(gone)
                assert_only(store, [OLD[0], OLD[3]])

    def test_interrupted_failure_is_kept(self, tmp_path: Path) -> None:
        """A document that had only ever failed is that again after a roll-back."""
        failed = DocumentRecord("new", "", "s", 0, 0, status="failed", error="no text")
        for number, when in self._kills(tmp_path / "dry", lambda store: store.replace(NEW)):
            path = tmp_path / f"{number}{when}"
            with self.created(path) as store:
                store.put_records([failed])
            self._interrupt(path, number, when, lambda store: store.replace([NEW[2]]), prepare=False)
            with self.opened(path) as store:
                rolled_back = store.recover()
                expected = failed if "new" in rolled_back else indexed(store)["new"]
                assert indexed(store)["new"] == expected
                assert expected in (failed, NEW[2].record)

    def _kills(
        self, path: Path, action: Callable[[Store], None], *, halves: bool = False
    ) -> Iterator[tuple[int, When]]:
        """Every (write, moment) of an undisturbed run."""
        self._prepare(path)
        with self.opened(path) as store, _dying(store, self.primitives, 0, "before") as calls:
            action(store)
        assert calls, f"the store has none of {self.primitives}: set `primitives`"
        for number, name in enumerate(calls, start=1):
            yield number, "before"
            if halves and not (name == "write_chunks" and self.atomic_writes):
                yield number, "half"
        yield len(calls), "after"

    def _prepare(self, path: Path) -> None:
        with self.created(path) as store:
            store.replace(OLD)

    def _interrupt(
        self, path: Path, number: int, when: When, action: Callable[[Store], None], *, prepare: bool = True
    ) -> None:
        if prepare:
            self._prepare(path)
        with self.opened(path) as store, _dying(store, self.primitives, number, when), suppress(Killed):
            action(store)


def _replace_one(store: Store, document: DocumentRevision) -> None:
    store.replace([document])


@contextmanager
def _dying(store: Store, names: tuple[str, ...], fatal: int, when: When) -> Iterator[list[str]]:
    """Make the `fatal`-th write of `store` raise (none where 0); gives the names of the writes so far."""
    calls: list[str] = []

    def wrap(name: str, original: Callable[[Any], None]) -> Callable[[Any], None]:
        def write(values: Any) -> None:
            calls.append(name)
            if len(calls) != fatal:
                original(values)
                return
            if when != "before":
                original(values if when == "after" else _half(values))
            raise Killed

        return write

    present = [name for name in names if hasattr(store, name)]
    for name in present:
        setattr(store, name, wrap(name, getattr(store, name)))
    try:
        yield calls
    finally:
        for name in present:
            delattr(store, name)


def _half(values: Any) -> Any:
    if isinstance(values, dict):
        return dict(list(values.items())[: len(values) // 2])
    return list(values)[: len(values) // 2]


def _record(documents: tuple[DocumentRevision, ...], doc_id: str) -> DocumentRecord | None:
    return next((each.record for each in documents if each.record.doc_id == doc_id), None)


def _ids(documents: tuple[DocumentRevision, ...], doc_id: str) -> list[str]:
    return [chunk.chunk_id for each in documents if each.record.doc_id == doc_id for chunk in each.chunks]


def _assert_old_or_new(store: Store) -> None:
    """Every reader agrees, document by document, on one whole revision."""
    hits = store.search(unit_vectors(1)[0], 1000)
    for doc_id in ("kept", "a", "b", "new", "emptied"):
        seen = [chunk.chunk_id for chunk in store.chunks(doc_id)]
        assert seen in (_ids(OLD, doc_id), _ids(NEW, doc_id)), f"{doc_id} is torn"
        assert sorted(seen) == sorted(hit.chunk_id for hit in hits if hit.doc_id == doc_id), f"{doc_id} in search"
    assert _ids(OLD, "kept") == [chunk.chunk_id for chunk in store.chunks("kept")]
    counts = store.counts()
    assert counts.failed == 0
    assert counts.documents in (len(OLD), len(OLD) + 1)


def _assert_recovered(store: Store, rolled_back: list[str]) -> None:
    """Nothing pending, nothing stale, and the list tells the truth."""
    records = indexed(store)
    assert all(record.pending is None for record in records.values())
    assert len(set(rolled_back)) == len(rolled_back)
    before = {each.record.doc_id: each for each in OLD}
    after = {each.record.doc_id: each for each in NEW}
    expected = []
    for doc_id in {**before, **after}:
        old, new = before.get(doc_id), after.get(doc_id)
        live = new if new and records.get(doc_id) == new.record else old
        if doc_id in rolled_back:
            assert live is old
        if live is None:
            assert doc_id not in records
            continue
        assert records[doc_id] == live.record
        assert_same_chunks(store.chunks(doc_id, vectors=True), live.chunks)
        expected.append(live)
        stale = [other for other in (old, new) if other and other is not live]
        if hasattr(store, "count_chunks"):
            assert all(store.count_chunks(doc_id, other.record.revision) == 0 for other in stale)
    assert_only(store, expected)
