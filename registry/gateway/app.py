"""The gateway's HTTP endpoints, and the two loops behind them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from registry.client import Countersign
from registry.errors import Invalid, NotFound, RegistryError, Unavailable
from registry.gateway.arms import Arms
from registry.gateway.cache import Cache
from registry.gateway.completions import Completions
from registry.gateway.engine import Engine
from registry.gateway.meters import Meters
from registry.gateway.problems import description, problem
from registry.gateway.records import Records
from registry.gateway.routing import Routes, name, poll, versions
from registry.rules.refs import check_environment

log = logging.getLogger("registry.gateway")

POLL_SECONDS = (1.0, 2.0)
"""Shortest and longest time between two questions to the registry."""
RECONCILE_SECONDS = 2.0
"""Time between two looks at the engine when no route has changed."""


class Gateway:
    """Everything one gateway is: the registry it asks, the engine it drives, and what it keeps."""

    def __init__(
        self, registry: Countersign, engine_url: str, environment: str, cache_dir: Path
    ) -> None:
        """Lock the cache directory and restore from it. Raises Conflict `cache-in-use`."""
        self.registry = registry
        self.environment = check_environment(environment)
        self.cache = Cache(cache_dir)
        self.engine = Engine(engine_url)
        self.routes = Routes(registry.url, environment, self.cache.root / "routing.json")
        self.records = Records(self.cache.root / "records", self.cache.unit_key())
        self.arms = Arms(registry, self.engine, self.cache, self.routes)
        self.meters = Meters(self.routes.age, self.records)
        self.completions = Completions(
            self.routes, self.arms, self.engine, self.records, self.meters
        )
        self.records.restore()
        self.routes.restore()

    async def close(self) -> None:
        """Close the connections to the engine and release the cache."""
        await self.arms.stop()
        await self.engine.close()
        self.records.close()
        self.cache.close()

    def state(self) -> dict[str, Any]:
        """What is served, what is loading, what is wrong, and how old the routes are."""
        age = self.routes.age()
        trouble = {"registry": self.routes.trouble, "engine": self.arms.trouble}
        return {
            "environment": self.environment,
            "routing_age_s": None if age is None else round(age, 1),
            "trouble": {part: str(error) for part, error in trouble.items() if error is not None},
            "failures": {ref: str(failure.error) for ref, failure in self.arms.failures.items()},
            "channels": [
                {
                    "channel": name(route.newest),
                    "generation": route.current and route.current.generation,
                    "wanted": route.newest.generation,
                    "killed": route.newest.killed,
                    "held": [
                        version.ref
                        for version in versions(route.newest)
                        if self.arms.is_loaded(version, route.newest.base)
                    ],
                }
                for route in self.routes.routes.values()
            ],
        }

    def check_ready(self) -> None:
        """Raise Unavailable `not-ready` while the gateway cannot serve every channel.

        It is ready with routes, with an engine, and with a first route applied on each channel.
        """
        waiting = [
            name(route.newest) for route in self.routes.routes.values() if route.current is None
        ]
        if self.routes.confirmed is None:
            why = "the registry has not been reached yet and no routes are on disk"
        elif self.arms.trouble is not None:
            why = self.arms.trouble.detail.rstrip(".")
        elif waiting:
            why = f"still loading {', '.join(waiting)}"
        else:
            return
        raise Unavailable(
            "not-ready", f"The gateway is not ready: {why}.", retry_after=1, **self.state()
        )


def create_app(
    gateway: Gateway,
    *,
    poll_every: tuple[float, float] = POLL_SECONDS,
    keep_every: float = RECONCILE_SECONDS,
) -> Starlette:
    """Make the ASGI application. It closes the gateway when it stops; intervals are in seconds."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        loops = [
            asyncio.create_task(poll(gateway.registry, gateway.routes, poll_every)),
            asyncio.create_task(gateway.arms.keep(keep_every)),
        ]
        try:
            yield
        finally:
            for loop in loops:
                loop.cancel()
            await asyncio.gather(*loops, return_exceptions=True)
            await gateway.close()

    async def models(_: Request) -> Response:
        return JSONResponse(
            {
                "object": "list",
                "data": [_model(gateway, channel) for channel in gateway.routes.routes],
            }
        )

    async def summary(_: Request) -> Response:
        return JSONResponse(gateway.records.summary())

    async def metrics(_: Request) -> Response:
        return Response(gateway.meters.page(), media_type=CONTENT_TYPE_LATEST)

    async def described(request: Request) -> Response:
        return description(request.path_params["kind"])

    async def healthz(_: Request) -> Response:
        return JSONResponse({"ok": True})

    async def readyz(_: Request) -> Response:
        gateway.check_ready()
        return JSONResponse({"ok": True, **gateway.state()})

    return Starlette(
        routes=[
            Route("/v1/chat/completions", gateway.completions.answer, methods=["POST"]),
            Route("/v1/completions", gateway.completions.answer, methods=["POST"]),
            Route("/v1/models", models),
            Route("/records/summary", summary),
            Route("/metrics", metrics),
            Route("/problems/{kind}", described),
            Route("/healthz", healthz),
            Route("/readyz", readyz),
        ],
        lifespan=lifespan,
        exception_handlers={RegistryError: _refuse, HTTPException: _no_route},
    )


def _model(gateway: Gateway, channel: str) -> dict[str, Any]:
    route = gateway.routes.routes[channel]
    entry = route.current or route.newest
    return {
        "id": channel,
        "object": "model",
        "created": 0,
        "owned_by": entry.model.split("/")[0],
        "countersign": {
            "generation": route.current and entry.generation,
            "wanted": route.newest.generation,
            "stable": entry.stable and entry.stable.ref,
            "candidate": entry.candidate and entry.candidate.ref,
            "weight_bp": entry.weight_bp,
            "killed": entry.killed,
        },
    }


def _refuse(_: Request, error: Exception) -> Response:
    assert isinstance(error, RegistryError)
    return problem(error, uuid4().hex)


def _no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        refusal: RegistryError = Invalid(
            "bad-method", f"{request.url.path} does not accept {request.method}.", "Use POST."
        )
    else:
        refusal = NotFound(
            "no-such-page", f"There is nothing at {request.url.path[:120]}.", "See GET /v1/models."
        )
    return problem(refusal, uuid4().hex)
