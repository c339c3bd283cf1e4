"""A scripted HTTP server on loopback: cuts, lies and silence cannot be asked of the real
registry.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Seen:
    """One request as the server saw it."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Answer:
    """One scripted answer; `cut` closes the connection after that many bytes of the body."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None


Script = Callable[[Seen], Answer]


class Wire(ThreadingHTTPServer):
    """Plays one script a path and records what was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.seen: list[Seen] = []
        self.script: Script = lambda _: Answer(404)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def asked(self) -> list[str]:
        return [f"{seen.method} {seen.path}" for seen in self.seen]


class _Handler(BaseHTTPRequestHandler):
    server: Wire
    protocol_version = "HTTP/1.1"

    def handle_one(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        seen = Seen(self.command, self.path, dict(self.headers), body)
        self.server.seen.append(seen)
        answer = self.server.script(seen)
        raw = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
        self.send_response(answer.status)
        kind = (
            "application/problem+json"
            if answer.status >= 400 and answer.body is not None
            else "application/json"
        )
        for name, value in {
            "Content-Type": kind,
            "Content-Length": str(len(raw)),
            **answer.headers,
        }.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(raw[: answer.cut])
        if answer.cut is not None:
            self.close_connection = True

    # The names http.server calls.
    do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = handle_one  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the tests read `seen`."""


@contextmanager
def playing() -> Iterator[Wire]:
    """A server on a free port of loopback, for as long as one test."""
    server = Wire()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def problem(status: int, family: str, kind: str = "some-kind", **more: Any) -> Answer:
    """A refusal as the registry words it."""
    facts = {
        "title": "Some kind of problem",
        "family": family,
        "kind": kind,
        "detail": "Because of this.",
        "fix": "Do that.",
        "facts": {"n": 1},
    }
    return Answer(status, {"type": f"/problems/{kind}", "request_id": "r-1", **facts, **more})
