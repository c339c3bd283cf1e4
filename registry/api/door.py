"""The dependencies of every route: the caller, the store and the blobs."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.convertors import StringConvertor, register_url_convertor

from registry.blobs.store import Blobs
from registry.callers import actor_of
from registry.db.store import Store
from registry.errors import Unauthenticated
from registry.rules.actors import Actor

BEARER = HTTPBearer(auto_error=False, description="A token made by countersign token create.")
"""Only for the OpenAPI document; `bearer` reads the token, so that a refusal explains itself."""


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
