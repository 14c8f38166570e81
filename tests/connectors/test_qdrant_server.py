"""The server engine against a server that misbehaves: what is retried, what is said, what is asked for."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ctxindex.errors import IndexNotFoundError, StoreError
from ctxindex.stores import StoreLocation
from ctxindex.stores.conformance.samples import document, unit_vectors
from ctxindex.stores.retry import Backoff
from ctxindex.types import VectorLayout
from ctxindex_qdrant import QdrantStore, server
from ctxindex_qdrant.engine import Point
from ctxindex_qdrant.server import ServerEngine
from tests.connectors.fake_qdrant import FakeQdrant, Fault, running


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeQdrant]:
    monkeypatch.setattr(server, "TIMEOUT_SECONDS", 1)
    with running() as it:
        yield it


@pytest.fixture
def engine(fake: FakeQdrant) -> Iterator[ServerEngine]:
    it = ServerEngine.connect(fake.url, "docs")
    it.backoff = Backoff(tries=4, first=0.01)
    fake.requests.clear()
    yield it
    it.close()


POINT = Point("00000000-0000-0000-0000-000000000001", {"a": 1}, unit_vectors(1)[0])


@pytest.mark.parametrize(
    "faults",
    [
        [Fault(503), Fault(500), Fault(502)],
        [Fault(429), Fault(408)],
        [Fault(429, {"Retry-After": "1"})],
        [Fault(), Fault()],
        [Fault(silence=1.3)],
    ],
    ids=["5xx", "4xx that pass", "rate limit", "connection closed", "timeout"],
)
def test_what_may_pass_is_tried_again(fake: FakeQdrant, engine: ServerEngine, faults: list[Fault]) -> None:
    fake.faults = list(faults)
    begin = time.monotonic()
    engine.upsert("chunks", [POINT])
    assert len(fake.asked("PUT", "/points")) == len(faults) + 1
    if "Retry-After" in faults[0].headers:
        assert time.monotonic() - begin >= 1


def test_tries_end(fake: FakeQdrant, engine: ServerEngine) -> None:
    fake.faults = [Fault(503, message="overloaded")] * 9
    with pytest.raises(StoreError, match="503 overloaded"):
        engine.upsert("chunks", [POINT])
    assert len(fake.requests) == 4


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Fault(400, message="Index required but not found for ctx_facets"), "400 Index required"),
        (Fault(403, message="forbidden"), "QDRANT_API_KEY"),
        (Fault(413, message="payload too large"), "413 payload too large"),
        (Fault(501, message="no"), "501"),
    ],
)
def test_refusals_are_not_retried_and_say_why(fake: FakeQdrant, engine: ServerEngine, fault: Fault, words: str) -> None:
    fake.faults = [fault]
    with pytest.raises(StoreError, match=words):
        engine.search(unit_vectors(1)[0], 3, None)
    assert len(fake.requests) == 1


def test_nobody_answers() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    begin = time.monotonic()
    with pytest.raises(StoreError, match=f"cannot reach Qdrant at http://127.0.0.1:{port}: is it running") as caught:
        QdrantStore.connect(StoreLocation("docs", Path(), f"http://user:secret@127.0.0.1:{port}"))
    assert "secret" not in str(caught.value)
    assert time.monotonic() - begin < 3


def test_requests_are_bounded_by_points_and_bytes(fake: FakeQdrant, engine: ServerEngine) -> None:
    store = QdrantStore(engine)
    store.write_chunks(document("many", n_chunks=600).chunks)
    sizes = [len(body["points"]) for body in fake.asked("PUT", "docs/points")]
    assert sizes == [256, 256, 88]
    fake.requests.clear()
    store.write_chunks(document("big", texts=["ü" * 400_000] * 12).chunks)
    bodies = fake.asked("PUT", "docs/points")
    assert sum(len(body["points"]) for body in bodies) == 12
    assert max(len(json.dumps(body, ensure_ascii=False).encode()) for body in bodies) <= server.ServerEngine.max_bytes
    assert len(bodies) == 3


def test_order_of_create(fake: FakeQdrant, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.exists = False
    monkeypatch.setenv("QDRANT_URL", fake.url)
    monkeypatch.setenv("QDRANT_API_KEY", "key")
    with pytest.warns(UserWarning, match="insecure"):
        store = QdrantStore.connect(StoreLocation("docs", Path("unused")))
    assert store.location == f"qdrant:{fake.url} index docs"
    assert store.read_spec() is None
    with pytest.raises(IndexNotFoundError):
        store.counts()
    fake.requests.clear()
    store.create({"format": 1}, VectorLayout(8))
    steps = [(verb, path.removeprefix("/collections")) for verb, path, _ in fake.requests]
    assert steps == [
        ("GET", "/docs__docs"),
        ("DELETE", "/docs__g1"),
        ("PUT", "/docs__g1"),
        *[("PUT", "/docs__g1/index")] * 5,
        ("DELETE", "/docs__g1_docs"),
        ("PUT", "/docs__g1_docs"),
        ("PUT", "/docs__g1_docs/index"),
        ("POST", "/aliases"),
    ]
    made = {action["create_alias"]["alias_name"] for action in fake.requests[-1][2]["actions"]}
    assert made == {"docs", "docs__docs"}
    assert fake.api_keys == {"key"}
    store.close()


def test_a_create_that_fails_in_the_middle_may_be_repeated(fake: FakeQdrant, engine: ServerEngine) -> None:
    fake.faults = [Fault(200 + 301, message="x")]
    with pytest.raises(StoreError):
        engine.create({}, VectorLayout(8))
    fake.requests.clear()
    engine.create({}, VectorLayout(8))
    assert fake.requests[-1][1] == "/collections/aliases"


def test_something_else_at_the_address(fake: FakeQdrant) -> None:
    fake.faults = [Fault(404, message="nginx")]
    with pytest.raises(StoreError, match="404 nginx"):
        QdrantStore.connect(StoreLocation("docs", Path(), fake.url))


def test_embedded_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("QDRANT_URL", "http://127.0.0.1:9")
    store = QdrantStore.connect(StoreLocation("docs", tmp_path, options={"embedded": "true"}))
    assert store.read_spec() is None
    assert str(tmp_path) in store.location
