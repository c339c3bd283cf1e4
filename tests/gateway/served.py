"""Real HTTP servers on loopback: an ASGI application under uvicorn in a thread of its own."""

from __future__ import annotations

import socket
import threading
import time
from typing import Any

import uvicorn


class Served:
    """One application on a free (or given) port, until it is stopped."""

    def __init__(self, app: Any, port: int = 0) -> None:
        door = socket.create_server(("127.0.0.1", port))
        door.setsockopt(
            socket.IPPROTO_TCP, socket.TCP_NODELAY, 1
        )  # as registry.gateway.main does, and why
        self.port: int = door.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        config = uvicorn.Config(
            app, log_config=None, access_log=False, ws="none", timeout_graceful_shutdown=3
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [door]})
        self._thread.start()
        until(lambda: self._server.started, "the server has started")

    def wind_down(self) -> None:
        """Begin to stop, so that several may do so at once."""
        self._server.should_exit = True

    def stop(self) -> None:
        self.wind_down()
        self._thread.join(60)
        assert not self._thread.is_alive()


def until(true: Any, what: str = "it has come to that", seconds: float = 120.0) -> None:
    """Wait for something to become true, and say what did not: `seconds` end a hang, they measure
    no machine.
    """
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            raise AssertionError(f"after {seconds:.0f} s still not: {what}")
        time.sleep(0.02)
