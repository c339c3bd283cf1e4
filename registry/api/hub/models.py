"""Requests about repositories: info, tree, paths, refs, commits, lists, and who is calling."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import parse_qs, urlencode

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from registry.api.door import TheBlobs, TheStore
from registry.api.hub import shapes
from registry.api.hub.door import (
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
MAX_PATHS = 1000
"""Most paths that one request may name."""
PAGE = 100
"""Most repositories on one page, whatever `limit` says: each is judged for the caller, and clients
follow the link to the next page.
"""
UNSUPPORTED = frozenset(
    {"apps", "emissions_thresholds", "inference", "inference_provider", "num_parameters"}
)
"""Filters of the Hub that mean nothing here. They are refused: ignoring them would list
repositories that the client did not ask for.
"""


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository's name, and the caller who reads it."""

    store: Store
    caller: Actor
    team: str
    name: str

    def at(self, revision: str) -> Pulled:
        """The version that a revision names; NotFound (`repo-unknown`, `revision-unknown`)."""
        return pulls.revision(self.store, self.caller, self.team, self.name, revision)

    def check(self) -> None:
        """NotFound (`repo-unknown`) unless the caller may see the repository."""
        pulls.repo(self.store, self.caller, self.team, self.name)


@router.api_route("/whoami-v2", methods=["GET", "HEAD"])
def whoami(caller: Caller) -> dict[str, Any]:
    """The account that the token belongs to."""
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
    """Clients ask this once a day, even without a token; no such list exists here."""
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
    """Repositories whose `main` the caller may pull.

    `filter` takes tags: base, adapter, checkpoint, peft, license:...
    """
    query = request.query_params
    if unsupported := UNSUPPORTED & {key for key, value in query.items() if value}:
        raise Invalid(
            "bad-filter",
            f"There is no filter '{min(unsupported)}' here.",
            "Leave it out; docs/hub.md lists the filters that exist.",
        )
    tags = {tag for tag in query.getlist("filter") if tag}
    full = _true(query.get("full", "")) or "siblings" in shapes.properties(query)
    filters = repo_lists.RepoFilter(author, search, frozenset(tags & shapes.KINDS), sort)
    size = min(_size(limit, PAGE), PAGE)
    page, after = repo_lists.repos(
        store, caller, filters, PageRequest(cursor, size), with_files=full
    )
    rows = [shapes.info(each) for each in page]
    if _true(query.get("gated", "")) or query.get("pipeline_tag", shapes.TASK) != shapes.TASK:
        rows = []
    card = full or _true(query.get("cardData", "")) or "cardData" in shapes.properties(query)
    omitted = ({} if full else {"siblings": None}) | ({} if card else {"cardData": None})
    rows = [row | omitted for row in rows if tags <= {*row["tags"]}]
    return _paged(request, [shapes.only(row, query) for row in rows], after)


@router.api_route("/models/{rest:path}", methods=["GET", "HEAD"])
def model(request: Request, store: TheStore, blobs: TheBlobs, caller: Caller) -> Response:
    """Every request about one repository; the verb follows its name in the path."""
    parts = segments(request)[2:]
    if len(parts) < 2:
        raise pulls.no_repo("/".join(parts))
    team, name, *verb = parts
    repository = Repository(store, caller, team, name)
    match verb:
        case []:
            return _info(request, blobs, repository.at("main"))
        case ["revision", *revision] if revision:
            return _info(request, blobs, repository.at("/".join(revision)))
        case ["tree", *inner] if inner:
            return first(inner, partial(_tree, request, blobs, repository))
        case ["refs"]:
            answer = shapes.refs(pulls.refs_of(store, caller, team, name))
            if _true(request.query_params.get("include_prs", "")):
                answer["pullRequests"] = []
            return JSONResponse(answer)
        case ["commits", *revision] if revision:
            history = pulls.commits(store, caller, team, name, "/".join(revision))
            formatted = "formatted" in shapes.properties(request.query_params)
            page = _sliced(request, [shapes.commit(each, formatted) for each in history], 100)
            page.headers["X-Total-Count"] = str(len(history))
            return page
        case ["auth-check"]:
            repository.check()
            return JSONResponse({})
        case ["auth-check", "write"]:
            repository.check()
            raise read_only()
    repository.check()
    raise no_route(request)


