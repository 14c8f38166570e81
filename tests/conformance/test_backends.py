"""Every backend against the one suite."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from qdrant_client import QdrantClient

from ctxindex.stores.conformance import StoreConformance
from ctxindex.stores.memory import MemoryStore
from ctxindex.stores.protocol import Store, StoreLocation
from ctxindex_lancedb import LanceStore
from ctxindex_qdrant import QdrantStore


class TestMemory(StoreConformance):
    def connect(self, path: Path, index: str) -> Store:
        return MemoryStore.connect(StoreLocation(index, path))


class TestLance(StoreConformance):
    atomic_writes = True

    def connect(self, path: Path, index: str) -> Store:
        return LanceStore.connect(StoreLocation(index, path))


class TestQdrantEdge(StoreConformance):
    @pytest.fixture
    def tmp_path(self) -> Iterator[Path]:
        """In memory where there is room: the engine syncs a lot, and power cuts are not what is tested here."""
        memory = Path("/dev/shm")
        roomy = memory.is_dir() and shutil.disk_usage(memory).free > 2**30
        with TemporaryDirectory(dir=memory if roomy else None) as folder:
            yield Path(folder)

    def connect(self, path: Path, index: str) -> Store:
        return QdrantStore.connect(StoreLocation(index, path, options={"embedded": "true"}))


class TestQdrantMemory(StoreConformance):
    many_documents = 40

    def connect(self, path: Path, index: str) -> Store:
        return QdrantStore.connect(StoreLocation(index, path, url=":memory:"))


SERVER = os.environ.get("CTXINDEX_TEST_QDRANT_URL", "")


class TestQdrantServer(StoreConformance):
    __test__ = bool(SERVER)  # rather than a screen full of skips
    many_documents = 100
    multivector_tolerance = 1e-3  # the server rounds queries to float16

    @pytest.fixture(autouse=True)
    def _clean_up(self) -> Iterator[None]:
        self.run = f"ctxtest-{uuid.uuid4().hex[:8]}"
        yield
        client = QdrantClient(url=SERVER, api_key=os.environ.get("QDRANT_API_KEY"), timeout=60)
        for collection in client.get_collections().collections:
            if collection.name.startswith(self.run):
                client.delete_collection(collection.name)
        client.close()

    def connect(self, path: Path, index: str) -> Store:
        name = f"{self.run}-{uuid.uuid5(uuid.NAMESPACE_URL, str(path)).hex[:8]}-{index}"
        return QdrantStore.connect(StoreLocation(name, path, url=SERVER))
