"""Use cases over REST."""

from __future__ import annotations

from fastapi import APIRouter

from registry.api.door import Caller, RestRoute, TheStore
from registry.api.rest.forms import Line
from registry.api.rest.schemas import ChangedUseCase, NewUseCase
from registry.commands import use_cases as commands
from registry.queries import use_cases as queries
from registry.views.use_cases import UseCaseView

router = APIRouter(route_class=RestRoute, tags=["use cases"])


@router.post("/use-cases", status_code=201)
def add(store: TheStore, caller: Caller, body: NewUseCase) -> UseCaseView:
    """Add a use case: why something serves, who owns it, and which suite measures it."""
    name = commands.register(
        store,
        caller,
        commands.UseCaseRequest(
            body.name,
            purpose=body.purpose,
            owner=body.owner,
            risk_tier=body.risk_tier,
            suite=body.suite,
            details=body.details,
        ),
    )
    return queries.history(store, caller, name)[0]


@router.get("/use-cases")
def use_cases(store: TheStore, caller: Caller) -> list[UseCaseView]:
    """Every use case that the caller may see."""
    return queries.use_cases(store, caller)


@router.get("/use-cases/{ref:path}/versions")
def versions(store: TheStore, caller: Caller, ref: Line) -> list[UseCaseView]:
    """Every version of a use case, newest first: what it said, since when, who changed it, why."""
    return queries.history(store, caller, ref)


@router.post("/use-cases/{ref:path}/versions", status_code=201)
def change(store: TheStore, caller: Caller, ref: Line, body: ChangedUseCase) -> UseCaseView:
    """Replace what a use case says by a new version; its open reviews and approvals are void."""
    commands.update(store, caller, commands.UseCaseUpdate(ref, **body.model_dump()))
    return queries.history(store, caller, ref)[0]
