"""How the dialect hears names and says no: raw path segments in, status and X-Error-Code out."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import unquote_to_bytes

from fastapi import Request, Response
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from prometheus_client import Counter
from starlette.routing import Match
from starlette.types import Scope

from registry.api.rest.problems import STATUSES
from registry.errors import NotFound, RegistryError

PULLS = Counter("countersign_pulls", "Requests of the Hub dialect by outcome.", ["outcome"], registry=None)
CODES = {"repo-unknown": "RepoNotFound", "revision-unknown": "RevisionNotFound", "entry-unknown": "EntryNotFound"}
# A repository's first segment may not be a page of the console: /adapters/acme/resolve/v/3 is an adapter's page.
RESERVED = frozenset({"adapters", "bases", "checkpoints", "deployments", "reviews", "audit", "settings", "static",
                      "login", "logout", "find", "problems", "api"})  # fmt: skip
LONGEST = 1024


def header(words: str) -> str:
    """Text as a header can bear it."""
    return "".join(char if " " <= char <= "~" else "?" for char in words)[:500]


def refused(error: RegistryError) -> Response:
    """The answer of an error; a RevisionNotFound is the only one that stops a client with a warm cache."""
    status = STATUSES[error.family]
    headers = {"X-Error-Message": header(error.detail)}
    if code := CODES.get(error.kind):
        headers["X-Error-Code"] = code
    elif status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="countersign"'
        if error.kind == "token-missing":
            headers["X-Error-Code"] = "RepoNotFound"
        else:  # clients know these very words for a bad token; without them they say that there is no such repository
            headers["X-Error-Message"] = "Invalid credentials in Authorization header"
    elif status == 503:
        headers["Retry-After"] = "2"
    if commit := error.facts.get("commit"):
        headers["X-Repo-Commit"] = commit
    PULLS.labels(error.kind).inc()
    body = {"error": error.detail, "mend": error.mend, "kind": error.kind}
    return JSONResponse(body, status, headers)


class HubRoute(APIRoute):
    """A route that answers every named error in the dialect, and leaves the console its own paths."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        first = scope.get("path", "").split("/", 2)[1:2]
        if self.path.startswith("/{") and first and first[0] in RESERVED:
            return Match.NONE, {}
        return super().matches(scope)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        plain = super().get_route_handler()

        async def handler(request: Request) -> Response:
            try:
                answer = await plain(request)
            except RegistryError as error:
                return refused(error)
            PULLS.labels("done").inc()
            return answer

        return handler


def segments(request: Request) -> list[str]:
    """The path's segments, each unquoted by itself: a revision's %2F is no separator."""
    raw: bytes = request.scope.get("raw_path") or request.url.path.encode()
    parts = raw.partition(b"?")[0].split(b"/")[1:]
    try:
        found = [unquote_to_bytes(part).decode() for part in parts]
    except UnicodeDecodeError:
        raise unknown("such path") from None
    if len(raw) > LONGEST * 4 or any("\0" in part for part in found):
        raise unknown("such path")
    return found


def unknown(what: str, commit: str | None = None) -> NotFound:
    """A file or route that is not there; with the commit, clients remember the absence."""
    facts = {"commit": commit} if commit else {}
    return NotFound("entry-unknown", f"There is no {what[:200]}.", "See /tree for the files there are.", **facts)
