"""LanceDB behind the few calls that the store makes: opening, tables, commits, upkeep. Imports lancedb.

Knows tables and SQL, nothing of documents. Every error of the database leaves here as a StoreError.
"""

from __future__ import annotations

import fcntl
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

import lancedb
import pyarrow as pa  # type: ignore[import-untyped]
from lancedb.index import BTree

from ctxindex.errors import IndexNotFoundError, StoreError

if TYPE_CHECKING:
    from ctxindex.types import FloatArray

KEEP_VERSIONS = timedelta(hours=1)
"""How long replaced data stays on disk: a reader in another process may be in the middle of a query."""

SMALL_FRAGMENTS = 64
"""Compacting reads a table whole, and so takes memory; scanning some dozens of fragments costs next to nothing."""

STALE_VERSIONS = 50
INDEX_FROM_ROWS = 20_000
"""Below that, looking through all doc_ids costs a few milliseconds."""

_SOURCE_PLACE = re.compile(r",? ?\S*\.rs:\d+(:\d+)?")
"""Where in its own Rust code the database gave up: of no use to the reader."""

P = ParamSpec("P")
R = TypeVar("R")


@contextmanager
def refusals(where: str) -> Iterator[None]:
    """Turn what lancedb, lance and arrow raise into a StoreError."""
    try:
        yield
    except (StoreError, KeyboardInterrupt):
        raise
    except (OSError, RuntimeError, ValueError, pa.ArrowException) as error:
        reason = (
            _SOURCE_PLACE.sub("", str(error).strip().splitlines()[0]) if str(error).strip() else type(error).__name__
        )
        raise StoreError(f"LanceDB refused a request on {where}: {reason}") from error


def _translated(
    method: Callable[Concatenate[Database, P], R],
) -> Callable[Concatenate[Database, P], R]:
    @wraps(method)
    def call(self: Database, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with refusals(self.label):
            return method(self, *args, **kwargs)

    return call


def _stale(table: Any) -> int:
    """Versions that upkeep would drop."""
    times = [version["timestamp"] for version in table.list_versions()]
    return sum(time < datetime.now(time.tzinfo) - KEEP_VERSIONS for time in times)


class Database:
    """One LanceDB database. An embedded one is not made before `create`."""

    def __init__(self, uri: str, *, folder: Path | None, label: str) -> None:
        self.label = label
        self._uri = uri
        self._folder = folder
        self._connection: Any = None
        self._tables: dict[str, Any] = {}

    @_translated
    def schema(self, table: str) -> pa.Schema | None:
        """The schema of `table`, or None where there is no such table."""
        handle = self._find(table)
        return None if handle is None else handle.schema

    @contextmanager
    def writing(self, lock: str) -> Iterator[None]:
        """Hold the file `lock` in the folder of the database; the end of the process lets go of it too.

        LanceDB itself lets several processes commit at once. But two runs over one index would each take the other's
        work in flight for wreckage. An object store has no such lock.

        Raises:
            StoreError: another process, or another Index of this one, holds it.
        """
        if self._folder is None:
            yield
            return
        with refusals(self.label):
            self._folder.mkdir(parents=True, exist_ok=True)
            file = (self._folder / lock).open("w")
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise StoreError(f"another ingest is writing to {self.label}: wait until it ends") from None
            yield

    @_translated
    def create(self, table: str, schema: pa.Schema) -> None:
        """Make an empty table; what a killed `create` left under that name goes."""
        self.drop(table)
        self._connect().create_table(table, schema=schema)

    @_translated
    def drop(self, table: str) -> None:
        """Remove a table with all that is in it; nothing where there is none."""
        if self._find(table) is not None:
            self._connect().drop_table(table)
            del self._tables[table]

    def scan(
        self, table: str, columns: list[str], where: str | None = None, *, rows: int = 4096
    ) -> Iterator[pa.RecordBatch]:
        """The rows that match, in batches of at most `rows`, all of the moment of the first."""
        with refusals(self.label):
            query = self._table(table).search().select(columns)
            if where is not None:
                query = query.where(where)
            yield from query.to_batches(batch_size=rows)

    @_translated
    def count(self, table: str, where: str) -> int:
        """How many rows match."""
        return int(self._table(table).count_rows(where))

    @_translated
    def nearest(self, table: str, query: FloatArray, k: int, columns: list[str], where: str | None) -> pa.Table:
        """The k rows of least cosine distance (column `_distance`) among those that match; no index is used."""
        search = self._table(table).search(query, vector_column_name="vector").distance_type("cosine")
        if where is not None:
            search = search.where(where, prefilter=True)
        return search.limit(k).select([*columns, "_distance"]).to_arrow()

    @_translated
    def add(self, table: str, rows: pa.Table) -> None:
        """Insert rows whose keys are not there, in one commit."""
        self._table(table).add(rows)

    @_translated
    def merge(self, table: str, key: str, rows: pa.Table, *, drop: str | None = None) -> None:
        """Insert or overwrite by `key`; rows that match `drop` and are not among `rows` go in the same commit."""
        merge = self._table(table).merge_insert(key).when_matched_update_all().when_not_matched_insert_all()
        if drop is not None:
            merge = merge.when_not_matched_by_source_delete(drop)
        merge.execute(rows)

    @_translated
    def delete(self, table: str, where: str) -> None:
        """Remove the rows that match; no commit where there are none."""
        if self.count(table, where):
            self._table(table).delete(where)

    @_translated
    def maintain(self, table: str) -> None:
        """Compact small fragments, drop old versions, index doc_id where that pays; nothing where nothing is due."""
        handle = self._table(table)
        stats = handle.stats()
        rows = stats["num_rows"]
        if rows >= INDEX_FROM_ROWS and not any(index.columns == ["doc_id"] for index in handle.list_indices()):
            handle.create_index("doc_id", config=BTree())
        if stats["fragment_stats"]["num_small_fragments"] >= SMALL_FRAGMENTS or _stale(handle) >= STALE_VERSIONS:
            handle.optimize(cleanup_older_than=KEEP_VERSIONS)

    def close(self) -> None:
        """Let go of handles."""
        self._tables.clear()
        self._connection = None

    def _table(self, name: str) -> Any:
        handle = self._find(name)
        if handle is None:
            raise IndexNotFoundError(f"there is no index in {self.label}: ingest something first")
        return handle

    def _find(self, name: str) -> Any:
        if name not in self._tables:
            if self._folder is not None and not self._folder.exists():
                return None  # connecting would make it
            try:
                self._tables[name] = self._connect().open_table(name)
            except (ValueError, FileNotFoundError) as error:
                if "not found" not in str(error):
                    raise
                return None
        return self._tables[name]

    def _connect(self) -> Any:
        if self._connection is None:
            # Interval 0: every read looks for commits of other processes first.
            self._connection = lancedb.connect(self._uri, read_consistency_interval=timedelta(0))
        return self._connection
