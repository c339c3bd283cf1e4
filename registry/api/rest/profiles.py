"""Serving profiles over REST."""

from __future__ import annotations

from fastapi import APIRouter, Response

from registry.api.door import Caller, RestRoute, TheBlobs, TheStore
from registry.api.rest.forms import ProfileName, Ref
from registry.api.rest.schemas import NewProfile
from registry.commands import profiles as commands
from registry.queries import profiles as queries
from registry.views.profiles import (
    ComparisonView,
    DefinedView,
    ProfileView,
    PromptView,
    VerdictView,
)

router = APIRouter(route_class=RestRoute, tags=["serving profiles"])


@router.post("/profiles", status_code=201, responses={200: {"model": DefinedView}})
def define(
    store: TheStore, blobs: TheBlobs, caller: Caller, body: NewProfile, response: Response
) -> DefinedView:
    """Define a serving profile: one way to serve a version. It never changes."""
    defined = commands.define(
        store, blobs, caller, commands.ProfileRequest(body.ref, body.profile, body.served_base)
    )
    response.status_code = 200 if defined.status == "found" else 201
    return defined


@router.get("/profiles")
def profiles(store: TheStore, caller: Caller, version: Ref) -> list[ProfileView]:
    """The serving profiles of a version."""
    return queries.profiles(store, caller, version)


@router.get("/profiles/{name}")
def profile(store: TheStore, caller: Caller, name: ProfileName) -> ProfileView:
    """One serving profile by id or digest."""
    return queries.profile(store, caller, name)


@router.get("/profiles/{name}/system-prompt")
def system_prompt(
    store: TheStore, blobs: TheBlobs, caller: Caller, name: ProfileName
) -> PromptView:
    """The system prompt of a profile."""
    return queries.system_prompt(store, blobs, caller, name)


@router.get("/profiles/{name}/compared-with/{other}")
def compare(
    store: TheStore, blobs: TheBlobs, caller: Caller, name: ProfileName, other: ProfileName
) -> ComparisonView:
    """Compare two profiles, part by part."""
    return queries.compare(store, blobs, caller, name, other)


@router.get("/engines/{ref:path}")
def engines(store: TheStore, caller: Caller, ref: Ref) -> list[VerdictView]:
    """Which engines can serve a version, and why not."""
    return queries.engines(store, caller, ref)
