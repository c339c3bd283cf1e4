"""Run one gateway until it is told to stop."""

from __future__ import annotations

import logging
import signal
import socket
from pathlib import Path

import uvicorn

from registry import log
from registry.client import Countersign
from registry.errors import Conflict, Invalid
from registry.gateway.app import Gateway, create_app

GRACE = 10
"""Seconds that requests in hand may take to finish after SIGTERM."""


def run(
    url: str | None,
    token: str | None,
    engine: str,
    environment: str,
    host: str,
    port: int,
    cache_dir: Path,
) -> None:
    """Serve one environment's channels from one engine; returns after SIGTERM or Ctrl-C.

    `url` and `token` None are read from COUNTERSIGN_URL and COUNTERSIGN_TOKEN. Nothing waits for
    the registry or the engine: /readyz says when both are there. Raises Invalid, Unauthenticated,
    Conflict `cache-in-use`, `port-taken`.
    """
    if not engine.startswith(("http://", "https://")):
        raise Invalid(
            "no-engine",
            f"'{engine}' is not the address of an engine.",
        )
    door = _listen(host, port)
    with door, Countersign(url, token) as registry:
        log.configure()
        app = create_app(Gateway(registry, engine, environment, cache_dir))
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            ws="none",
            timeout_graceful_shutdown=GRACE,
            server_header=False,
        )
        # uvicorn raises the signal again once it has stopped: to end well, somebody must be there
        # to hear it.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        logging.getLogger("registry.gateway").info(
            "listening on http://%s:%d", *door.getsockname()[:2]
        )
        uvicorn.Server(config).run(sockets=[door])


def _listen(host: str, port: int) -> socket.socket:
    """Bind before anything else, so that a taken port is one clear line and nothing has been
    touched.
    """
    try:
        door = socket.create_server(
            (host, port), backlog=256, family=socket.AF_INET6 if ":" in host else socket.AF_INET
        )
        # asyncio does this for sockets it opens itself, not for one handed over. Without it, an
        # answer of two writes waits 40 ms for the caller's delayed acknowledgement. What is
        # accepted inherits it.
        door.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return door
    except OSError as error:
        raise Conflict(
            "port-taken",
            f"The gateway cannot listen on {host}:{port}: {error.strerror}.",
            "Choose another --port.",
        ) from error
