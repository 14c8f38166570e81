"""A language model on the loopback interface that speaks OpenAI's chat completions, and misbehaves as told."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Fault:
    """One bad answer: a status, or bytes sent as if all were well, after some seconds; without either, none at all."""

    status: int = 0
    content: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0


class FakeEndpoint:
    """Answers every prompt with its last word; `usage` and `message` replace what an answer says, None leaves it out.

    `faults` are given in order before anything is answered; `always` is given for ever.
    """

    def __init__(self) -> None:
        self.faults: list[Fault] = []
        self.always: Fault | None = None
        self.usage: dict[str, Any] | None = {
            "prompt_tokens": 1000,
            "completion_tokens": 12,
            "total_tokens": 1012,
            "prompt_tokens_details": {"cached_tokens": 900},
        }
        self.message: dict[str, Any] = {}
        self.finish_reason = "stop"
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self._lock = threading.Lock()
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                endpoint.answer(self)

            def log_message(self, format: str, *args: Any) -> None:
                """Quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        with self._lock:
            self.requests.append(body)
            self.keys.append(handler.headers.get("Authorization"))
            fault = self.faults.pop(0) if self.faults else self.always
        if handler.path != "/v1/chat/completions":
            fault = Fault(404)
        if fault is not None:
            self._misbehave(handler, fault)
            return
        content = json.dumps(self._completion(body)).encode()
        self._send(handler, 200, {}, content)

    def _completion(self, body: dict[str, Any]) -> dict[str, Any]:
        (message,) = body["messages"]
        said = {"role": "assistant", "content": message["content"].split()[-1], **self.message}
        completion = {
            "id": "completion-1",
            "object": "chat.completion",
            "created": 0,
            "model": body["model"],
            "choices": [{"index": 0, "message": said, "finish_reason": self.finish_reason}],
        }
        return completion if self.usage is None else {**completion, "usage": self.usage}

    def _misbehave(self, handler: BaseHTTPRequestHandler, fault: Fault) -> None:
        time.sleep(fault.seconds)
        if fault.status:
            code = "insufficient_quota" if fault.content == b"quota" else None
            error = {"message": f"not now, {handler.headers['Authorization']}", "code": code}
            self._send(handler, fault.status, fault.headers, json.dumps({"error": error}).encode())
        elif fault.content:
            self._send(handler, 200, fault.headers, fault.content)
        else:
            handler.close_connection = True

    def _send(self, handler: BaseHTTPRequestHandler, status: int, headers: dict[str, str], content: bytes) -> None:
        handler.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(content)), **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(content)


@contextmanager
def running() -> Iterator[FakeEndpoint]:
    endpoint = FakeEndpoint()
    try:
        yield endpoint
    finally:
        endpoint.stop()
