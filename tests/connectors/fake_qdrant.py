"""A Qdrant on the loopback interface that misbehaves as told, then answers.

Answers what `ServerEngine` asks for with the smallest valid JSON, and writes down every request.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from ctxindex_qdrant.server import SPEC_KEY


@dataclass
class Fault:
    """One bad answer: a status, or silence for some seconds, or a closed connection."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    silence: float = 0.0
    message: str = "not now"


def collection_info(metadata: dict[str, Any] | None, dim: int) -> dict[str, Any]:
    return {
        "status": "green",
        "optimizer_status": "ok",
        "segments_count": 1,
        "points_count": 0,
        "payload_schema": {},
        "config": {
            "params": {"vectors": {"dense": {"size": dim, "distance": "Cosine"}}},
            "hnsw_config": {"m": 16, "ef_construct": 100, "full_scan_threshold": 10000},
            "optimizer_config": {
                "deleted_threshold": 0.2,
                "vacuum_min_vector_number": 1000,
                "default_segment_number": 0,
                "flush_interval_sec": 5,
            },
            "metadata": metadata,
        },
    }


class FakeQdrant:
    def __init__(self) -> None:
        self.faults: list[Fault] = []
        self.requests: list[tuple[str, str, Any]] = []
        self.exists = True
        self.dim = 8
        self.api_keys: set[str | None] = set()
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                fake.answer(self)

            do_GET = do_PUT = do_POST = do_DELETE = do_PATCH = handle_any

            def log_message(self, format: str, *args: Any) -> None:
                """Quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def asked(self, method: str, part: str) -> list[Any]:
        """The bodies of the requests of that kind."""
        return [body for verb, path, body in self.requests if verb == method and part in path]

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        length = int(handler.headers.get("Content-Length") or 0)
        body = json.loads(handler.rfile.read(length)) if length else None
        self.requests.append((handler.command, handler.path.partition("?")[0], body))
        self.api_keys.add(handler.headers.get("api-key"))
        if self.faults:
            self._misbehave(handler, self.faults.pop(0))
            return
        status, result = self._result(handler.command, handler.path.partition("?")[0])
        content = {"result": result, "status": "ok", "time": 0.0} if status == 200 else {"status": {"error": result}}
        self._send(handler, status, {}, json.dumps(content).encode())

    def _misbehave(self, handler: BaseHTTPRequestHandler, fault: Fault) -> None:
        if fault.status:
            content = json.dumps({"status": {"error": fault.message}}).encode()
            self._send(handler, fault.status, fault.headers, content)
            return
        time.sleep(fault.silence)
        handler.close_connection = True

    def _result(self, method: str, path: str) -> tuple[int, Any]:
        name = path.split("/")[2] if path.count("/") > 1 else ""
        if method == "GET" and path == f"/collections/{name}":
            if not self.exists:
                return 404, f"Not found: Collection `{name}` doesn't exist!"
            metadata = {SPEC_KEY: {"format": 1}} if name.endswith("docs") else None
            return 200, collection_info(metadata, self.dim)
        if path.endswith("/points/scroll"):
            return 200, {"points": [], "next_page_offset": None}
        if path.endswith("/points/query"):
            return 200, {"points": []}
        if method == "POST" and path.endswith("/points"):
            return 200, []
        if "/points" in path or path.endswith("/index"):
            return 200, {"operation_id": 1, "status": "completed"}
        return 200, True

    def _send(self, handler: BaseHTTPRequestHandler, status: int, headers: dict[str, str], content: bytes) -> None:
        handler.send_response(status)
        for name, value in {**headers, "Content-Type": "application/json", "Content-Length": str(len(content))}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(content)


@contextmanager
def running() -> Iterator[FakeQdrant]:
    fake = FakeQdrant()
    try:
        yield fake
    finally:
        fake.stop()
