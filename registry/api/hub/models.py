"""What clients ask about repositories: info, tree, paths, refs, commits, lists and who they are."""

from __future__ import annotations

import json
from contextlib import suppress
from functools import partial
from typing import Any
from urllib.parse import parse_qs, urlencode

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from registry.api.door import TheBlobs, TheStore
from registry.api.hub import shapes
from registry.api.hub.door import (
    RESERVED,
    Caller,
    HubRoute,
    first,
    no_route,
    read_only,
    segments,
    unknown,
)
from registry.blobs.store import Blobs
from registry.db.store import Store
from registry.errors import Invalid
from registry.queries import pulls, repo_lists
from registry.queries.pages import PageRequest
from registry.rules.actors import Actor
from registry.views.pulls import Pulled

router = APIRouter(prefix="/api", route_class=HubRoute)
MOST_PATHS = 1000
PAGE = 100
"""Repositories of one page, whatever is asked: each is judged for the caller, and clients follow
the link to the next.
"""
UNJUDGED = frozenset(
    {"apps", "emissions_thresholds", "inference", "inference_provider", "num_parameters"}
)
"""Filters of the Hub's that nothing here answers: to leave them aside would list what was not asked
for.
"""


@router.api_route("/whoami-v2", methods=["GET", "HEAD"])
def whoami(caller: Caller) -> dict[str, Any]:
    """Who the token is."""
    teams = sorted({grant.team for grant in caller.grants if grant.team})
    token = {"displayName": "countersign", "role": "read"}
    return {
        "type": "user",
        "name": caller.name,
        "fullname": caller.name,
        "isPro": False,
        "orgs": [{"name": team} for team in teams],
        "auth": {"type": "access_token", "accessToken": token},
    }


@router.api_route("/agent-harnesses", methods=["GET", "HEAD"])
def harnesses() -> Response:
    """Clients ask once a day, before they know their token; there is nothing to say."""
    raise unknown("list of agent harnesses")


@router.api_route("/models", methods=["GET", "HEAD"])
def models(
    request: Request,
    store: TheStore,
    caller: Caller,
    author: str | None = None,
    search: str | None = None,
    sort: str = "",
    limit: str = "",
    cursor: str = "",
) -> Response:
    """Repositories whose main the caller may pull; `filter` takes tags: base, adapter, checkpoint,
    peft, license:...
    """
    asked = request.query_params
    if foreign := UNJUDGED & {key for key, value in asked.items() if value}:
        raise Invalid(
            "bad-filter",
            f"There is no filter '{min(foreign)}' here.",
            "Leave it out; docs/hub.md names those there are.",
        )
    tags = {one for one in asked.getlist("filter") if one}
    full = _true(asked.get("full", "")) or "siblings" in shapes.properties(asked)
    filters = repo_lists.RepoFilter(author, search, frozenset(tags & shapes.KINDS), sort)
    size = min(_size(limit, PAGE), PAGE)
    page, after = repo_lists.repos(
        store, caller, filters, PageRequest(cursor, size), with_files=full
    )
    rows = [shapes.info(one) for one in page if one.repo.partition("/")[0] not in RESERVED]
    if _true(asked.get("gated", "")) or asked.get("pipeline_tag", shapes.TASK) != shapes.TASK:
        rows = []
    card = full or _true(asked.get("cardData", "")) or "cardData" in shapes.properties(asked)
    left = ({} if full else {"siblings": None}) | ({} if card else {"cardData": None})
    rows = [one | left for one in rows if tags <= {*one["tags"]}]
    return _paged(request, [shapes.only(one, asked) for one in rows], after)


@router.api_route("/models/{rest:path}", methods=["GET", "HEAD"])
def model(request: Request, store: TheStore, blobs: TheBlobs, caller: Caller) -> Response:
    """Everything about one repository; the verb stands after its name."""
    parts = segments(request)[2:]
    if len(parts) < 2 or parts[0] in RESERVED:
        raise pulls.no_repo("/".join(parts))
    team, name, rest = parts[0], parts[1], parts[2:]
    match rest:
        case []:
            return _info(request, blobs, pulls.revision(store, caller, team, name, "main"))
        case ["revision", *revision] if revision:
            return _info(
                request, blobs, pulls.revision(store, caller, team, name, "/".join(revision))
            )
        case ["tree", *inner] if inner:
            return first(inner, partial(_tree, request, store, blobs, caller, team, name))
        case ["refs"]:
            answer = shapes.refs(pulls.refs_of(store, caller, team, name))
            if _true(request.query_params.get("include_prs", "")):
                answer["pullRequests"] = []
            return JSONResponse(answer)
        case ["commits", *revision] if revision:
            history = pulls.commits(store, caller, team, name, "/".join(revision))
            formatted = "formatted" in shapes.properties(request.query_params)
            page = _sliced(request, [shapes.commit(one, formatted) for one in history], 100)
            page.headers["X-Total-Count"] = str(len(history))
            return page
        case ["auth-check"]:
            pulls.repo(store, caller, team, name)
            return JSONResponse({})
        case ["auth-check", "write"]:
            pulls.repo(store, caller, team, name)
            raise read_only()
    pulls.repo(store, caller, team, name)
    raise no_route(request)


