"""Canaries, promotions, rollbacks, recalls, channels and routes over REST."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from registry.api.door import Caller, RestRoute, TheStore
from registry.api.rest.forms import Channel, Environment, Line, Moment
from registry.api.rest.schemas import NewCanary, NewPromotion, NewRecall, NewRollback
from registry.commands import recalls
from registry.commands import rollouts as commands
from registry.queries import rollouts as queries
from registry.views.rollouts import (
    AsOfView,
    ChannelView,
    GenerationView,
    RecallView,
    RouteView,
    RoutingView,
)

router = APIRouter(route_class=RestRoute, tags=["delivery"])


@router.post("/canaries", status_code=201)
def start(store: TheStore, caller: Caller, body: NewCanary) -> RouteView:
    """Start a canary: give an approved version a share of a channel's traffic."""
    return commands.start(
        store,
        caller,
        commands.Canary(body.ref, body.environment, body.channel, body.share_bp, body.reason),
    )


@router.post("/promotions", status_code=201)
def promote(store: TheStore, caller: Caller, body: NewPromotion) -> RouteView:
    """Give the active canary all traffic, or restore a version that served here before."""
    return commands.promote(
        store, caller, commands.Place(body.name, body.environment, body.channel), body.reason
    )


@router.post("/rollbacks", status_code=201)
def roll_back(store: TheStore, caller: Caller, body: NewRollback) -> RouteView:
    """Return to the last good stable version, or to the base."""
    return commands.roll_back(
        store, caller, commands.Place(body.name, body.environment, body.channel), body.reason
    )


@router.post("/recalls", status_code=201)
def recall(store: TheStore, caller: Caller, body: NewRecall) -> RecallView:
    """Declare a version or data set version, and all that derives from it, unfit everywhere."""
    return recalls.recall(store, caller, body.ref, body.reason)


@router.get("/channels")
def channels(
    store: TheStore, caller: Caller, environment: Environment | None = None
) -> list[ChannelView]:
    """What every channel serves now."""
    return queries.channels(store, caller, environment)


@router.get("/history")
def history(
    store: TheStore,
    caller: Caller,
    name: Line,
    environment: Environment,
    channel: Channel | None = None,
) -> list[GenerationView]:
    """Every route generation of a channel, oldest first."""
    return queries.history(store, caller, name, environment, channel)


@router.get("/as-of")
def as_of(store: TheStore, caller: Caller, at: Moment, environment: Environment) -> list[AsOfView]:
    """What served at a moment, and who approved it."""
    return queries.as_of(store, caller, at, environment)


@router.get("/routing", responses={304: {"description": "Unchanged since that ETag."}})
def routing(
    store: TheStore, caller: Caller, environment: Environment, request: Request, response: Response
) -> RoutingView:
    """All routes of an environment, for gateways. Poll it with If-None-Match."""
    routes = queries.routing(store, caller, environment)
    etag = f'"{routes.etag}"'
    if request.headers.get("if-none-match") == etag:
        # Passed on as it is.
        return Response(status_code=304, headers={"ETag": etag})  # type: ignore[return-value]
    response.headers["ETag"] = etag
    return routes
