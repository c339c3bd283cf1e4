"""How the dialect hears names and says no: raw path segments in, status and X-Error-Code out."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Annotated, Any, TypeVar
from urllib.parse import unquote_to_bytes

from fastapi import Depends, Request, Response
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from prometheus_client import Counter
from starlette.routing import Match
from starlette.types import Scope

from registry.api.door import bearer, store_of
from registry.api.problems import STATUSES
from registry.callers import actor_of
from registry.errors import Forbidden, NotFound, RegistryError
from registry.rules.actors import Actor

PULLS = Counter(
    "countersign_pulls", "Requests of the Hub dialect by outcome.", ["outcome"], registry=None
)
HUB_STATUSES = STATUSES | {"invalid": 400}
"""As the Hub answers: its clients show the words of a 400."""
CODES = {
    "repo-unknown": "RepoNotFound",
    "revision-unknown": "RevisionNotFound",
    "entry-unknown": "EntryNotFound",
}
# A repository's first segment may not be a page of the console: /adapters/acme/resolve/v/3 is an
# adapter's page.
RESERVED = frozenset(
    {
        "adapters",
        "bases",
        "checkpoints",
        "deployments",
        "reviews",
        "audit",
        "settings",
        "static",
        "login",
        "logout",
        "find",
        "problems",
        "api",
    }
)
LONGEST = 1024
T = TypeVar("T")


def actor(request: Request) -> Actor:
    """The caller behind his token, bare or after `hf_`: clients in JavaScript send no token that
    begins otherwise.
    """
    return actor_of(
        store_of(request), bearer(request).removeprefix("hf_"), "rest", request.state.request_id
    )


Caller = Annotated[Actor, Depends(actor)]


def header(words: str) -> str:
    """Text as a header can bear it."""
    return "".join(char if " " <= char <= "~" else "?" for char in words)[:500]


def refused(error: RegistryError) -> Response:
    """The answer of an error; a RevisionNotFound is the only one that stops a client with a warm
    cache.
    """
    status = HUB_STATUSES[error.family]
    headers = {"X-Error-Message": header(error.detail)}
    if code := CODES.get(error.kind):
        headers["X-Error-Code"] = code
    elif status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="countersign"'
        if error.kind == "token-missing":
            headers["X-Error-Code"] = "RepoNotFound"
        # clients know these very words for a bad token; without them they say that there is no such
        # repository
        else:
            headers["X-Error-Message"] = "Invalid credentials in Authorization header"
    elif status == 503:
        headers["Retry-After"] = "2"
    if commit := error.facts.get("commit"):
        headers["X-Repo-Commit"] = commit
    PULLS.labels(error.kind).inc()
    body = {"error": error.detail, "fix": error.fix, "kind": error.kind}
    return JSONResponse(body, status, headers)


class HubRoute(APIRoute):
    """A route that answers every named error in the dialect, and leaves the console its own
    paths.
    """

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
                PULLS.labels("done").inc()
            except RegistryError as error:
                answer = refused(error)
            # What is said depends on who asks and on the hour: no cache between may keep it for
            # another.
            answer.headers.setdefault("Cache-Control", "private, no-cache")
            answer.headers["Vary"] = "Authorization"
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


def read_only() -> Forbidden:
    """Whoever writes learns where; whether what he writes to is there, he does not."""
    return Forbidden(
        "read-only",
        "Nothing can be written through the Hub's protocol.",
    )


def no_route(request: Request) -> NotFound:
    """A question that only the Hub answers."""
    return NotFound(
        "route-unknown",
        f"There is nothing at {request.url.path[:200]}.",
        "Countersign answers the Hub's reading of models; docs/hub.md lists it.",
    )


def unknown(what: str, commit: str | None = None) -> NotFound:
    """A file or route that is not there; with the commit, clients remember the absence."""
    facts = {"commit": commit} if commit else {}
    return NotFound("entry-unknown", f"There is no {what[:200]}.", **facts)


def first(rest: list[str], look: Callable[[str, list[str]], T]) -> T:
    """What `look` finds for a revision and the path after it; a full ref may come with its slashes
    unquoted.

    `refs/heads/main` then is three segments, `refs/heads/production/beta` four. No other revision
    is guessed at: that `production/beta` is a folder of `production` and no channel is what a
    client means that quotes.
    """
    if rest[0] != "refs" or len(rest) < 3:
        return look(rest[0], rest[1:])
    try:
        return look("/".join(rest[:3]), rest[3:])
    except NotFound:
        if len(rest) == 3:
            raise
        return look("/".join(rest[:4]), rest[4:])
