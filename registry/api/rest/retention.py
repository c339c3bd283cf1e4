"""Retention classes, legal holds, deletions, collections of bytes and quotas over REST."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Query

from registry.api.door import Caller, RestRoute, TheBlobs, TheStore
from registry.api.rest.forms import Cursor, Limit, Name, Number, Subject
from registry.api.rest.schemas import (
    NewClass,
    NewCollection,
    NewDeletion,
    NewHold,
    NewQuota,
    NewSetting,
    Reason,
)
from registry.commands import blobs as collecting
from registry.commands import deletions, holds
from registry.commands import quotas as quota_commands
from registry.commands import retention as commands
from registry.queries import retention as queries
from registry.queries.pages import PageRequest
from registry.rules.quotas import Limits
from registry.rules.retention import Terms
from registry.views.retention import (
    ClassView,
    CollectionView,
    DuePage,
    HoldPage,
    HoldView,
    KeepingView,
    QuotaView,
    SettingView,
    TombstoneView,
)

router = APIRouter(route_class=RestRoute, tags=["retention"])


@router.get("/retention/classes")
def classes(store: TheStore, caller: Caller) -> list[ClassView]:
    """Every retention class, shortest first."""
    return queries.classes(store, caller)


@router.post("/retention/classes", status_code=201)
def define(store: TheStore, caller: Caller, body: NewClass) -> ClassView:
    """Define a retention class. Its terms never change."""
    terms = Terms(body.name, body.keep_days, body.counted_from, body.after, body.draft_days)
    return commands.define(store, caller, terms, body.reason)


@router.post("/retention/settings", status_code=201)
def assign(store: TheStore, caller: Caller, body: NewSetting) -> SettingView:
    """Assign a retention class to a team, a line or a data set (`dataset:team/name`)."""
    return commands.assign(store, caller, body.name, body.retention, body.reason)


@router.get("/retention/due")
def due(
    store: TheStore, caller: Caller, cursor: Cursor | None = None, limit: Limit = 50
) -> DuePage:
    """What is due for deletion, oldest first, a page at a time."""
    return queries.due(store, caller, PageRequest(cursor, limit))


@router.get("/keeping/{ref:path}")
def keeping(store: TheStore, caller: Caller, ref: Subject) -> KeepingView:
    """What keeps a version or data set version, or its tombstone."""
    return queries.keeping(store, caller, ref)


@router.get("/holds")
def list_holds(
    store: TheStore,
    caller: Caller,
    over: Subject | None = None,
    standing: bool = True,
    cursor: Cursor | None = None,
    limit: Limit = 50,
) -> HoldPage:
    """Legal holds, newest first, a page at a time; `over` asks for those that keep one version."""
    return queries.holds(store, caller, PageRequest(cursor, limit), over=over, standing=standing)


@router.post("/holds", status_code=201)
def place(store: TheStore, caller: Caller, body: NewHold) -> HoldView:
    """Place a legal hold over a version, a line, a data set or one of its versions."""
    return holds.place(store, caller, body.over, body.case, body.reason)


@router.post("/holds/{number}/lift")
def lift(store: TheStore, caller: Caller, number: Number, body: Reason) -> HoldView:
    """Lift a legal hold that another person placed."""
    return holds.lift(store, caller, number, body.reason)


@router.post("/deletions", status_code=201)
def delete(store: TheStore, caller: Caller, body: NewDeletion) -> TombstoneView:
    """Delete a version or data set version that no hold, class or use keeps."""
    return deletions.delete(store, caller, body.ref, body.reason)


@router.post("/discards", status_code=201)
def discard(store: TheStore, caller: Caller, body: NewDeletion) -> TombstoneView:
    """Discard a draft."""
    return deletions.discard(store, caller, body.ref, body.reason)


@router.get("/collections")
def planned(
    store: TheStore,
    blobs: TheBlobs,
    caller: Caller,
    grace_hours: Annotated[int, Query(ge=0, le=8760)] = 24,
) -> CollectionView:
    """What a collection of bytes would remove now."""
    return queries.planned(store, blobs, caller, timedelta(hours=grace_hours))


@router.post("/collections", status_code=201)
def collect(
    store: TheStore, blobs: TheBlobs, caller: Caller, body: NewCollection
) -> CollectionView:
    """Remove bytes that no row needs."""
    return collecting.collect(store, blobs, caller, timedelta(hours=body.grace_hours))


@router.get("/quotas")
def quotas(store: TheStore, caller: Caller) -> list[QuotaView]:
    """The quota and the use of every team that the caller may see."""
    return queries.quotas(store, caller)


@router.post("/quotas", status_code=201)
def set_quota(store: TheStore, caller: Caller, body: NewQuota) -> QuotaView:
    """Set a team's quota, from now on."""
    limits = Limits(body.max_bytes, body.max_versions)
    return quota_commands.put(store, caller, body.team, limits, body.reason)


@router.get("/quotas/{team}")
def quota(store: TheStore, caller: Caller, team: Name) -> QuotaView:
    """The quota and the use of one team."""
    return queries.quota(store, caller, team)
