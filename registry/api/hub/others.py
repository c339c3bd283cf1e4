"""What only the Hub has, refused in words that its clients show, never as a page."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from starlette.routing import Match
from starlette.types import Scope

from registry.api.hub.door import Caller, HubRoute, no_route, read_only, segments
from registry.errors import NotFound

KINDS = frozenset({"datasets", "spaces", "kernels", "buckets"})
GIT = (
    "Countersign does not speak git: pull with hf download, and register new versions with "
    "countersign adapter add.\n"
)


class _Rest(HubRoute):
    """A route that leaves Countersign's own `/api/v1` and MLflow's `/api/2.0` alone."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if scope.get("path", "").startswith(("/api/v1", "/api/2.0")):
            return Match.NONE, {}
        return super().matches(scope)


router = APIRouter(route_class=_Rest)


def _models_only(name: str) -> NotFound:
    return NotFound(
        "repo-unknown",
        f"There is no {name}: the Hub's protocol serves only models here.",
        "Read data sets and everything else from the REST API under /api/v1.",
    )


@router.api_route("/api/{rest:path}", methods=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"])
def api(request: Request, caller: Caller) -> Response:
    """Any other request of the Hub's API."""
    if request.method not in ("GET", "HEAD"):
        raise read_only()
    kind, *name = segments(request)[1:]
    if kind in KINDS and len(name) > 1:
        raise _models_only(f"{kind.removesuffix('s')} '{'/'.join(name[:2])[:120]}'")
    raise no_route(request)


@router.api_route("/{kind}/{ns}/{name}/resolve/{rest:path}", methods=["GET", "HEAD"])
def resolve(caller: Caller, kind: str, ns: str, name: str) -> Response:
    """A file of a repository that is not a model."""
    raise _models_only(f"{kind[:40]} repository '{ns[:60]}/{name[:60]}'")


@router.api_route("/{ns}/{name}/info/{rest:path}", methods=["GET", "HEAD", "POST"])
@router.api_route("/{ns}/{name}/git-{verb}", methods=["GET", "POST"])
def git(request: Request) -> Response:
    """git and git-lfs: they show their users plain text and `message`.

    The answer is the same whether the repository exists or not.
    """
    refusal: dict[str, Any] = {"status_code": 403, "headers": {"X-Error-Message": GIT.strip()}}
    if "/info/lfs" in request.url.path:
        return JSONResponse(
            {"message": GIT.strip()}, media_type="application/vnd.git-lfs+json", **refusal
        )
    return PlainTextResponse(GIT, **refusal)
