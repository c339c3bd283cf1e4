"""Base models, adapters, checkpoints and their versions over REST."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response

from registry.api.door import Caller, RestRoute, TheBlobs, TheStore
from registry.api.rest.forms import Cursor, Filter, Limit, Line, Plain, Ref
from registry.api.rest.schemas import NewDeprecation, NewVersion
from registry.artifacts.bundles.judge import Kind
from registry.artifacts.weights.tensors import File
from registry.commands import deprecations
from registry.commands import versions as commands
from registry.queries import verification
from registry.queries import versions as queries
from registry.queries.pages import PageRequest
from registry.views.deprecations import DeprecationView
from registry.views.imports import LeftOut
from registry.views.versions import AddedView, LinePage, VerifiedView, VersionView

router = APIRouter(route_class=RestRoute, tags=["versions"])
REGISTERED: dict[int | str, dict[str, Any]] = {
    200: {"model": AddedView, "description": "These bytes are registered already."}
}


def _draft(kind: Kind, body: NewVersion) -> commands.Draft:
    files = [File(file.path, file.sha256, file.size) for file in body.files]
    return commands.Draft(
        kind,
        body.name,
        files,
        body.meta,
        body.base,
        body.domain,
        body.training_run,
        body.attempt,
        body.step,
        body.quantised_of,
        tuple(LeftOut(each.path, each.why, each.size, each.asked) for each in body.left_out),
    )


def _answer(added: AddedView, response: Response) -> AddedView:
    """The view, with 201 for a new version and 200 for bytes that were registered before."""
    response.status_code = 200 if added.status == "found" else 201
    return added


@router.post("/bases", status_code=201, responses=REGISTERED)
def add_base(
    store: TheStore, blobs: TheBlobs, caller: Caller, body: NewVersion, response: Response
) -> AddedView:
    """Register a version of a base model from uploaded files."""
    return _answer(commands.register(store, blobs, caller, _draft("base", body)), response)


@router.post("/adapters", status_code=201, responses=REGISTERED)
def add_adapter(
    store: TheStore, blobs: TheBlobs, caller: Caller, body: NewVersion, response: Response
) -> AddedView:
    """Register a version of an adapter from uploaded files."""
    return _answer(commands.register(store, blobs, caller, _draft("adapter", body)), response)


@router.post("/checkpoints", status_code=201, responses=REGISTERED)
def add_checkpoint(
    store: TheStore, blobs: TheBlobs, caller: Caller, body: NewVersion, response: Response
) -> AddedView:
    """Register a version of a checkpoint from uploaded files."""
    return _answer(commands.register(store, blobs, caller, _draft("checkpoint", body)), response)


@router.get("/lines")
def lines(
    store: TheStore,
    caller: Caller,
    kind: Filter.Kind | None = None,
    team: Plain | None = None,
    q: Plain | None = None,
    cursor: Cursor | None = None,
    limit: Limit = 50,
) -> LinePage:
    """Base models, adapters and checkpoints, a page at a time."""
    filters = queries.LineFilter(kind, team, q)
    return queries.lines(store, caller, filters, PageRequest(cursor, limit))


@router.get("/lines/{ref:path}/versions")
def versions(store: TheStore, caller: Caller, ref: Line) -> list[VersionView]:
    """A line's versions, newest first."""
    return queries.versions(store, caller, ref)


@router.get("/versions/{ref:ref}")
def version(store: TheStore, caller: Caller, ref: Ref) -> VersionView:
    """One version: what it is, where it comes from, and where it serves."""
    return queries.version(store, caller, ref)


@router.post("/deprecations", status_code=201)
def deprecate(store: TheStore, caller: Caller, body: NewDeprecation) -> DeprecationView:
    """Deprecate a version or data set version: no new rollout of it starts."""
    return deprecations.deprecate(store, caller, body.ref, body.reason)


@router.get("/verify/{ref:path}")
def verify(store: TheStore, blobs: TheBlobs, caller: Caller, ref: Ref) -> VerifiedView:
    """Recompute every digest and root of a version or data set version from the bytes."""
    return verification.verify(store, blobs, caller, ref)
