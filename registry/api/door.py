"""What every route shares: the reading of its body, the caller, the store and the blobs."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import Depends, Request, Response, Security
from fastapi.routing import APIRoute
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.convertors import StringConvertor, register_url_convertor

from registry.blobs.store import Blobs
from registry.callers import actor_of
from registry.db.store import Store
from registry.documents import strict_json
from registry.errors import Unauthenticated
from registry.rules.actors import Actor

BEARER = HTTPBearer(auto_error=False, description="A token made by countersign token create.")
"""Only for the OpenAPI document; `bearer` reads the token, so that a refusal explains itself."""


MAX_BODY_DEPTH = 200
"""Levels of a JSON body; what is stored has its own, lower limits."""


class StrictRequest(Request):
    """A request whose JSON body has only one meaning."""

    async def json(self) -> Any:
        """The body. Raises Invalid `bad-json`, for example for a key that occurs twice."""
        return strict_json.loads(await self.body(), depth=MAX_BODY_DEPTH)


class RestRoute(APIRoute):
    """A route that reads its body as `StrictRequest` does.

    Two readers of `{"share": 1, "share": 100}` see different things, and a proxy or an auditor's
    tool may be the other one.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            return await handler(StrictRequest(request.scope, request.receive))

        return handle


class RefConvertor(StringConvertor):
    """A reference in a path, `team/name@v3` or `sha256:...`, without the segments after it."""

    regex = "[^/]+(?:/[^/]+)?"


register_url_convertor("ref", RefConvertor())


def store_of(request: Request) -> Store:
    store: Store = request.app.state.store
    return store


def blobs_of(request: Request) -> Blobs:
    blobs: Blobs = request.app.state.blobs
    return blobs


def bearer(request: Request) -> str:
    """The token of `Authorization: Bearer`, or Unauthenticated (`token-missing`)."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise Unauthenticated("token-missing", "The request carries no bearer token.")
    return token.strip()


def actor(
    request: Request, _: Annotated[HTTPAuthorizationCredentials | None, Security(BEARER)]
) -> Actor:
    """The caller behind `Authorization: Bearer`, or Unauthenticated."""
    return actor_of(store_of(request), bearer(request), "rest", request.state.request_id)


Caller = Annotated[Actor, Depends(actor)]
TheStore = Annotated[Store, Depends(store_of)]
TheBlobs = Annotated[Blobs, Depends(blobs_of)]
