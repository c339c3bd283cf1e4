"""Run one gateway until a signal stops it."""

from __future__ import annotations

import logging
import signal
import socket
from dataclasses import dataclass, field
from pathlib import Path

import uvicorn

from registry import log
from registry.client import Countersign
from registry.errors import Conflict, Invalid
from registry.gateway.app import Gateway, create_app

GRACE_SECONDS = 10
"""How long requests under way may take to finish after SIGTERM."""


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """What one gateway serves from.

    `url` and `token` are the registry's; where they are None, COUNTERSIGN_URL and COUNTERSIGN_TOKEN
    give them. `engine` is the engine's address.
    """

    url: str | None
    token: str | None = field(repr=False)
    engine: str
    environment: str
    cache_dir: Path


def run(config: GatewayConfig, host: str, port: int) -> None:
    """Serve one environment's channels from one engine; returns after SIGTERM or Ctrl-C.

    It starts without waiting for the registry or the engine: /readyz says when both are reachable.
    Raises Invalid, Unauthenticated, Conflict `cache-in-use`, `port-taken`.
    """
    if not config.engine.startswith(("http://", "https://")):
        raise Invalid("no-engine", f"'{config.engine}' is not the address of an engine.")
    listener = _listen(host, port)
    with listener, Countersign(config.url, config.token) as registry:
        log.configure()
        app = create_app(Gateway(registry, config.engine, config.environment, config.cache_dir))
        server = uvicorn.Server(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                ws="none",
                timeout_graceful_shutdown=GRACE_SECONDS,
                server_header=False,
            )
        )
        # uvicorn raises the signal again once it has stopped. Without a handler the process would
        # die of it instead of ending with 0.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        logging.getLogger("registry.gateway").info(
            "listening on http://%s:%d", *listener.getsockname()[:2]
        )
        server.run(sockets=[listener])


def _listen(host: str, port: int) -> socket.socket:
    """Bind before anything else: a taken port is one clear line, and nothing has been changed."""
    try:
        listener = socket.create_server(
            (host, port), backlog=256, family=socket.AF_INET6 if ":" in host else socket.AF_INET
        )
        # asyncio sets this for sockets that it opens itself, not for one passed to it. Without it,
        # an answer of two writes waits 40 ms for the caller's delayed acknowledgement. Accepted
        # connections inherit it.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except OSError as error:
        raise Conflict(
            "port-taken",
            f"The gateway cannot listen on {host}:{port}: {error.strerror}.",
            "Choose another --port.",
        ) from error