@router.post("/models/{rest:path}")
async def paths(request: Request, store: TheStore, blobs: TheBlobs, caller: Caller) -> Response:
    """`paths-info/{rev}`: which of the named paths exist, and what they are."""
    parts = segments(request)[2:]
    if len(parts) < 4 or parts[2] != "paths-info":
        raise read_only()
    kind = request.headers.get("content-type", "")
    fields: Any = None
    with suppress(ValueError, RecursionError):  # a body that cannot be parsed has no paths
        body = await request.body()
        if "json" in kind:
            fields = json.loads(body)
        elif "multipart" not in kind:
            fields = parse_qs(body.decode(), keep_blank_values=True, max_num_fields=MAX_PATHS + 10)
    named = fields.get("paths", []) if isinstance(fields, dict) else None
    named = [named] if isinstance(named, str) else named
    if (
        not isinstance(named, list)
        or len(named) > MAX_PATHS
        or not all(isinstance(path, str) for path in named)
    ):
        raise Invalid(
            "bad-paths",
            "The field paths cannot be read.",
            f"Send up to {MAX_PATHS} paths as a form.",
        )
    expand = fields.get("expand", "")
    expanded = _true(str(expand[0] if isinstance(expand, list) and expand else expand))
    team, name, _, *revision = parts
    repository = Repository(store, caller, team, name)
    return await run_in_threadpool(_paths, blobs, repository, "/".join(revision), named, expanded)


def _paths(
    blobs: Blobs, repository: Repository, revision: str, named: list[str], expanded: bool
) -> Response:
    version = repository.at(revision)
    entries = {entry["path"]: entry for entry in shapes.tree(blobs, version, "", True) or []}
    paths = dict.fromkeys(path.strip("/") for path in named)
    rows = [entries[path] for path in paths if path in entries]
    return JSONResponse(shapes.with_last_commit(rows, version) if expanded else rows)


def _tree(
    request: Request, blobs: Blobs, repository: Repository, revision: str, path: list[str]
) -> Response:
    version, query = repository.at(revision), request.query_params
    under = "/".join(path).strip("/")
    entries = shapes.tree(blobs, version, under, _true(query.get("recursive", "")))
    if entries is None:
        raise unknown(f"folder '{under}' in {version.ref}", version.commit)
    if _true(query.get("expand", "")):
        entries = shapes.with_last_commit(entries, version)
    return _sliced(request, entries, 1000)


def _info(request: Request, blobs: Blobs, version: Pulled) -> Response:
    query = request.query_params
    described = shapes.info(version, blobs if _true(query.get("blobs", "")) else None)
    return JSONResponse(shapes.only(described, query))


def _true(text: str) -> bool:
    return text.lower() in ("true", "1")


def _size(limit: str, default: int) -> int:
    if limit and not (limit.isascii() and limit.isdigit()):
        raise Invalid(
            "bad-limit",
            f"A page cannot have '{limit[:40]}' entries.",
            "Write limit as a number, 1 to 1000.",
        )
    return min(max(int(limit[:9]), 1), 1000) if limit else default


def _sliced(request: Request, rows: list[dict[str, Any]], default: int) -> Response:
    """One page of rows that are all in memory; the cursor is the index of its first row."""
    size = _size(request.query_params.get("limit", ""), default)
    cursor = request.query_params.get("cursor", "")
    start = int(cursor) if cursor.isascii() and cursor.isdigit() and len(cursor) < 9 else 0
    end = start + size
    return _paged(request, rows[start:end], str(end) if len(rows) > end else None)


def _paged(request: Request, rows: list[dict[str, Any]], after: str | None) -> Response:
    """A page with a link to the next one, which begins at the cursor `after`."""
    if after is None:
        return JSONResponse(rows)
    parameters = [
        (key, value) for key, value in request.query_params.multi_items() if key != "cursor"
    ]
    public = request.app.state.settings.public_url or str(request.base_url)
    raw: bytes = request.scope.get("raw_path") or request.url.path.encode()
    path = raw.partition(b"?")[0].decode("ascii")
    link = f"<{public.rstrip('/')}{path}?{urlencode([*parameters, ('cursor', after)])}>"
    return JSONResponse(rows, headers={"Link": f'{link}; rel="next"'})