@router.post("/models/{rest:path}")
async def paths(request: Request, store: TheStore, blobs: TheBlobs, caller: Caller) -> Response:
    """`paths-info/{rev}`: those of the named paths that are there."""
    parts = segments(request)[2:]
    if len(parts) < 4 or parts[2] != "paths-info":
        raise read_only()
    if parts[0] in RESERVED:
        raise pulls.no_repo("/".join(parts[:2]))
    kind = request.headers.get("content-type", "")
    given: Any = None
    with suppress(ValueError, RecursionError):  # what is none, is none
        body = await request.body()
        if "json" in kind:
            given = json.loads(body)
        elif "multipart" not in kind:
            given = parse_qs(body.decode(), keep_blank_values=True, max_num_fields=MOST_PATHS + 10)
    wanted = given.get("paths", []) if isinstance(given, dict) else None
    wanted = [wanted] if isinstance(wanted, str) else wanted
    if (
        not isinstance(wanted, list)
        or len(wanted) > MOST_PATHS
        or not all(isinstance(one, str) for one in wanted)
    ):
        raise Invalid(
            "bad-paths",
            "The field paths cannot be read.",
            f"Send up to {MOST_PATHS} paths as a form.",
        )
    expand = given.get("expand", "")
    wide = _true(str(expand[0] if isinstance(expand, list) and expand else expand))
    return await run_in_threadpool(_paths, store, blobs, caller, parts, wanted, wide)


def _paths(
    store: Store, blobs: Blobs, caller: Actor, parts: list[str], wanted: list[str], wide: bool
) -> Response:
    found = pulls.revision(store, caller, parts[0], parts[1], "/".join(parts[3:]))
    every = {entry["path"]: entry for entry in shapes.tree(blobs, found, "", True) or []}
    named = [
        every[one] for one in dict.fromkeys(path.strip("/") for path in wanted) if one in every
    ]
    return JSONResponse(shapes.told(named, found) if wide else named)


def _tree(
    request: Request,
    store: Store,
    blobs: Blobs,
    caller: Actor,
    team: str,
    name: str,
    revision: str,
    path: list[str],
) -> Response:
    found, asked = pulls.revision(store, caller, team, name, revision), request.query_params
    under = "/".join(path).strip("/")
    entries = shapes.tree(blobs, found, under, _true(asked.get("recursive", "")))
    if entries is None:
        raise unknown(f"folder '{under}' in {found.ref}", found.commit)
    return _sliced(
        request, shapes.told(entries, found) if _true(asked.get("expand", "")) else entries, 1000
    )


def _info(request: Request, blobs: Blobs, found: Pulled) -> Response:
    asked = request.query_params
    return JSONResponse(
        shapes.only(shapes.info(found, blobs if _true(asked.get("blobs", "")) else None), asked)
    )


def _true(text: str) -> bool:
    return text.lower() in ("true", "1")


def _size(limit: str, usual: int) -> int:
    if limit and not (limit.isascii() and limit.isdigit()):
        raise Invalid(
            "bad-limit",
            f"A page cannot have '{limit[:40]}' entries.",
            "Write limit as a number, 1 to 1000.",
        )
    return min(max(int(limit[:9]), 1), 1000) if limit else usual


def _sliced(request: Request, rows: list[dict[str, Any]], usual: int) -> Response:
    size, cursor = (
        _size(request.query_params.get("limit", ""), usual),
        request.query_params.get("cursor", ""),
    )
    start = int(cursor) if cursor.isascii() and cursor.isdigit() and len(cursor) < 9 else 0
    return _paged(
        request, rows[start : start + size], str(start + size) if len(rows) > start + size else None
    )


def _paged(request: Request, rows: list[dict[str, Any]], after: str | None) -> Response:
    if after is None:
        return JSONResponse(rows)
    kept = [(key, value) for key, value in request.query_params.multi_items() if key != "cursor"]
    public = request.app.state.settings.public_url or str(request.base_url)
    path = (
        (request.scope.get("raw_path") or request.url.path.encode())
        .partition(b"?")[0]
        .decode("ascii")
    )
    link = f"<{public.rstrip('/')}{path}?{urlencode([*kept, ('cursor', after)])}>"
    return JSONResponse(rows, headers={"Link": f'{link}; rel="next"'})
