"""Serving profiles over REST."""

from __future__ import annotations

from fastapi import APIRouter, Response

from registry.api.rest.door import Caller, TheBlobs, TheStore
from registry.api.rest.schemas import NewProfile
from registry.commands import profiles as commands
from registry.queries import profiles as queries
from registry.views.profiles import DefinedView, ProfileView, VerdictView

router = APIRouter(tags=["serving profiles"])


@router.post("/profiles", status_code=201)
def define(store: TheStore, blobs: TheBlobs, caller: Caller, body: NewProfile, response: Response) -> DefinedView:
    """Freeze one way to serve a version."""
    made = commands.define(store, blobs, caller, body.ref, body.profile, body.served_base)
    response.status_code = 200 if made.status == "found" else 201
    return made


@router.get("/profiles")
def profiles(store: TheStore, caller: Caller, version: str) -> list[ProfileView]:
    """The serving profiles of a version."""
    return queries.profiles(store, caller, version)


@router.get("/profiles/{name}")
def profile(store: TheStore, caller: Caller, name: str) -> ProfileView:
    """One serving profile by id or digest."""
    return queries.profile(store, caller, name)


@router.get("/engines/{ref:path}")
def engines(store: TheStore, caller: Caller, ref: str) -> list[VerdictView]:
    """Which engines can serve a version, and why not."""
    return queries.engines(store, caller, ref)
