"""Conformance: filters mean what `ctxindex.stores.filters.matches` says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ctxindex.stores.conformance.samples import Connecting, document, unit_vectors
from ctxindex.stores.filters import AllOf, AnyOf, Condition, Filter, Not, matches
from ctxindex.stores.payload import filter_values
from ctxindex.types import DocumentRevision, StoredChunk

KEYS = (
    "a",
    "dotted.key",
    'quo"te',
    "single'quote",
    "with space",
    "back\\slash",
    "a[0]",
    "ünï 漢",
    "",
    "a.b",
    "metadata",
)
VALUES: tuple[Any, ...] = (
    "1", "x", "X", "", "it's \"x\"", "back\\", "%", "true", "ü 漢", "long " * 100, "two\nlines",
    1, 0, -1, 2, 10**6, 2**53, 2**53 + 1, 1.0, 1.5, -0.0, 0.1, 1e300, True, False, None,
    [], [1, 2, 3], ["x", "y"], [True], [None], ["1", 1.5, False], [2.0], [-5, 5],
)  # fmt: skip
SCALARS = tuple(value for value in VALUES if value is not None and not isinstance(value, list))


class FilteringConformance(Connecting):
    """Each filter against the oracle, on a table of varied metadata."""

    def test_every_operator_means_what_matches_says(self, tmp_path: Path) -> None:
        """Every value under every operator, typed; keys of every look."""
        self._check(tmp_path, _conditions())

    def test_filters_compose(self, tmp_path: Path) -> None:
        """AllOf, AnyOf, Not, nested and empty."""
        self._check(tmp_path, _compositions())

    def test_doc_id_and_title(self, tmp_path: Path) -> None:
        """They are filtered like metadata, and win over metadata of the same name."""
        names = ("d'1", "d\\2", "1", "ü 漢", "unknown")
        conditions: list[Filter] = []
        for key in ("doc_id", "title"):
            for name in (*names, 1, True, ""):
                conditions += [Condition(key, "eq", name), Condition(key, "ne", name), Condition(key, "gt", name)]
            conditions += [Condition(key, "in", names[:2]), Condition(key, "not_in", (*names[:2], 1))]
            conditions += [Condition(key, "in", ()), Condition(key, "not_in", ())]
            conditions += [Condition(key, "exists", True), Condition(key, "exists", False)]
        documents = [
            document(name, metadata={"doc_id": "d'1", "title": "1"}, title=title)
            for name, title in zip(names[:4], (None, "d'1", "", "1"), strict=True)
        ]
        self._check(tmp_path, conditions, documents)

    def test_no_filter_keeps_everything(self, tmp_path: Path) -> None:
        """None is no condition."""
        self._check(tmp_path, [None])

    def _check(
        self, path: Path, wheres: Sequence[Filter | None], documents: list[DocumentRevision] | None = None
    ) -> None:
        documents = documents or _table()
        chunks = [chunk for each in documents for chunk in each.chunks]
        query = unit_vectors(1)[0]
        with self.created(path) as store:
            store.replace(documents)
            wrong = []
            for where in wheres:
                expected = {chunk.chunk_id for chunk in chunks if matches(where, filter_values(chunk))}
                found = {hit.chunk_id for hit in store.search(query, len(chunks) + 1, where)}
                if found != expected:
                    wrong.append(_explain(where, chunks, found, expected))
            assert not wrong, f"{len(wrong)} of {len(wheres)} filters:\n" + "\n".join(wrong[:20])


def _explain(where: Filter | None, chunks: list[StoredChunk], found: set[str], expected: set[str]) -> str:
    def show(ids: set[str]) -> list[Any]:
        return [dict(chunk.metadata) for chunk in chunks if chunk.chunk_id in ids][:5]

    return f"{where}: missed {show(expected - found)}, wrongly found {show(found - expected)}"


def _table() -> list[DocumentRevision]:
    rows: list[dict[str, Any]] = [{}, *({"a": value} for value in VALUES)]
    rows += [{key: value} for key in KEYS[1:] for value in ("x", 1, [2, "y"])]
    rows += [{"a": "x", "n": number, "tags": tags} for number in range(4) for tags in ([], ["p"], ["p", "q"])]
    rows += [{"a": {"b": 1}}, {"n": {"key": "n", "value": 9}}]
    return [document("table", metadata=rows, texts=[f"row {number}" for number in range(len(rows))])]


def _conditions() -> list[Filter]:
    conditions: list[Filter] = [Condition("a", "eq", value) for value in SCALARS]
    conditions += [Condition("a", "ne", value) for value in ("1", 1, True, 0, "missing")]
    for operator in ("gt", "gte", "lt", "lte"):
        conditions += [Condition("a", operator, bound) for bound in (0, 1, 1.5, -1, 2.5, 10**7, "1", True)]
    conditions += [Condition("a", "in", some) for some in ((), ("x", 1), (True,), ("1", 2, 0.1), (False, 'it\'s "x"'))]
    conditions += [Condition("a", "not_in", some) for some in ((), ("x", 1), (True,), ("missing",))]
    for key in (*KEYS, "missing", "A", "text", "revision", "b"):
        conditions += [Condition(key, "exists", True), Condition(key, "exists", False)]
        conditions += [Condition(key, "eq", "x"), Condition(key, "eq", 1), Condition(key, "ne", "y")]
        conditions += [Condition(key, "gte", 2), Condition(key, "lt", 2)]
    return conditions


def _compositions() -> list[Filter]:
    x, low, p, q = (
        Condition("a", "eq", "x"),
        Condition("n", "lte", 1),
        Condition("tags", "eq", "p"),
        Condition("tags", "eq", "q"),
    )
    return [
        AllOf(()),
        AnyOf(()),
        Not(AllOf(())),
        Not(AnyOf(())),
        AllOf((x, low)),
        AllOf((p, q)),
        AnyOf((low, q)),
        AnyOf((q,)),
        Not(p),
        Not(low),
        Not(Not(p)),
        Not(AllOf((x, p))),
        Not(AnyOf((x, p))),
        AllOf((x, AnyOf((q, Condition("n", "gt", 2))), Not(Condition("n", "eq", 3)))),
        AnyOf((AllOf((p, Not(q))), AllOf((Not(p), low)), AnyOf(()))),
        AllOf((AllOf((AllOf((x,)),)), AllOf(()))),
        AllOf((Condition("n", "gt", 0), Condition("n", "lt", 3))),
        AllOf((Condition("a", "gt", 2), Condition("a", "lt", 2))),
        Not(AllOf((Condition("n", "gte", 1), Not(AnyOf((p, q)))))),
    ]
