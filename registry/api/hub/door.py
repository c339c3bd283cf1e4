"""How the dialect reads names and refuses: raw path segments in, status and X-Error-Code out."""

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
from registry.rules.refs import RESERVED_TEAMS

PULLS = Counter(
    "countersign_pulls", "Requests of the Hub dialect by outcome.", ["outcome"], registry=None
)
HUB_STATUSES = STATUSES | {"invalid": 400}
"""The Hub's own statuses: its clients show the text of a 400."""
CODES = {
    "repo-unknown": "RepoNotFound",
    "revision-unknown": "RevisionNotFound",
    "entry-unknown": "EntryNotFound",
}
MAX_PATH_BYTES = 4096
T = TypeVar("T")


def actor(request: Request) -> Actor:
    """The caller behind a bearer token, which may have the prefix `hf_`.

    Clients in JavaScript refuse to send a token without that prefix.
    """
    return actor_of(
        store_of(request), bearer(request).removeprefix("hf_"), "rest", request.state.request_id
    )


Caller = Annotated[Actor, Depends(actor)]


def header(text: str) -> str:
    """The text as a header can carry it: printable ASCII, at most 500 characters."""
    return "".join(char if " " <= char <= "~" else "?" for char in text)[:500]


def refused(error: RegistryError) -> Response:
    """The answer of an error in the Hub's form.

    RevisionNotFound is the only code that keeps a client from falling back to its cache.
    """
    status = HUB_STATUSES[error.family]
    headers = {"X-Error-Message": header(error.detail)}
    if code := CODES.get(error.kind):
        headers["X-Error-Code"] = code
    elif status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="countersign"'
        if error.kind == "token-missing":
            headers["X-Error-Code"] = "RepoNotFound"
        else:
            # Clients recognise a bad token by exactly this text. Without it they report that there
            # is no such repository.
            headers["X-Error-Message"] = "Invalid credentials in Authorization header"
    elif status == 503:
        headers["Retry-After"] = "2"
    if commit := error.facts.get("commit"):
        headers["X-Repo-Commit"] = commit
    PULLS.labels(error.kind).inc()
    body = {"error": error.detail, "fix": error.fix, "kind": error.kind}
    return JSONResponse(body, status, headers)


class HubRoute(APIRoute):
    """A route that answers every RegistryError in the dialect and leaves the console its paths."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        first = scope.get("path", "").split("/", 2)[1:2]
        of_team = self.path.startswith("/{") and not self.path.startswith("/{kind}")
        if of_team and first and first[0] in RESERVED_TEAMS:
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
            # The answer depends on the caller and changes over time, so no shared cache may keep
            # it.
            answer.headers.setdefault("Cache-Control", "private, no-cache")
            answer.headers["Vary"] = "Authorization"
            return answer

        return handler


def segments(request: Request) -> list[str]:
    """The path's segments, each unquoted by itself, so that a revision's %2F is no separator."""
    raw: bytes = request.scope.get("raw_path") or request.url.path.encode()
    parts = raw.partition(b"?")[0].split(b"/")[1:]
    try:
        decoded = [unquote_to_bytes(part).decode() for part in parts]
    except UnicodeDecodeError:
        raise unknown("such path") from None
    if len(raw) > MAX_PATH_BYTES or any("\0" in part for part in decoded):
        raise unknown("such path")
    return decoded


def read_only() -> Forbidden:
    """The refusal of a write.

    The route alone decides it, so it does not reveal whether the repository exists.
    """
    return Forbidden("read-only", "Nothing can be written through the Hub's protocol.")


def no_route(request: Request) -> NotFound:
    """A request that only the Hub itself answers."""
    return NotFound(
        "route-unknown",
        f"There is nothing at {request.url.path[:200]}.",
        "Countersign answers only the requests that read models; docs/hub.md lists them.",
    )


def unknown(what: str, commit: str | None = None) -> NotFound:
    """A file or route that does not exist; with the commit, clients remember that it does not."""
    facts = {"commit": commit} if commit else {}
    return NotFound("entry-unknown", f"There is no {what[:200]}.", **facts)


def first(rest: list[str], look: Callable[[str, list[str]], T]) -> T:
    """What `look` finds for a revision and the path after it.

    The slashes of a full ref may arrive unquoted: `refs/heads/main` is then three segments, and
    `refs/heads/production/beta` four. Nothing else is guessed: in `production/beta`, `beta` is a
    folder of the revision `production`. A client that means the channel quotes the slash.
    """
    if rest[0] != "refs" or len(rest) < 3:
        return look(rest[0], rest[1:])
    try:
        return look("/".join(rest[:3]), rest[3:])
    except NotFound:
        if len(rest) == 3:
            raise
        return look("/".join(rest[:4]), rest[4:])
