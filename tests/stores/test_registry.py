from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from ctxindex.errors import ConfigError, StoreError
from ctxindex.stores import StoreLocation, installed_stores, open_store, registry

GIVEN = Path("given")


class Spy:
    """A connector that only remembers where it was sent."""

    @classmethod
    def connect(cls, location: StoreLocation) -> StoreLocation:
        return location


class NeedsDriver:
    @classmethod
    def connect(cls, location: StoreLocation) -> None:
        import a_driver_that_is_not_there  # type: ignore[import-not-found]  # noqa: F401


@pytest.fixture
def stores(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [
        EntryPoint("spy", f"{__name__}:Spy", registry.GROUP),
        EntryPoint("driverless", f"{__name__}:NeedsDriver", registry.GROUP),
        EntryPoint("broken", "no_such_connector:Store", registry.GROUP),
    ]
    monkeypatch.setattr(registry, "entry_points", lambda group: entries)


@pytest.mark.usefixtures("stores")
@pytest.mark.parametrize(
    ("uri", "url", "expected"),
    [
        ("spy", None, StoreLocation("docs", GIVEN)),
        ("spy", "http://h:6333", StoreLocation("docs", GIVEN, "http://h:6333")),
        ("spy:./folder", None, StoreLocation("docs", Path("folder"), options={"embedded": "true"})),
        ("spy:/abs/fold er", None, StoreLocation("docs", Path("/abs/fold er"), options={"embedded": "true"})),
        ("spy:", None, StoreLocation("docs", GIVEN)),
        ("spy+http://host:6333", None, StoreLocation("docs", GIVEN, "http://host:6333")),
        ("spy+https://host/path", None, StoreLocation("docs", GIVEN, "https://host/path")),
        ("spy+s3://bucket/x", None, StoreLocation("docs", GIVEN, "s3://bucket/x")),
        ("spy+s3://bucket/x", "s3://bucket/x", StoreLocation("docs", GIVEN, "s3://bucket/x")),
    ],
)
def test_forms(uri: str, url: str | None, expected: StoreLocation) -> None:
    store: object = open_store(uri, url=url, index="docs", path=GIVEN)
    assert store == expected


@pytest.mark.usefixtures("stores")
@pytest.mark.parametrize(
    ("uri", "url", "hint"),
    [
        ("http://localhost:6333", None, r"qdrant\+http://localhost:6333"),
        ("https://x.cloud", None, r"qdrant\+https://x.cloud"),
        ("s3://bucket", None, r"lancedb\+s3://bucket"),
        ("pinecone", None, "installed stores: broken, driverless, spy"),
        ("", None, "names no store"),
        ("spy+http", None, "names no store"),
        ("a/b", None, "names no store"),
        ("spy+http://a", "http://b", "two addresses"),
        ("spy:./folder", "http://b", "a folder and an address"),
    ],
)
def test_malformed(uri: str, url: str | None, hint: str) -> None:
    with pytest.raises(ConfigError, match=hint):
        open_store(uri, url=url, index="docs", path=GIVEN)


@pytest.mark.usefixtures("stores")
@pytest.mark.parametrize(
    ("uri", "package"), [("broken", "no_such_connector"), ("driverless", "a_driver_that_is_not_there")]
)
def test_missing_package_is_named(uri: str, package: str) -> None:
    with pytest.raises(StoreError, match=f"needs the package {package}"):
        open_store(uri, index="docs", path=GIVEN)


@pytest.mark.parametrize("index", ["docs", "A-1.b_c", "_x", "9", "x" * 128])
def test_good_index_names(index: str) -> None:
    registry.check_index_name(index)


@pytest.mark.parametrize("index", ["", "a b", "a/b", "..", ".a", "-a", "ü", "a\n", "x" * 129, "a:b", "a'b"])
def test_bad_index_names(index: str) -> None:
    with pytest.raises(ConfigError, match="cannot name an index"):
        open_store("lancedb", index=index, path=GIVEN)


def test_both_connectors_are_installed_and_open_without_a_trace(tmp_path: Path) -> None:
    assert {"lancedb", "qdrant"} <= set(installed_stores())
    for name in ("lancedb", f"lancedb:{tmp_path}", f"qdrant:{tmp_path}"):
        store = open_store(name, index="docs", path=tmp_path)
        assert store.read_spec() is None
        assert str(tmp_path) in store.location
        store.close()
    assert list(tmp_path.iterdir()) == []


def test_imports_stay_light() -> None:
    code = (
        "import sys, ctxindex.stores, ctxindex_lancedb, ctxindex_qdrant;"
        "heavy = {'numpy', 'pyarrow', 'lancedb', 'qdrant_client', 'qdrant_edge', 'pytest', 'torch'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
